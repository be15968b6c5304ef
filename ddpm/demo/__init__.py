"""What the page can do, without the page: what is asked for is checked, and walks come back as
films to play.

Each task is a generator that yields the same film again and again, a little longer each time;
whoever stops listening stops the work at the next step. A film is plain data (see ddpm/player), so
a task may run in another process."""

import base64
import io
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..images import Frame
from ..pipeline import MAX_GUIDANCE, MAX_SEED, Pipeline
from ..pixels import from_picture, pick_frames
from ..player import Walk, film
from ..samplers import BEST_SAMPLER, SAMPLERS, evaluations
from ..schedule import GRIDS

ANY, NONE, BEST = "any", "none", "best"
COUNTS = (1, 4, 9, 16, 25, 36, 64)
MAX_STEPS = 1000
MAX_WORK = 20_000  # network evaluations of one image: about twenty seconds on two cores
LADDER = (1, 2, 5, 10, 20, 50, 100)  # the step counts of `ladder`
MAX_RIVALS, FEW = 4, (1, 4)  # walks side by side, and how many images each may have
REFERENCE = {"sampler": "dpm++2m", "steps": 1000}
MAX_PNG, MAX_SIDE = 100_000, 512  # of a picture from outside: characters, pixels
FORWARD_MOMENTS = 40
SHOW_EVERY = 0.05  # seconds: a film is shown (and can be stopped) about this often
DIGITS = (
    Path(__file__).parents[1] / "player" / "digits.png"
)  # ten of MNIST's test images, 0 to 9, in a row

Film = dict[str, Any]


# --- What may be asked for ------------------------------------------------------------------------


def random_seed() -> int:
    """A seed drawn by lot that leaves room for as many images as can be asked for."""
    return secrets.randbelow(MAX_SEED + 2 - COUNTS[-1])


def checked(
    names: Sequence[str],
    *,
    label: str = ANY,
    count: int = 16,
    seed: int | None = None,
    steps: int = 20,
    sampler: str = BEST_SAMPLER,
    time_grid: str = BEST,
    eta: float = 0.0,
    guidance: float = 0.0,
) -> dict[str, Any]:
    """Settings for `Pipeline.stream` from what a visitor asked for. names: of the classes that the
    model knows.

    Raises ValueError, in one line that names what is valid.
    """
    seed = random_seed() if seed is None else seed
    _whole("count", count, 1, COUNTS[-1])
    _whole("steps", steps, 1, MAX_STEPS)
    _whole(f"seed (for {count} images)" if count > 1 else "seed", seed, 0, MAX_SEED + 1 - count)
    _one_of("label", label, (ANY, NONE, *names))
    _one_of("sampler", sampler, SAMPLERS)
    _one_of("time_grid", time_grid, (BEST, *GRIDS))
    _number("eta", eta, 1)
    _number("guidance", guidance, MAX_GUIDANCE)
    if guidance and label == NONE:
        raise ValueError("guidance needs a label: ask for any, or for one of them")
    if eta and sampler != "ddim":
        raise ValueError(f"sampler {sampler} has no eta; only ddim has")
    _affordable(count * evaluations(sampler, steps) * (2 if guidance else 1))
    return {
        "seeds": range(seed, seed + count),
        "labels": _label(names, label),
        "sampler": sampler,
        "steps": steps,
        "grid": None if time_grid == BEST else time_grid,
        "eta": eta if sampler == "ddim" else None,
        "guidance": guidance,
    }


def checked_rivals(
    names: Sequence[str],
    rivals: Sequence[tuple[str | None, int]],
    *,
    label: str,
    count: int,
    seed: int,
    guidance: float,
) -> list[dict[str, Any]]:
    """Settings for two to four walks from the same noise. rivals: (sampler, steps) of each; "none":
    left out."""
    _one_of("count", count, FEW)
    seed = random_seed() if seed is None else seed  # one for all
    found = [
        checked(
            names,
            label=label,
            count=count,
            seed=seed,
            guidance=guidance,
            sampler=sampler,
            steps=steps,
        )
        for sampler, steps in rivals
        if sampler not in (None, NONE)
    ]
    if not 2 <= len(found) <= MAX_RIVALS:
        raise ValueError(f"compare 2 to {MAX_RIVALS} samplers, got {len(found)}")
    _affordable(
        sum(count * evaluations(each["sampler"], each["steps"]) for each in found)
        * (2 if guidance else 1)
    )
    return found


