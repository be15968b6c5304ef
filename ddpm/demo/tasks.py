"""What the page can do: walks come back as films to play.

A task is a plain value, so it may be sent to another process. `films` yields the same film again
and again, a little longer each time; when the client has gone, the work stops at the next step. A
film is plain data (see ddpm/player).
"""

import io
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

from PIL import Image
from safetensors import safe_open
from torch import Tensor

from ..frames import Frame, pick_frames
from ..hub import BUILT_IN
from ..pipeline import Pipeline
from ..pixels import from_picture
from ..player import Walk, film
from ..settings import Settings, Start
from .requests import LADDER

REFERENCE = "dpm++2m", 1000  # the sampler and steps that walks are compared with
# Its results for the first seeds, with which the page opens, come with built-in weights: on two
# cores each takes seconds.
REFERENCES, SHIPPED = "references.safetensors", 4
FORWARD_MOMENTS = 40
SHOW_EVERY = 0.05  # seconds: a film is shown (and can be stopped) about this often

Film = dict[str, Any]


class References:
    """The results of walks of REFERENCE steps from the last few noises.

    They are kept, because users often compare several times from the same noise. Who serves tasks
    has one, and passes it to each.
    """

    MOST = 16

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Pipeline, Settings], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, pipeline: Pipeline, settings: Settings) -> Iterator[float | Tensor]:
        """Yields the share of the way that is done, again and again, and at last the images."""
        if (found := shipped(pipeline, settings)) is not None:
            yield found
            return
        if (pipeline, settings) not in self._kept:
            for k, frame in enumerate(pipeline.stream(settings)):  # noqa: B007 - the last counts
                yield k / settings.steps
            self._kept[pipeline, settings] = frame.x
            while len(self._kept) > self.MOST:
                self._kept.popitem(last=False)
        yield self._kept[pipeline, settings]


class Task(Protocol):
    """Something that the page can show."""

    @property
    def work(self) -> int:
        """Network evaluations times images, in all."""

    def films(self, pipeline: Pipeline, references: References) -> Iterator[Film]:
        """The film so far, again and again; the last one is complete.

        references: where the walks that others are compared with are kept.
        """


@dataclass(frozen=True)
class Generate:
    """One walk from noise."""

    settings: Settings

    @property
    def work(self) -> int:
        """As in `Task`."""
        return self.settings.work

    def films(self, pipeline: Pipeline, references: References) -> Iterator[Film]:
        """As in `Task`."""
        yield from _shown([_Running(pipeline, self.settings)])


@dataclass(frozen=True)
class Compare:
    """The same noise through several samplers, in step.

    measured: then the distance of each result from that of a walk of a thousand steps.
    """

    rivals: Sequence[Settings]
    measured: bool = True

    @property
    def work(self) -> int:
        """As in `Task`; the walk of a thousand steps too."""
        more = reference(self.rivals[0]).work if self.measured else 0
        return sum(each.work for each in self.rivals) + more

    def films(self, pipeline: Pipeline, references: References) -> Iterator[Film]:
        """As in `Task`."""
        running = [
            _Running(pipeline, each, title=f"{each.sampler} · {_steps(each.steps)}")
            for each in self.rivals
        ]
        then = _distances(pipeline, running, references) if self.measured else ()
        yield from _shown(running, then)


@dataclass(frozen=True)
class Ladder:
    """The same noise in 1, 2, 5, … steps: what more steps improve. measured: as in `Compare`."""

    settings: Settings
    measured: bool = True

    @property
    def work(self) -> int:
        """As in `Task`; the walk of a thousand steps too."""
        walks = [replace(self.settings, steps=steps) for steps in LADDER]
        more = reference(self.settings).work if self.measured else 0
        return sum(each.work for each in walks) + more

    def films(self, pipeline: Pipeline, references: References) -> Iterator[Film]:
        """As in `Task`."""
        running = [
            _Running(pipeline, replace(self.settings, steps=steps), title=_steps(steps))
            for steps in LADDER
            if steps <= pipeline.model.schedule.T
        ]
        then = _distances(pipeline, running, references) if self.measured else ()
        yield from _shown(running, then)


