"""The training loop: one optimizer step after another, and nothing else.

`Trainer` holds what training changes (weights, their moving average, the optimizer's moments, the
random generator) and takes one step at a time; `train` is a generator that yields a `Record` after
each. Showing, saving and stopping are up to the caller: nothing here reads or writes a file or the
terminal.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddpm.diffusion import PREDICTIONS, coefficients, loss
from ddpm.pixels import from_pixels
from ddpm.settings import MAX_SEED
from ddpm.unet import UNet

from .data import Data


@dataclass(frozen=True)
class Recipe:
    """What shapes the result, besides the data and the network.

    batch_size counts all processes together. warmup is in steps. clip bounds the norm of the
    gradient. ema is the decay of the moving average of the weights, 0..1. drop_label is the
    probability that the label of a sample is replaced by "no label", for each sample independently
    (Ho & Salimans 2022, Algorithm 1).
    """

    batch_size: int
    lr: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9995
    drop_label: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a value that cannot work."""
        for name, low, high in (
            ("batch_size", 1, 16_384),
            ("warmup", 0, 10**9),
            ("weight_decay", 0, 10),
            ("ema", 0, 1),
            ("drop_label", 0, 1),
            ("seed", 0, MAX_SEED),
        ):
            if not low <= getattr(self, name) <= high:  # NaN compares false
                raise ValueError(
                    f"{name.replace('_', '-')} must be in {low}..{high}, got {getattr(self, name)}"
                )


class Record(NamedTuple):
    """What one update did.

    loss is a scalar tensor on the training device: reading its value waits for the GPU, so do it
    seldom.
    """

    step: int
    loss: Tensor
    lr: float
    fraction: float  # of the whole run that is done, 0..1


Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # images, labels, times, noise
Sample = Callable[[torch.Generator, slice], Batch]
"""(generator, part) -> a random batch: images N×C×H×W, labels N, times N in 1..T (float32), noise
N×C×H×W. part: which samples of the batch to return. The random numbers are those of the whole batch
whatever part is."""


def from_data(data: Data, recipe: Recipe, T: int, time_power: float = 1.0) -> Sample:
    """Random training images, times and noise. Data and what is returned are on one device."""
    return partial(sample_batch, data, recipe, T, time_power=time_power)


def sample_batch(
    data: Data,
    recipe: Recipe,
    T: int,
    generator: torch.Generator,
    part: slice = slice(None),
    time_power: float = 1.0,
) -> Batch:
    """A random batch as `Sample` describes it, of training images."""
    n = recipe.batch_size
    random: dict[str, Any] = {"generator": generator, "device": data.images.device}
    index = torch.randint(len(data.images), (n,), **random)
    t = sample_times(n, T, generator, time_power)
    dropped = torch.rand(n, **random) < recipe.drop_label
    eps = torch.randn(n, *data.images.shape[1:], **random)
    labels = data.labels[index].masked_fill(dropped, len(data.classes))
    images = from_pixels(data.images[index[part]])
    return images, labels[part], t[part].float(), eps[part].contiguous()


