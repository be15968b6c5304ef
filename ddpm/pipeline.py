"""Seeds and labels in, pictures out: the whole library behind one class.

    from ddpm import Pipeline
    images = Pipeline.from_pretrained("mnist").sample(seeds=range(16))
    images.save("digits.gif")
"""

import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from . import hub
from .diffusion import denoiser
from .engine import Engine, fastest, pytorch
from .files import write_atomic
from .images import gif, grid, pick_frames, png
from .samplers import BEST_GRIDS, SAMPLERS, RandnLike
from .unet import UNet

MAX_SEED = 2**32 - 1
MAX_GUIDANCE = 20.0
MAX_IMAGES = 1024
MAX_PIXELS = 2**22  # in all images together: their frames then stay below 1.5 GB


class Frame(NamedTuple):
    """One moment of the reverse process: time t, noisy images x (N×C×H×W in [-1, 1] and beyond), the clean images x0
    that the network sees in them, and nfe, the network evaluations an image has cost so far."""

    t: float
    x: Tensor
    x0: Tensor
    nfe: int


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Finished images x (N×C×H×W in [-1, 1]), the seed of each, and frames of the way there, for the GIF."""

    x: Tensor
    seeds: tuple[int, ...]
    frames: tuple[Frame, ...]

    @classmethod
    def collect(cls, stream: Iterable[Frame], seeds: Sequence[int], steps: int) -> "Images":
        """Runs a stream of steps + 1 frames to its end, keeping as many as a GIF shows."""
        shown = set(pick_frames(steps + 1))
        frames = tuple(frame for k, frame in enumerate(stream) if k in shown)
        return cls(frames[-1].x, tuple(seeds), frames)

    def grid(self, scale: int = 4) -> Image.Image:
        """All of them as one picture, every pixel enlarged to a square of scale pixels."""
        return grid(self.x, scale=scale)

    def save(self, path: str | os.PathLike[str]) -> None:
        """To digits.gif the reverse process, to digits.png the final grid, to a folder one PNG an image, by seed.

        Raises ValueError for any other ending, OSError if it cannot be written; nothing is left half written.
        """
        check_out(path)
        path = Path(path)
        if path.is_dir() or not path.suffix:
            path.mkdir(parents=True, exist_ok=True)
            for seed, x in zip(self.seeds, self.x, strict=True):
                write_atomic(path / f"{seed:010d}.png", png(grid(x[None])))
        elif path.suffix.lower() == ".gif":
            write_atomic(path, gif([frame.x for frame in self.frames]))
        else:
            write_atomic(path, png(self.grid()))

    def __repr__(self) -> str:
        return f"Images({len(self.seeds)} of {list(self.x.shape[1:])}, seeds {self.seeds[0]}..{self.seeds[-1]})"

    def _repr_png_(self) -> bytes:
        return png(self.grid())


def check_out(path: str | os.PathLike[str]) -> None:
    """Raises ValueError unless `Images.save` could write to path, as far as its name and folder tell."""
    if not os.fspath(path):
        raise ValueError("cannot write: the name is empty; name a .gif, a .png, or a folder")
    path = Path(path)
    if path.is_dir():
        return
    if path.suffix and path.suffix.lower() not in (".gif", ".png"):
        raise ValueError(f"cannot write {path}: name a .gif, a .png, or a folder (no ending)")
    if path.suffix and not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not path.suffix:
        raise ValueError(f"cannot write into {path}: it is a file")


class Pipeline:
    """A network ready to draw. `config` is what its config.json says, data set and class names among it; `commit` is
    that of the Hub repo it came from, if it did. The weights of a `finished` model will not change any more: what
    computes it fastest may take a copy of them."""

    def __init__(self, model: UNet, config: dict[str, Any] | None = None, commit: str | None = None, *,
                 finished: bool = False) -> None:
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
        """The model at source: built-in weights ("mnist"), a folder, or a Hub repo "NAMESPACE/NAME" (at revision).

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
        """What computes the network, chosen when first asked for; `engine.text` says which, and why not the other."""
        here = self.device, os.getpid()  # after a fork, as on ZeroGPU, the threads of an engine are gone
        if here not in self._engines:
            self._engines[here] = fastest(self.model) if self.finished else pytorch(self.model)
        return self._engines[here]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each label is called."""
        return tuple(self.config.get("class_names") or (str(k) for k in range(self.model.classes)))

    def stream(
        self,
        *,
        seeds: Sequence[int],
        labels: int | Sequence[int | None] | None = None,
        sampler: str = "dpm++2m",
        steps: int = 20,
        grid: str | None = None,
        guidance: float = 0.0,
        eta: float | None = None,
    ) -> Iterator[Frame]:
        """The reverse process, as steps + 1 frames from pure noise to the finished images, one image a seed.

        Args:
            seeds: each in 0..2**32 - 1; a seed gives the same image alone or in any batch.
            labels: one label for all, or one for each image; None draws what it likes.
            sampler: a key of SAMPLERS. steps: 1..T; most samplers evaluate the network once a step.
            grid: where the steps fall, a key of GRIDS, perhaps with parameters ("power(0.6)"); None: the grid that
                was measured to be best for the sampler.
            guidance: how strongly to insist on the label, 0..20; doubles the network evaluations.
            eta: 0..1, how much fresh noise "ddim" adds; only for samplers that have it.

        Raises ValueError at once (not at the first frame), naming the valid choices.
        """
        seeds = _checked_seeds(seeds, self.model)
        y = self._checked_labels(labels, len(seeds))
        if sampler not in list(SAMPLERS):  # a list: what cannot be hashed is refused like anything else
            raise ValueError(f"unknown sampler {sampler!r}; choose from {', '.join(SAMPLERS)}")
        _check_number("guidance", guidance, MAX_GUIDANCE)
        times = self.model.schedule.times(steps, BEST_GRIDS[sampler] if grid is None else grid)
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
        x = randn_like(torch.empty(len(seeds), model.channels, model.size, model.size, device=self.device))
        return (Frame(*step, nfe) for step in walk(counted, model.schedule, x, times, randn_like))

    def sample(self, *, seeds: Sequence[int], steps: int = 20, **settings: Any) -> Images:
        """The finished images, with the frames that a GIF of the way shows. settings: as for `stream`."""
        return Images.collect(self.stream(seeds=seeds, steps=steps, **settings), seeds, steps)

    def _checked_labels(self, labels: int | Sequence[int | None] | None, count: int) -> Tensor | None:
        """Labels as the network wants them, on its device; None if there are none."""
        classes = self.model.classes
        each = [labels] * count if labels is None or type(labels) is int else list(labels)
        if len(each) != count:
            raise ValueError(f"{len(each)} labels for {count} seeds: give one label, or one for each seed")
        for label in each:
            if label is not None and not (type(label) is int and 0 <= label < classes):
                valid = f"whole numbers in 0..{classes - 1}" if classes else "impossible, as this model knows none"
                raise ValueError(f"labels are {valid}, got {label!r}")
        if all(label is None for label in each):
            return None
        return torch.tensor([classes if label is None else label for label in each], device=self.device)


def _checked_seeds(seeds: Sequence[int], model: UNet) -> list[int]:
    most = min(MAX_IMAGES, MAX_PIXELS // (model.channels * model.size**2))
    if not 1 <= len(seeds) <= most:
        raise ValueError(f"1..{most} images of this model can be drawn at once, got {len(seeds)} seeds")
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seeds are whole numbers in 0..{MAX_SEED}, got {seed!r}")
    return list(seeds)


def _check_number(name: str, value: float, most: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= most:  # NaN compares false
        raise ValueError(f"{name} must be a number in 0..{most:g}, got {value!r}")


def _seeded_noise(seeds: list[int]) -> RandnLike:
    """Noise with a CPU generator for each image: a seed gives the same image in any batch and on any device."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def randn_like(x: Tensor) -> Tensor:
        return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators]).to(x.device)

    return randn_like
