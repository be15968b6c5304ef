"""Seeds and labels in, pictures out: the whole library behind one class."""

import inspect
import os
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from . import hub
from .diffusion import add_noise, denoiser
from .engine import Engine, fastest, pytorch
from .images import Frame, Images
from .samplers import BEST_GRIDS, BEST_SAMPLER, SAMPLERS, RandnLike
from .unet import UNet

MAX_SEED = 2**32 - 1
MAX_GUIDANCE = 20.0
MAX_IMAGES = 1024
GOLDEN = 2654435769  # 2**32 over the golden ratio
MAX_PIXELS = 2**22  # in all images together: their frames then stay below 1.5 GB


class Pipeline:
    """A network ready to draw. `config` is what its config.json says, data set and class names
    among it; `commit` is that of the Hub repo it came from, if it did. The weights of a `finished`
    model will not change any more: what computes it fastest may take a copy of them."""

    def __init__(
        self,
        model: UNet,
        config: dict[str, Any] | None = None,
        commit: str | None = None,
        *,
        finished: bool = False,
    ) -> None:
        self.model = model.eval()
        self.config = config or {}
        self.commit = commit
        self.finished = finished
        self._engines: dict[tuple[torch.device, int], Engine] = {}

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = "mnist",
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
    ) -> "Pipeline":
        """The model at source: built-in weights ("mnist"), a folder, or a Hub repo "NAMESPACE/NAME"
        (at revision).

        Raises ValueError or OSError that says in one line what is wrong and what to do.
        """
        model, config, commit = hub.load(source, revision)
        return cls(model.to(device), config, commit, finished=True)

    @property
    def device(self) -> torch.device:
        """Where the network lies, and the images are drawn."""
        return self.model.conv_in.weight.device

    @property
    def engine(self) -> Engine:
        """What computes the network, chosen when first asked for; `engine.text` says which, and why
        not the other."""
        here = (
            self.device,
            os.getpid(),
        )  # after a fork, as on ZeroGPU, the threads of an engine are gone
        if here not in self._engines:
            self._engines[here] = fastest(self.model) if self.finished else pytorch(self.model)
        return self._engines[here]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each label is called."""
        return tuple(self.config.get("class_names") or (str(k) for k in range(self.model.classes)))

    def label_of(self, seed: int) -> int:
        """The class that a seed draws if none is asked for; needs a model with classes.

        Each as often as among the training images (`class_counts` in config.json; equally often, if
        it is not there): to draw without being asked for anything is to draw from all that was
        learned. Multiples of the golden ratio: any run of seeds has the classes in about these
        shares, all seeds together have them exactly."""
        bounds = list(accumulate(self.config.get("class_counts") or [1] * self.model.classes))
        return bisect(bounds, seed * GOLDEN % 2**32 * bounds[-1] >> 32)

    def asked(
        self, seeds: Sequence[int], labels: int | Sequence[int | None] | None = None
    ) -> list[str | None]:
        """What each image is asked to show, in words, or None. Arguments and errors as for
        `stream`."""
        y = self._checked_labels(labels, _checked_seeds(seeds, self.model))
        names = [*self.class_names, None]
        return [None] * len(seeds) if y is None else [names[label] for label in y.tolist()]

    def times(
        self, sampler: str, steps: int, grid: str | None = None, start: float | None = None
    ) -> list[float]:
        """Where the frames of a walk lie, from T to 0; with `start`, those below it after it. As
        for `stream`."""
        if sampler not in list(
            SAMPLERS
        ):  # a list: what cannot be hashed is refused like anything else
            raise ValueError(f"unknown sampler {sampler!r}; choose from {', '.join(SAMPLERS)}")
        times = self.model.schedule.times(steps, BEST_GRIDS[sampler] if grid is None else grid)
        return times if start is None else self._rest(times, start)

    def stream(
        self,
        *,
        seeds: Sequence[int],
        labels: int | Sequence[int | None] | None = None,
        sampler: str = BEST_SAMPLER,
        steps: int = 20,
        grid: str | None = None,
        guidance: float = 0.0,
        eta: float | None = None,
        start: tuple[Tensor, float] | None = None,
    ) -> Iterator[Frame]:
        """The reverse process, as steps + 1 frames from pure noise to the finished images, one
        image a seed.

        Args:
            seeds: each in 0..2**32 - 1; a seed gives the same image alone or in any batch.
            labels: one label for all, or one for each image, 0..classes - 1. None: the class that
                the seed draws (`label_of`). The number `classes`: no label at all, as far as the
                network learned to draw so.
            sampler: a key of SAMPLERS. steps: 1..T; most samplers evaluate the network once a step.
            grid: where the steps fall, a key of GRIDS, perhaps with parameters ("power(0.6)");
                None: the grid that was measured to be best for the sampler.
            guidance: how strongly to insist on the label, 0..20; doubles the network evaluations.
            eta: 0..1, how much fresh noise "ddim" adds; only for samplers that have it.
            start: images x0 (N×C×H×W in [-1, 1]) and a time t in 1..T: instead of pure noise, x0
                drowned in each seed's noise up to t (or to where the grid begins, if that is less),
                and only the part of the way that is left. Meng et al. 2022 (SDEdit).

        Raises ValueError at once (not at the first frame), naming the valid choices.
        """
        seeds = _checked_seeds(seeds, self.model)
        y = self._checked_labels(labels, seeds)
        times = self.times(sampler, steps, grid)
        if start is not None:
            times = self._rest(times, start[1])
        _check_number("guidance", guidance, MAX_GUIDANCE)
        if guidance and (y is None or (y == self.model.classes).any()):
            raise ValueError("guidance needs a label: say what to guide towards")
        walk = SAMPLERS[sampler]
        if eta is not None:
            _check_number("eta", eta, 1)
            if "eta" not in inspect.signature(walk).parameters:
                raise ValueError(f"sampler {sampler} has no eta; only ddim has")
            walk = partial(walk, eta=eta)

        model, nfe, cost = self.model, 0, 2 if guidance else 1
        denoise = denoiser(model, y, guidance=guidance, run=self.engine.run)

        def counted(x: Tensor, t: float) -> Tensor:
            nonlocal nfe
            nfe += cost
            return denoise(x, t)

        randn_like = _seeded_noise(seeds)
        x = randn_like(self._like(seeds))
        if start is not None:
            x = self._drowned(start[0], x, times[0])
        way = walk(counted, model.schedule, x, times, randn_like)
        return (Frame(*step, nfe, self._snr(step.t)) for step in way)

    def forward(
        self, x0: Tensor, *, seeds: Sequence[int], times: Sequence[float]
    ) -> Iterator[Frame]:
        """The forward process: images x0 (N×C×H×W in [-1, 1]) at each of times, drowned in each
        seed's noise (that from which `stream` starts), and what the network, told no label, makes
        of them at one glance.

        Raises ValueError at once for seeds, shapes or times that cannot be.
        """
        seeds = _checked_seeds(seeds, self.model)
        eps, denoise = (
            _seeded_noise(seeds)(self._like(seeds)),
            denoiser(self.model, run=self.engine.run),
        )
        drowned = [self._drowned(x0, eps, t) for t in times]
        asked = accumulate(int(t > 0) for t in times)  # at 0 there is nothing to ask
        return (
            Frame(t, x, denoise(x, t) if t else x, nfe, self._snr(t))
            for t, x, nfe in zip(times, drowned, asked, strict=True)
        )

    def sample(
        self,
        *,
        seeds: Sequence[int],
        labels: int | Sequence[int | None] | None = None,
        steps: int = 20,
        **settings: Any,
    ) -> Images:
        """The finished images, with the frames that a film of the way shows. settings: as for
        `stream`."""
        stream = self.stream(seeds=seeds, labels=labels, steps=steps, **settings)
        return Images.collect(stream, seeds, self.asked(seeds, labels), steps)

    def _like(self, seeds: Sequence[int]) -> Tensor:
        """Room for one image a seed."""
        return torch.empty(
            len(seeds), self.model.channels, self.model.size, self.model.size, device=self.device
        )

    def _rest(self, times: list[float], start: float) -> list[float]:
        """What is left of the way from `start` on. Some grids begin below T, where their sampler
        begins to work."""
        if (
            type(start) not in (int, float) or not 1 <= start <= self.model.schedule.T
        ):  # NaN compares false
            raise ValueError(
                f"a walk starts at a time in 1..{self.model.schedule.T}, got {start!r}"
            )
        start = min(float(start), times[0])
        return [start, *(t for t in times if t < start)]

    def _drowned(self, x0: Tensor, eps: Tensor, t: float) -> Tensor:
        if x0.shape != eps.shape:
            raise ValueError(
                f"x0 must be {list(eps.shape)}, one image a seed, got {list(x0.shape)}"
            )
        return add_noise(
            self.model.schedule,
            x0.to(eps.device),
            torch.full((len(eps),), t, dtype=torch.float64, device=eps.device),
            eps,
        )

    def _snr(self, t: float) -> float:
        alpha, sigma = self.model.schedule(t)
        return float((alpha / sigma).square())

    def _checked_labels(
        self, labels: int | Sequence[int | None] | None, seeds: list[int]
    ) -> Tensor | None:
        """Labels as the network wants them, on its device; None if it knows no classes."""
        classes = self.model.classes
        each = [labels] * len(seeds) if labels is None or type(labels) is int else list(labels)
        if len(each) != len(seeds):
            raise ValueError(
                f"{len(each)} labels for {len(seeds)} seeds: give one label, or one for each seed"
            )
        for label in each:
            if label is not None and not (type(label) is int and 0 <= label <= classes and classes):
                valid = (
                    f"whole numbers in 0..{classes - 1}, or {classes} for none"
                    if classes
                    else "impossible, as this model knows none"
                )
                raise ValueError(f"labels are {valid}, got {label!r}")
        if not classes:
            return None
        return torch.tensor(
            [
                self.label_of(seed) if label is None else label
                for seed, label in zip(seeds, each, strict=True)
            ],
            device=self.device,
        )


def _checked_seeds(seeds: Sequence[int], model: UNet) -> list[int]:
    most = min(MAX_IMAGES, MAX_PIXELS // (model.channels * model.size**2))
    if not 1 <= len(seeds) <= most:
        raise ValueError(
            f"1..{most} images of this model can be drawn at once, got {len(seeds)} seeds"
        )
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seeds are whole numbers in 0..{MAX_SEED}, got {seed!r}")
    return list(seeds)


def _check_number(name: str, value: float, most: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= most:  # NaN compares false
        raise ValueError(f"{name} must be a number in 0..{most:g}, got {value!r}")


def _seeded_noise(seeds: list[int]) -> RandnLike:
    """Noise with a CPU generator for each image: a seed gives the same image in any batch and on
    any device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def randn_like(x: Tensor) -> Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(x.device)

    return randn_like