@dataclass(frozen=True)
class Forward:
    """A picture (a PNG) with ever less noise, and the network's prediction at each moment."""

    picture: bytes
    seed: int

    @property
    def work(self) -> int:
        """As in `Task`."""
        return FORWARD_MOMENTS

    def films(self, pipeline: Pipeline, references: References) -> Iterator[Film]:
        """As in `Task`; this one is short, and comes whole."""
        T, moments = pipeline.model.schedule.T, FORWARD_MOMENTS
        times = [T * (1 - k / moments) for k in range(moments + 1)]
        walk = Walk([self.seed], [None], len(times))
        x0 = as_images(pipeline, self.picture)
        for frame in pipeline.forward(x0, seeds=[self.seed], times=times):
            walk.add(frame)
        yield film([walk], _new_id(), rest=moments * 2 // 5)


@dataclass(frozen=True)
class Denoise:
    """The way back from a picture (a PNG) with noise up to time t: what is left of the walk."""

    picture: bytes
    t: float
    settings: Settings

    @property
    def work(self) -> int:
        """As in `Task`, if it were the whole way."""
        return self.settings.work

    def films(self, pipeline: Pipeline, references: References) -> Iterator[Film]:
        """As in `Task`."""
        start = Start(as_images(pipeline, self.picture), self.t)
        settings = replace(self.settings, start=start)
        yield from _shown([_Running(pipeline, settings, title=f"from t = {self.t:.0f}")])


class _Running:
    """A walk on its way: the stream, what is kept of it, and the seconds it has taken."""

    def __init__(self, pipeline: Pipeline, settings: Settings, title: str = "") -> None:
        self.settings, self.taken, self.seconds = settings, 0, 0.0
        self.total = len(pipeline.times(settings))
        self.picked = pick_frames(self.total)
        self.stream = pipeline.stream(settings)
        names = pipeline.names(settings)
        self.walk = Walk(settings.seeds, names, len(self.picked), title=title)
        self.last: Frame | None = None

    @property
    def share(self) -> float:
        """How much of the way is done, 0..1."""
        return self.taken / self.total

    def step(self) -> None:
        """Takes one step, and keeps its frame if it will be shown."""
        started = time.perf_counter()
        self.last = next(self.stream)
        self.seconds += time.perf_counter() - started
        if self.taken == self.picked[len(self.walk.data["frames"])]:
            self.walk.add(self.last)
        self.taken += 1

    def tell(self, note: str) -> None:
        """Writes under the pictures how long the walk took, and the note."""
        self.walk.data["note"] = f"{self.seconds:.2f} s\n{note}"


def _shown(running: Sequence[_Running], then: Iterable[None] = ()) -> Iterator[Film]:
    """Walks side by side: the one that is furthest behind takes the next step.

    then: what is still to be computed when all have arrived.
    """
    id, shown, walks = _new_id(), 0.0, [each.walk for each in running]

    def steps() -> Iterator[None]:
        while behind := [each for each in running if each.taken < each.total]:
            min(behind, key=lambda each: each.share).step()
            yield
        yield from then

    for _ in steps():
        if time.monotonic() - shown > SHOW_EVERY and all(each.taken for each in running):
            yield film(walks, id)
            shown = time.monotonic()
    yield film(walks, id)


def reference(settings: Settings) -> Settings:
    """The walk with which one from the same noise is compared."""
    sampler, steps = REFERENCE
    return replace(settings, sampler=sampler, steps=steps, grid=None, eta=None)


@cache
def _shipped() -> dict[str, Tensor]:
    """What comes with built-in weights, by their sha256."""
    found = {}
    for path in BUILT_IN.glob(f"*/{REFERENCES}"):
        with safe_open(path, "pt") as file:
            found[file.metadata()["weights_sha256"]] = file.get_tensor("x")
    return found


def shipped(pipeline: Pipeline, settings: Settings) -> Tensor | None:
    """The result of that walk of REFERENCE steps, if it comes with the weights.

    `python -m ddpm.demo NAME` writes it.
    """
    found, seeds = _shipped().get(str(pipeline.config.get("sha256"))), range(len(settings.seeds))
    if found is None or len(seeds) > SHIPPED or settings != reference(Settings(seeds)):
        return None
    return found[: len(seeds)].to(pipeline.device)


def _distances(
    pipeline: Pipeline, running: Sequence[_Running], references: References
) -> Iterator[None]:
    """Tells each walk how far it ended from the reference: root mean square, in brightness 0..1."""
    settings = reference(running[0].settings)
    settings = replace(settings, steps=min(settings.steps, pipeline.model.schedule.T))
    for found in references.find(pipeline, settings):
        for each in running:
            if isinstance(found, float):
                each.tell(f"measuring {found:.0%}")
            elif each.last is not None:
                distance = (each.last.x - found).square().mean().sqrt().item() / 2
                each.walk.data["distance"] = distance
                each.tell(f"distance {distance:.3f}")
        yield


def as_images(pipeline: Pipeline, picture: bytes) -> Tensor:
    """A PNG as one image 1×C×H×W of the size and colors of the pipeline's network."""
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as found:
        return from_picture(found, pipeline.model.channels, pipeline.model.size)


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _new_id() -> str:
    return secrets.token_hex(8)
