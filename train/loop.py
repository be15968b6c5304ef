"""The training loop: one optimizer step after another, and nothing else.

`Trainer` holds what training changes (weights, their average, the optimizer's moments, the random
generator) and takes one step at a time; `train` is a generator that yields a `Record` after each.
Showing, saving and stopping belong to the caller. The loop knows neither files nor the terminal.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddpm.diffusion import loss
from ddpm.pixels import from_pixels
from ddpm.unet import UNet

from .data import Data


@dataclass(frozen=True)
class Recipe:
    """What shapes the result, besides the data and the network.

    batch_size counts all processes together. warmup is in steps. clip bounds the norm of the
    gradient. ema is the decay of the weight average. drop_label is the share of samples whose label
    is withheld, each for itself (Ho & Salimans 2022, Algorithm 1)."""

    batch_size: int
    lr: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9995
    drop_label: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what no training survives."""
        for name, low, high in (
            ("batch_size", 1, 16_384),
            ("warmup", 0, 10**9),
            ("weight_decay", 0, 10),
            ("ema", 0, 1),
            ("drop_label", 0, 1),
            ("seed", 0, 2**32 - 1),
        ):
            if not low <= getattr(self, name) <= high:  # NaN compares false
                raise ValueError(
                    f"{name.replace('_', '-')} must be in {low}..{high}, got {getattr(self, name)}"
                )


class Record(NamedTuple):
    """Written after an update. loss is a scalar on the training device; a GPU waits while it is
    read: do so seldom."""

    step: int
    loss: Tensor
    lr: float
    fraction: float  # of the whole run that is done, 0..1


