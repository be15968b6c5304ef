"""Seeds and labels in, images out: the whole library behind one class."""

import os
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from . import hub
from .diffusion import add_noise, denoiser
from .engine import Engine, fastest, pytorch
from .files import write_atomic
from .frames import Frame
from .images import Images
from .samplers import RandnLike
from .settings import MAX_IMAGES, Settings
from .unet import UNet

GOLDEN = 2654435769  # 2**32 over the golden ratio
DISTILLED = "ddim"  # the sampler of distilled models: their steps were made for it
MAX_PIXELS = 2**22  # in all images together: their frames then stay below 1.5 GB


class Pipeline:
    """A network ready to generate images.

    Args:
        model: the network; it is set to eval mode.
        config: what its config.json says, data set and class names among it.
        commit: of the Hub repo it came from, if it did.
        finished: the weights will not change any more, so the engine may take a copy of them.

    walks: of a distilled model (`python -m train.distill`), the times at which the network may be
    asked, by number of steps; empty for others.
    """

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
        distilled = self.config.get("distilled") or {"walks": {}}
        self.walks = {int(steps): times for steps, times in distilled["walks"].items()}
        self._engines: dict[tuple[torch.device, int], Engine] = {}

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = "mnist",
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
    ) -> "Pipeline":
        """The model at source.

        Args:
            source: built-in weights ("mnist"), a folder, or a Hub repo "NAMESPACE/NAME".
            revision: branch, tag or commit of the Hub repo.
            device: where to compute.

        Raises ValueError or OSError that says in one line what is wrong and what to do.
        """
        model, config, commit = hub.load(source, revision)
        return cls(model.to(device), config, commit, finished=True)

    @property
    def device(self) -> torch.device:
        """Where the network lies, and where images are generated."""
        return self.model.conv_in.weight.device

    @property
    def engine(self) -> Engine:
        """What computes the network, chosen at first use.

        `engine.text` says which engine it is, and why not the other.
        """
        # By process: after a fork, as on ZeroGPU, the threads of an engine are gone.
        here = self.device, os.getpid()
        if here not in self._engines:
            self._engines[here] = fastest(self.model) if self.finished else pytorch(self.model)
        return self._engines[here]

    @property
    def usual(self) -> dict[str, Any]:
        """The sampler and the steps that `sample` takes if it is told nothing else."""
        if self.walks:
            return {"sampler": DISTILLED, "steps": max(self.walks)}
        return {"sampler": Settings.sampler, "steps": min(Settings.steps, self.model.schedule.T)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return tuple(self.config.get("class_names") or (str(k) for k in range(self.model.classes)))

    def label_of(self, seed: int) -> int:
        """The class that a seed chooses if no label is given; needs a model with classes.

        Each class is as frequent as in the training images (`class_counts` in config.json; equally
        frequent if it is missing): without a label, images follow the training distribution. With
        multiples of the golden ratio any run of seeds has the classes in about these shares, and
        all seeds together have them exactly.
        """
        bounds = list(accumulate(self.config.get("class_counts") or [1] * self.model.classes))
        return bisect(bounds, seed * GOLDEN % 2**32 * bounds[-1] >> 32)

    def names(self, settings: Settings) -> list[str | None]:
        """What each image is asked to show, in words, or None. Raises ValueError as `stream`."""
        y = self._labels(settings)
        words = [*self.class_names, None]
        return [None] * len(settings.seeds) if y is None else [words[k] for k in y.tolist()]

    def times(self, settings: Settings) -> list[float]:
        """Where the frames of a walk lie, from its start to 0. Raises ValueError as `stream`."""
        if not self.walks:
            return settings.times(self.model.schedule)
        own = settings.sampler == DISTILLED and settings.steps in self.walks
        plain = settings.grid is None and not settings.guidance and not settings.eta
        if not own or not plain:
            steps = ", ".join(map(str, self.walks))
            raise ValueError(
                f"this model is distilled: it samples with {DISTILLED} in {steps} steps, with no "
                "grid, guidance or eta"
            )
        times = self.walks[settings.steps]
        start = settings.start.t if settings.start else times[0]
        if start not in times:
            raise ValueError(
                f"this model is distilled: from an image, its walk of {settings.steps} steps "
                f"starts at one of {', '.join(map(str, times))}, not {start!r}"
            )
        return [*(t for t in times if t <= start), 0.0]

    def stream(self, settings: Settings) -> Iterator[Frame]:
        """The reverse process, frame by frame from pure noise to the finished images.

        Raises ValueError at once (not at the first frame), naming the valid choices, for settings
        that do not fit this model.
        """
        self._check_count(settings)
        y, times = self._labels(settings), self.times(settings)
        if settings.guidance and (y is None or (y == self.model.classes).any()):
            raise ValueError("guidance needs a label: say what to guide towards")
        denoise = denoiser(self.model, y, guidance=settings.guidance, run=self.engine.run)
        nfe, cost = 0, 2 if settings.guidance else 1

        def counted(x: Tensor, t: float) -> Tensor:
            nonlocal nfe
            nfe += cost
            return denoise(x, t)

        randn_like = _seeded_noise(settings.seeds)
        x = randn_like(self._like(settings.seeds))
        if settings.start is not None:
            x = self._noisy(settings.start.x0, x, times[0])
        steps = settings.walk(counted, self.model.schedule, x, times, randn_like)
        return (Frame(*step, nfe, self._snr(step.t)) for step in steps)

    def sample(self, seeds: Sequence[int], **fields: Any) -> Images:
        """The finished images, with the frames that a film of the way shows.

        fields: as in `Settings`: labels, sampler, steps, grid, guidance, eta, start; sampler and
        steps, if left out, as in `usual`. Raises ValueError as `stream`, TypeError for an unknown
        field.
        """
        settings = Settings(seeds, **self.usual | fields)
        total = len(self.times(settings))
        return Images.collect(self.stream(settings), settings.seeds, self.names(settings), total)

    def save_page(self, path: str | os.PathLike[str]) -> None:
        """Writes one HTML page that generates images with this model in any browser, offline.

        Raises ValueError if path does not end in .html or the model is too large for a page,
        OSError if it cannot be written; nothing is left half written.
        """
        from .browser import check_out, page  # here, because they are built on this class

        check_out(path)
        write_atomic(path, page(self))

    def forward(
        self, x0: Tensor, *, seeds: Sequence[int], times: Sequence[float]
    ) -> Iterator[Frame]:
        """The forward process: x_t at each of times, and the x0 that the network predicts from it.

        x0 is N×C×H×W as `ddpm.pixels.from_pixels` gives it, one image per seed; the noise is that
        from which `stream` starts. The network gets no label.

        Raises ValueError at once for seeds, shapes or times that are not valid.
        """
        settings = Settings(seeds)
        self._check_count(settings)
        known = {0.0, *(t for own in self.walks.values() for t in own)}
        if self.walks and not known.issuperset(times):
            raise ValueError("this model is distilled: it knows no other times than its own")
        eps = _seeded_noise(settings.seeds)(self._like(settings.seeds))
        denoise = denoiser(self.model, run=self.engine.run)
        noisy = [self._noisy(x0, eps, t) for t in times]
        nfe = accumulate(int(t > 0) for t in times)  # at 0 the image is clean: no evaluation
        return (
            Frame(t, x, denoise(x, t) if t else x, asked, self._snr(t))
            for t, x, asked in zip(times, noisy, nfe, strict=True)
        )

    def _like(self, seeds: Sequence[int]) -> Tensor:
        """An empty tensor N×C×H×W, one image per seed."""
        shape = len(seeds), self.model.channels, self.model.size, self.model.size
        return torch.empty(shape, device=self.device)

    def _noisy(self, x0: Tensor, eps: Tensor, t: float) -> Tensor:
        """x_t for images x0 and noise eps of one shape, on the device of eps."""
        if x0.shape != eps.shape:
            want, got = list(eps.shape), list(x0.shape)
            raise ValueError(f"x0 must be {want}, one image per seed, got {got}")
        times = torch.full((len(eps),), t, dtype=torch.float64, device=eps.device)
        return add_noise(self.model.schedule, x0.to(eps.device), times, eps)

    def _snr(self, t: float) -> float:
        alpha, sigma = self.model.schedule(t)
        return float((alpha / sigma).square())

    def _check_count(self, settings: Settings) -> None:
        """Raises ValueError if the frames of so many images would take too much memory."""
        count = len(settings.seeds)
        most = min(MAX_IMAGES, MAX_PIXELS // (self.model.channels * self.model.size**2))
        if count > most:
            raise ValueError(f"1..{most} images of this model can be sampled at once, got {count}")

    def _labels(self, settings: Settings) -> Tensor | None:
        """Labels as the network takes them, on its device; None if it knows no classes."""
        classes, seeds, labels = self.model.classes, settings.seeds, settings.labels
        each = labels if isinstance(labels, tuple) else [labels] * len(seeds)
        if len(each) != len(seeds):
            given = f"{len(each)} labels for {len(seeds)} seeds"
            raise ValueError(f"{given}: give one label, or one for each seed")
        valid = "impossible, as this model knows none"
        if classes:
            valid = f"whole numbers in 0..{classes - 1}, or {classes} for none"
        for label in each:
            if label is not None and not (type(label) is int and 0 <= label <= classes and classes):
                raise ValueError(f"labels are {valid}, got {label!r}")
        if not classes:
            return None
        pairs = zip(seeds, each, strict=True)
        y = [self.label_of(seed) if label is None else label for seed, label in pairs]
        return torch.tensor(y, device=self.device)


def _seeded_noise(seeds: Sequence[int]) -> RandnLike:
    """Noise with a CPU generator for each image.

    So a seed gives the same image in any batch and on any device.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def randn_like(x: Tensor) -> Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(x.device)

    return randn_like