def guided(
    sample: Sample,
    model: UNet,
    guidance: float,
    unlabelled: float = 0.0,
    weaker: UNet | None = None,
) -> Sample:
    """Batches from which the model learns to sample as if with guidance.

    It then needs one evaluation where guidance takes two. In the same x_t, each x0 is moved by

        w / (1 + w) * (x0 predicted by the model - x0 predicted by a worse guess),

    and its noise accordingly. A model that has learned this predicts (1 + w) * E[x0] - w * that
    guess. Tang et al. 2025, "Diffusion Models without Classifier-free Guidance".

    The worse guess is made without the label: by the model itself (Ho & Salimans 2022, Eq. 6), or
    by `weaker`, a smaller model of the same data that was trained more briefly. What that gets
    wrong, the model gets wrong too, but less, so the images move away from its errors as well
    (autoguidance, Karras et al. 2024).

    model: that is trained; it and weaker are on the device of the batches. guidance: w for samples
    with a label. unlabelled: w for those without one; it does nothing without `weaker`.
    """

    def moved(generator: torch.Generator, part: slice) -> Batch:
        x0, y, t, eps = sample(generator, part)
        none = torch.full_like(y, model.classes)
        w = torch.where(y == none, unlabelled, guidance)
        rows = w > 0
        alpha, sigma = coefficients(model.schedule, t)
        x = (alpha * x0 + sigma * eps)[rows]

        @torch.no_grad()
        def predicted(network: UNet, labels: Tensor) -> Tensor:
            out = network(x, t[rows], labels[rows])
            return PREDICTIONS[network.prediction].x0(out, x, alpha[rows], sigma[rows])

        move = torch.zeros_like(x0)
        if len(x):
            move[rows] = predicted(model, y) - predicted(weaker or model, none)
        move *= (w / (1 + w))[:, None, None, None]
        return x0 + move, y, t, eps - alpha / sigma * move

    return moved


def sample_times(count: int, T: int, generator: torch.Generator, power: float = 1.0) -> Tensor:
    """Random times T u^power in 1..T, one u from each of `count` equal parts of 0..1, in order.

    float64. With power 1 all times are equally likely; above 1, those of little noise are more so.

    The loss depends strongly on t. With independent times the mean loss of a batch, and its
    gradient, vary mainly because batches hold different times. One time from each part removes that
    (stratified sampling); each time is as likely as with independent u, so the expected loss is
    the same. Compare the low-discrepancy times of Kingma et al. 2021 (VDM), Appendix I.1.
    """
    k = torch.arange(count, device=generator.device, dtype=torch.float64)
    # in (0, 1]: each part includes its upper end, not its lower one, so that no time is 0
    u = 1 - torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
    times = (((k + u) / count) ** power * T).ceil()
    return times.clamp(min=1)  # a large power of a small u is 0