def checked_ladder(
    names: Sequence[str], *, label: str, count: int, seed: int, sampler: str
) -> dict[str, Any]:
    """Settings for the walks of `ladder`."""
    _one_of("count", count, FEW)
    return checked(names, label=label, count=count, seed=seed, sampler=sampler, steps=LADDER[-1])


def checked_picture(picture: str) -> bytes:
    """A PNG: one of the digits that come with the app ("0" to "9"), or base64 (a data URI too) of
    any small PNG.

    Raises ValueError; nothing is decoded that is larger than it may be.
    """
    if not isinstance(picture, str) or not picture:
        raise ValueError("the picture must be a digit (0 to 9) or a PNG as base64")
    if picture in "0123456789" and len(picture) == 1:
        with Image.open(DIGITS) as digits:
            side, file = digits.height, io.BytesIO()
            digits.crop((int(picture) * side, 0, int(picture) * side + side, side)).save(
                file, "PNG"
            )
        return file.getvalue()
    if len(picture) > MAX_PNG:
        raise ValueError(f"the picture is too large: at most {MAX_PNG:,} characters of base64")
    try:
        data = base64.b64decode(picture.removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as found:
            large = max(found.size) > MAX_SIDE
            if not large:
                found.load()
    except Exception as error:  # Pillow raises what it likes at broken files
        raise ValueError("the picture must be a PNG as base64") from error
    if large:
        raise ValueError(f"the picture is too large: at most {MAX_SIDE} pixels a side")
    return data


def checked_time(pipeline: Pipeline, t: float) -> float:
    """A time at which a picture can be left to the model."""
    most = pipeline.model.schedule.T
    if type(t) not in (int, float) or not 1 <= t <= most:  # NaN compares false
        raise ValueError(f"t must be a number in 1..{most}")
    return t


def _label(names: Sequence[str], label: str) -> int | None:
    return {ANY: None, NONE: len(names) or None}.get(
        label, names.index(label) if label in names else None
    )


def _affordable(work: int) -> None:
    if work > MAX_WORK:
        raise ValueError(
            f"images × network evaluations must be at most {MAX_WORK:,} (about twenty seconds of this "
            f"machine), not {work:,}: ask for fewer images or steps"
        )


def _whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}")