class Trainer:
    """A network in training on one device, alone or as one of several processes (torchrun) that
    share each batch.

    Every process draws the random numbers of the whole batch and keeps its own slice, so the result
    does not depend on how many there are. On one GPU the whole step (forward, backward, clip,
    update, average) is compiled and captured into a CUDA graph: a network this small otherwise
    waits for Python to launch its kernels."""

    def __init__(self, model: UNet, data: Data, recipe: Recipe, *, compile: bool = True) -> None:
        """model and data lie on the training device. Raises ValueError if the processes cannot
        share the batch."""
        self.rank, self.world = (
            (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        )
        if recipe.batch_size % self.world:
            raise ValueError(
                f"a batch of {recipe.batch_size} cannot be shared by {self.world} processes evenly"
            )
        self.model = model.train().to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.data, self.recipe, self.step = data, recipe, 0
        self.device = data.images.device
        on_gpu = self.device.type == "cuda"
        captured = on_gpu and compile and self.world == 1
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        self.lr = torch.tensor(
            0.0, device=self.device
        )  # tensors, so that a captured step reads them anew
        self.ema_weight = torch.tensor(1.0, device=self.device)
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=self.lr,
            betas=(0.9, 0.99),
            fused=True,
            weight_decay=recipe.weight_decay,
            capturable=captured,
        )
        self._make_moments()
        self.network: nn.Module = model
        if on_gpu and compile:
            # a kernel compiled for a symbolic batch died with "misaligned address"
            torch.compiler.reset()
            self.network = torch.compile(model, dynamic=False)
        self.batch = self._draw()  # the captured step reads these very tensors
        self.graph = self._capture() if captured else None

    def update(self, lr: float) -> Tensor:
        """One step at this learning rate. Returns the mean loss of the batch, a scalar on the
        device."""
        self.step += 1
        self.lr.fill_(lr)
        # A plain average of the first weights would remember their noise for thousands of steps:
        # warm the decay up.
        self.ema_weight.fill_(1 - min(self.recipe.ema, (1 + self.step) / (10 + self.step)))
        for ours, new in zip(self.batch, self._draw(), strict=True):
            ours.copy_(new)
        if self.graph:
            self.graph.replay()
        else:
            self._compute()
        return self.loss.clone()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that an update changes, by name: the live tensors on the device, not
        copies."""
        found = {f"model.{name}": p.data for name, p in self.model.named_parameters()}
        found |= {f"ema.{name}": p.data for name, p in self.ema.named_parameters()}
        for name, p in self.model.named_parameters():
            found |= {f"{kind}.{name}": value for kind, value in self.optimizer.state[p].items()}
        return found

    def _make_moments(self) -> None:
        """Makes the optimizer's state exist (a step of size 0 changes no weight), so that it can be
        loaded into."""
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            self.optimizer.step()
        for state in self.optimizer.state.values():
            state["step"].zero_()

    def _draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A new batch: images, labels, times and noise."""
        recipe, images = self.recipe, self.data.images
        random = {"generator": self.generator, "device": self.device}
        index = torch.randint(len(images), (recipe.batch_size,), **random)
        t = torch.randint(1, self.model.schedule.T + 1, (recipe.batch_size,), **random)
        dropped = torch.rand(recipe.batch_size, **random) < recipe.drop_label
        eps = torch.randn(recipe.batch_size, *images.shape[1:], **random)
        labels = self.data.labels[index].masked_fill(dropped, self.model.classes)
        mine = slice(self.rank, None, self.world)
        return (
            from_pixels(images[index[mine]]),
            labels[mine],
            t[mine].float(),
            eps[mine].contiguous(),
        )

    def _compute(self) -> None:
        """The step itself: no decision here depends on a value, so that a CUDA graph can hold all
        of it."""
        x0, y, t, eps = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            value = loss(self.network, x0, y, t, eps)
        value.backward()
        self.loss = value.detach()
        if self.world > 1:
            self._share_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        with torch.no_grad():
            for average, p in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(p, self.ema_weight)

    def _share_gradients(self) -> None:
        """Replaces loss and gradients by their means over all processes, in one message."""
        values = [self.loss, *(p.grad for p in self.model.parameters())]
        message = torch.cat([value.flatten() for value in values])
        dist.all_reduce(message)
        message /= self.world
        for value, mean in zip(
            values, message.split([value.numel() for value in values]), strict=True
        ):
            value.copy_(mean.view_as(value))

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Records one step on the GPU. The warm-up steps that this takes are undone."""
        before = {name: value.clone() for name, value in self.tensors().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        for name, value in self.tensors().items():
            value.copy_(before[name])
        return graph


class Budget(NamedTuple):
    """How long to train. Exactly one is set: steps, or minutes of wall time (those before a resume
    included)."""

    steps: int | None = None
    minutes: float | None = None

    def fraction(self, step: int, seconds: float) -> float:
        """How much of it is used up, 0..1."""
        used = step / self.steps if self.steps is not None else seconds / 60 / self.minutes
        return min(used, 1.0)


def train(trainer: Trainer, budget: Budget, *, seconds: Callable[[], float]) -> Iterator[Record]:
    """Steps until the budget is spent, yielding a Record after each. lr: linear warm-up times
    cosine to zero.

    seconds tells the wall time spent so far; where there are several processes, the first one's
    clock counts."""
    recipe = trainer.recipe
    while (fraction := _agreed(trainer, budget, seconds)) < 1:
        warm = min(1.0, (trainer.step + 1) / recipe.warmup) if recipe.warmup else 1.0
        lr = recipe.lr * warm * (1 + math.cos(math.pi * fraction)) / 2
        value = trainer.update(lr)
        yield Record(trainer.step, value, lr, budget.fraction(trainer.step, seconds()))


def _agreed(trainer: Trainer, budget: Budget, seconds: Callable[[], float]) -> float:
    """The fraction done, the same in every process: clocks differ, and one that stops alone leaves
    others waiting."""
    fraction = budget.fraction(trainer.step, seconds())
    if budget.minutes is not None and trainer.world > 1:
        shared = torch.tensor(fraction, dtype=torch.float64, device=trainer.device)
        dist.broadcast(shared, src=0)
        fraction = shared.item()
    return fraction


def stopwatch(start: float = 0.0) -> Callable[[], float]:
    """A clock that shows the seconds since now, plus start."""
    begin = time.monotonic()
    return lambda: start + time.monotonic() - begin
