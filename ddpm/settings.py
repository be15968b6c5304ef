"""The settings of one sampling run: one frozen value, with the library's defaults and bounds.

(The page's own bounds are in demo/requests.py.) Command line, page, evaluation and pipeline pass it
on whole. What depends on the model (its labels, its number of times, the size of its images) is
checked by the pipeline.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .samplers import SAMPLERS, Step, evaluations
from .schedule import Bounds, Schedule, parse_grid

MAX_SEED = 2**32 - 1
MAX_IMAGES = 1024
GUIDANCE = Bounds(0, 20)


@dataclass(frozen=True, eq=False)
class Start:
    """Where a walk begins if not at pure noise: at images with noise up to time t.

    x0: the images, as `ddpm.pixels.from_pixels` gives them, N×C×H×W; each seed's noise is added to
    its image. t: 1..T. Meng et al. 2022 (SDEdit).
    """

    x0: Tensor
    t: float


@dataclass(frozen=True)
class Settings:
    """One image per seed, and how to sample it.

    Args:
        seeds: each in 0..MAX_SEED, at most MAX_IMAGES; a seed gives the same image in any batch.
        labels: one label for all, or one for each seed, 0..classes - 1. None: the class that the
            seed chooses (`Pipeline.label_of`). The number `classes`: the network gets no label.
        sampler: a key of SAMPLERS.
        steps: 1..T; most samplers evaluate the network once a step.
        grid: where the steps fall, a key of GRIDS, perhaps with parameters ("power(0.6)"). None:
            the sampler's own.
        guidance: the weight of classifier-free guidance, 0..20; above 0 it doubles the evaluations.
        eta: how much fresh noise "ddim" adds, 0..1; only for samplers that have it.
        start: images and a time to start from, instead of pure noise; only the rest of the way is
            walked.

    Raises ValueError that names what is valid.
    """

    seeds: Sequence[int]
    labels: int | Sequence[int | None] | None = None
    sampler: str = "unipc2"
    steps: int = 20
    grid: str | None = None
    guidance: float = 0.0
    eta: float | None = None
    start: Start | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.seeds) <= MAX_IMAGES:
            count = len(self.seeds)
            raise ValueError(f"1..{MAX_IMAGES} images can be sampled at once, got {count} seeds")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for seed in self.seeds:
            if type(seed) is not int or not 0 <= seed <= MAX_SEED:
                raise ValueError(f"seeds are whole numbers in 0..{MAX_SEED}, got {seed!r}")
        if not (self.labels is None or isinstance(self.labels, int)):
            object.__setattr__(self, "labels", tuple(self.labels))
        if self.sampler not in list(SAMPLERS):  # a list: what cannot be hashed is refused as well
            known = ", ".join(SAMPLERS)
            raise ValueError(f"unknown sampler {self.sampler!r}; choose from {known}")
        if self.grid is not None:
            parse_grid(self.grid)
        GUIDANCE.check("guidance", self.guidance)
        if self.eta is not None:
            bounds = SAMPLERS[self.sampler].settings.get("eta")
            if bounds is None:
                have = ", ".join(name for name, one in SAMPLERS.items() if "eta" in one.settings)
                raise ValueError(f"sampler {self.sampler} has no eta; only {have} has")
            bounds.check("eta", self.eta)

    def times(self, schedule: Schedule) -> list[float]:
        """Where the frames of the walk lie, from its start to 0.

        Raises ValueError for steps or a start that the schedule does not have.
        """
        grid = SAMPLERS[self.sampler].grid if self.grid is None else self.grid
        times = schedule.times(self.steps, grid)
        if self.start is None:
            return times
        t = self.start.t
        if type(t) not in (int, float) or not 1 <= t <= schedule.T:  # NaN compares false
            raise ValueError(f"a walk starts at a time in 1..{schedule.T}, got {t!r}")
        t = min(float(t), times[0])  # some grids begin below T, where their sampler begins to work
        return [t, *(later for later in times if later < t)]

    @property
    def walk(self) -> Callable[..., Iterator[Step]]:
        """The sampler, with its own settings filled in."""
        walk = SAMPLERS[self.sampler].walk
        return walk if self.eta is None else partial(walk, eta=self.eta)

    @property
    def evaluations(self) -> int:
        """Network evaluations per image on the whole way from noise."""
        return evaluations(self.sampler, self.steps) * (2 if self.guidance else 1)

    @property
    def work(self) -> int:
        """Network evaluations of all images together."""
        return len(self.seeds) * self.evaluations