def _number(name: str, value: object, most: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= most:  # NaN compares false
        raise ValueError(f"{name} must be a number in 0..{most:g}")


def _one_of(name: str, value: object, valid: Sequence[Any]) -> None:
    if type(value) not in (str, int) or value not in list(valid):
        raise ValueError(f"{name} must be one of {', '.join(map(str, valid))}")


# --- What is shown --------------------------------------------------------------------------------


def generate(pipeline: Pipeline, settings: dict[str, Any]) -> Iterator[Film]:
    """One walk from noise."""
    yield from _shown([_Running(pipeline, settings)])


def compare(pipeline: Pipeline, rivals: list[dict[str, Any]]) -> Iterator[Film]:
    """The same noise through several samplers, in step; then how far each ends from a walk of a
    thousand steps."""
    running = [
        _Running(pipeline, settings, title=f"{settings['sampler']} · {_steps(settings['steps'])}")
        for settings in rivals
    ]
    yield from _shown(running, then=_distances(pipeline, running))


def ladder(pipeline: Pipeline, settings: dict[str, Any]) -> Iterator[Film]:
    """The same noise in 1, 2, 5, … steps: what a step buys."""
    running = [
        _Running(pipeline, settings | {"steps": steps}, title=_steps(steps))
        for steps in LADDER
        if steps <= pipeline.model.schedule.T
    ]
    yield from _shown(running, then=_distances(pipeline, running))


def forward(pipeline: Pipeline, picture: bytes, seed: int) -> Iterator[Film]:
    """A picture drowned in noise, from all noise to none, and what the network sees in it at each
    moment."""
    times = [
        pipeline.model.schedule.T * (1 - k / FORWARD_MOMENTS) for k in range(FORWARD_MOMENTS + 1)
    ]
    walk = Walk([seed], [None], len(times))
    for frame in pipeline.forward(_as_images(pipeline, picture), seeds=[seed], times=times):
        walk.add(frame)
    yield film([walk], _new_id(), rest=FORWARD_MOMENTS * 2 // 5)


def denoise(
    pipeline: Pipeline, picture: bytes, t: float, settings: dict[str, Any]
) -> Iterator[Film]:
    """The way back from a picture drowned up to t: what is left of the walk there."""
    start = _as_images(pipeline, picture), t
    yield from _shown([_Running(pipeline, settings | {"start": start}, title=f"from t = {t:.0f}")])


class _Running:
    """A walk on its way: the stream, what is kept of it, and the seconds it has taken."""

    def __init__(self, pipeline: Pipeline, settings: dict[str, Any], title: str = "") -> None:
        start = settings.get("start")
        times = pipeline.times(
            settings["sampler"], settings["steps"], settings["grid"], start and start[1]
        )
        self.settings, self.total, self.taken, self.seconds = settings, len(times), 0, 0.0
        self.picked = pick_frames(self.total)
        self.stream = pipeline.stream(**settings)
        self.walk = Walk(
            list(settings["seeds"]),
            pipeline.asked(settings["seeds"], settings["labels"]),
            len(self.picked),
            title=title,
        )
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


def _shown(running: list[_Running], then: Iterator[None] = iter(())) -> Iterator[Film]:
    """Walks side by side: whichever is behind goes on. Then what is still to be told about them."""
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


_references: OrderedDict[tuple[Any, ...], Tensor] = (
    OrderedDict()
)  # the last few: who compares, compares often


def _distances(pipeline: Pipeline, running: list[_Running]) -> Iterator[None]:
    """Tells each walk how far it ended from the reference: root mean square, in brightness 0..1."""
    settings = running[0].settings
    most = min(REFERENCE["steps"], pipeline.model.schedule.T)
    settings = settings | REFERENCE | {"steps": most, "grid": None, "eta": None}
    key = (pipeline, *map(str, settings.values()))
    if key not in _references:
        for k, frame in enumerate(pipeline.stream(**settings)):  # noqa: B007 - the last one is needed
            if k % 50 == 0:
                for each in running:
                    each.walk.data["note"] = f"{each.seconds:.2f} s\nmeasuring {k / most:.0%}"
            yield
        _references[key] = frame.x
        while len(_references) > 16:
            _references.popitem(last=False)
    for each in running:
        distance = (each.last.x - _references[key]).square().mean().sqrt().item() / 2
        each.walk.data |= {
            "distance": distance,
            "note": f"{each.seconds:.2f} s\ndistance {distance:.3f}",
        }
    yield


TASKS: dict[str, Callable[..., Iterator[Film]]] = {
    "generate": generate,
    "compare": compare,
    "ladder": ladder,
    "forward": forward,
    "denoise": denoise,
}


def about(pipeline: Pipeline) -> str:
    """What the model is, in a sentence."""
    model = pipeline.model
    color = "gray" if model.channels == 1 else "colored"
    return (
        f"A U-Net of {sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters that draws "
        f"{color} images of {model.size}×{model.size} pixels; {model.prediction}-prediction, {model.schedule.name} "
        f"schedule, {model.schedule.T} times."
    )


def quality(pipeline: Pipeline, folder: Path) -> str:
    """What `python -m train.evaluate --out` found, in a sentence, if its report lies there and is
    about these weights; else ""."""
    try:
        report = json.loads((folder / "evaluation.json").read_bytes())
        if report["weights_sha256"] != pipeline.config["sha256"]:
            return ""
        distance = report["figures"]["frechet"]
        shows = report["figures"].get("accuracy", {}).get("mean")
        said = (
            f"Measured on {report['samples']:,d} images: Fréchet distance to the training images "
            f"{distance['mean']:.2f}, where as many real test images have {distance['floor']:.2f} "
            "(lower is better)"
        )
        said += f"; {shows:.1%} show the digit asked for." if shows is not None else "."
    # whatever a stranger's file holds: what is no such report tells nothing
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return ""
    return said


def _as_images(pipeline: Pipeline, picture: bytes) -> Tensor:
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as found:
        return from_picture(found, pipeline.model.channels, pipeline.model.size)


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _new_id() -> str:
    return secrets.token_hex(8)