class Trainer:
    """A network in training on one device, alone or in one of several processes.

    The processes (torchrun) share each batch. Every process takes the random numbers of the whole
    batch and keeps its own share of the samples, so the result does not depend on the number of
    processes. On one GPU the whole step (forward, backward, clip, update, average) is compiled and
    captured into a CUDA graph: otherwise the GPU waits for Python to launch the kernels of so small
    a network.
    """

    def __init__(
        self,
        model: UNet,
        sample: Sample,
        recipe: Recipe,
        *,
        huber: float = 0.0,
        compile: bool = True,
    ) -> None:
        """model is on the training device, and what sample returns too. huber: of the loss.

        Raises ValueError if the batch size is not a multiple of the number of processes.
        """
        self.rank, self.world = (
            (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        )
        if recipe.batch_size % self.world:
            raise ValueError(
                f"a batch of {recipe.batch_size} cannot be shared by {self.world} processes evenly"
            )
        self.model = model.train().to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.sample, self.recipe, self.huber, self.step = sample, recipe, huber, 0
        self.device = model.conv_in.weight.device
        on_gpu = self.device.type == "cuda"
        captured = on_gpu and compile and self.world == 1
        self.generator = torch.Generator(self.device).manual_seed(recipe.seed)
        # tensors, so that a captured step reads their present values
        self.lr, self.ema_weight = (torch.tensor(value, device=self.device) for value in (0.0, 1.0))
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=self.lr,
            betas=(0.9, 0.99),
            fused=True,
            weight_decay=recipe.weight_decay,
            capturable=captured,
        )
        self._make_moments()
        self.network = model
        if on_gpu and compile:
            # not dynamic: a kernel for any batch size failed with "misaligned address"
            torch.compiler.reset()
            self.network = cast("UNet", torch.compile(model, dynamic=False))  # has its attributes
        self.batch = self._next_batch()  # always these tensors: the captured step reads them
        self.graph = self._capture() if captured else None

    def update(self, lr: float) -> Tensor:
        """One step at this learning rate.

        Returns the mean loss of the batch, a scalar on the training device.
        """
        self.step += 1
        self.lr.fill_(lr)
        # With the full decay from the start, the average would contain the random initial weights
        # for thousands of steps, so the decay rises to its value.
        self.ema_weight.fill_(1 - min(self.recipe.ema, (1 + self.step) / (10 + self.step)))
        for ours, new in zip(self.batch, self._next_batch(), strict=True):
            ours.copy_(new)
        if self.graph:
            self.graph.replay()
        else:
            self._compute()
        return self.loss.clone()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that an update changes, by name: the live tensors on the device, no copies."""
        found = {f"model.{name}": p.data for name, p in self.model.named_parameters()}
        found |= {f"ema.{name}": p.data for name, p in self.ema.named_parameters()}
        for name, p in self.model.named_parameters():
            found |= {f"{kind}.{name}": value for kind, value in self.optimizer.state[p].items()}
        return found

    def _make_moments(self) -> None:
        """Creates the optimizer's state, so that a checkpoint can be loaded into it.

        It takes a step with learning rate 0, which changes no weight.
        """
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            self.optimizer.step()
        for state in self.optimizer.state.values():
            state["step"].zero_()

    def _next_batch(self) -> Batch:
        """This process's share of a new batch: every world-th sample."""
        return self.sample(self.generator, slice(self.rank, None, self.world))

    def _compute(self) -> None:
        """The step itself.

        No branch depends on the value of a tensor, so that a CUDA graph can contain all of it.
        """
        x0, y, t, eps = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            value = loss(self.network, x0, y, t, eps, huber=self.huber)
        torch.autograd.backward(value)
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
        gradients = (p.grad for p in self.model.parameters() if p.grad is not None)
        values = [self.loss, *gradients]
        message = torch.cat([value.flatten() for value in values])
        dist.all_reduce(message)
        message /= self.world
        means = torch.split(message, [value.numel() for value in values])
        for value, mean in zip(values, means, strict=True):
            value.copy_(mean.view_as(value))

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Records one step on the GPU. The warm-up steps that recording needs are undone."""
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


@dataclass(frozen=True)
class Budget:
    """How long to train: `limit` steps or, if `timed`, minutes of wall time.

    Those before a resume are included.
    """

    limit: float
    timed: bool

    def fraction(self, step: int, seconds: float) -> float:
        """How much of it is used up, 0..1."""
        return min((seconds / 60 if self.timed else step) / self.limit, 1.0)


def train(trainer: Trainer, budget: Budget, *, seconds: Callable[[], float]) -> Iterator[Record]:
    """Steps until the budget is used up, yielding a Record after each.

    The learning rate is a linear warm-up times a cosine that falls to 0.

    seconds: returns the wall time spent so far. With several processes that of the first counts.
    """
    recipe = trainer.recipe
    while (fraction := _agreed(trainer, budget, seconds)) < 1:
        warm = min(1.0, (trainer.step + 1) / recipe.warmup) if recipe.warmup else 1.0
        lr = recipe.lr * warm * (1 + math.cos(math.pi * fraction)) / 2
        value = trainer.update(lr)
        yield Record(trainer.step, value, lr, budget.fraction(trainer.step, seconds()))


def _agreed(trainer: Trainer, budget: Budget, seconds: Callable[[], float]) -> float:
    """The fraction done, the same in every process.

    If one stopped a step before the others, they would wait for it forever.
    """
    fraction = budget.fraction(trainer.step, seconds())
    if budget.timed and trainer.world > 1:
        shared = torch.tensor(fraction, dtype=torch.float64, device=trainer.device)
        dist.broadcast(shared, src=0)
        fraction = shared.item()
    return fraction


def stopwatch(start: float = 0.0) -> Callable[[], float]:
    """A clock that shows the seconds since now, plus start."""
    begin = time.monotonic()
    return lambda: start + time.monotonic() - begin
