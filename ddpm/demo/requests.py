"""What a visitor may ask for: words and numbers come in, checked settings go out.

Every refusal is a ValueError of one line that names what is valid.
"""

import base64
import io
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..hub import ANY, NONE
from ..samplers import SAMPLERS
from ..schedule import GRIDS, Bounds
from ..settings import GUIDANCE, MAX_SEED, Settings

BEST = "best"
COUNTS = (1, 4, 9, 16, 25, 36, 64)
MAX_STEPS = 1000
MAX_WORK = 20_000  # images times network evaluations of a request: twenty seconds on two cores
LADDER = (1, 2, 5, 10, 20, 50, 100)  # steps of the walks that show what more steps improve
MAX_RIVALS, FEW = 4, (1, 4)  # walks side by side, and how many images each may have
MAX_PNG, MAX_SIDE = 100_000, 512  # of a picture from outside: characters, pixels
# Ten of MNIST's test images, 0 to 9, in a row.
DIGITS = Path(__file__).parents[1] / "player" / "digits.png"
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Request:
    """A form as it is filled in: the settings of `Settings` in a visitor's words.

    label: a class by its name, "any" (each seed chooses its own) or "none" (the network gets no
    label). count: images, from successive seeds. seed: the first one; None: random. time_grid: a
    key of GRIDS, or "best".
    """

    label: str = ANY
    count: int = 16
    seed: int | None = None
    steps: int = Settings.steps
    sampler: str = Settings.sampler
    time_grid: str = BEST
    eta: float = 0.0
    guidance: float = Settings.guidance

    def settings(self, names: Sequence[str], said: Mapping[str, str] = NOTHING) -> Settings:
        """The same as Settings.

        names: of the classes that the model knows. said: what the asker calls a field, where it is
        not its name here.

        Raises ValueError that names what is valid.
        """
        count, sampler, label = self.count, self.sampler, said.get("label", "label")
        _whole(said.get("count", "count"), count, 1, COUNTS[-1])
        _whole("steps", self.steps, 1, MAX_STEPS)
        most = MAX_SEED + 1 - count
        seed = secrets.randbelow(most + 1) if self.seed is None else self.seed
        _whole(f"seed (for {count} images)" if count > 1 else "seed", seed, 0, most)
        one_of(label, self.label, (ANY, NONE, *names))
        one_of("sampler", sampler, list(SAMPLERS))
        one_of(said.get("time_grid", "time_grid"), self.time_grid, (BEST, *GRIDS))
        SAMPLERS["ddim"].settings["eta"].check("eta", self.eta)
        GUIDANCE.check("guidance", self.guidance)
        if self.guidance and self.label == NONE:
            raise ValueError(f"guidance needs a {label}: ask for any, or for one of them")
        settings = Settings(
            range(seed, seed + count),
            labels=_label(names, self.label),
            sampler=sampler,
            steps=self.steps,
            grid=None if self.time_grid == BEST else self.time_grid,
            guidance=self.guidance,
            eta=self.eta if self.eta or "eta" in SAMPLERS[sampler].settings else None,
        )
        _affordable([settings])
        return settings


def schema(few: bool) -> dict[str, dict[str, Any]]:
    """What is valid for the fields of a request, each as a part of a JSON Schema.

    few: of those that are compared. (Labels depend on the weights, which may still arrive.)
    """
    return {
        "count": {"enum": list(FEW)} if few else {"minimum": 1, "maximum": COUNTS[-1]},
        "seed": {"minimum": 0, "maximum": MAX_SEED},
        "steps": {"minimum": 1, "maximum": MAX_STEPS},
        "sampler": {"enum": list(SAMPLERS)},
        "sampler_3": {"enum": [*SAMPLERS, NONE]},
        "sampler_4": {"enum": [*SAMPLERS, NONE]},
        "time_grid": {"enum": [BEST, *GRIDS]},
        "eta": {"minimum": 0, "maximum": 1},
        "guidance": {"minimum": GUIDANCE.low, "maximum": GUIDANCE.high},
    }


def random_seed() -> int:
    """A random seed that leaves room for as many images as can be asked for."""
    return secrets.randbelow(MAX_SEED + 2 - COUNTS[-1])


def rivals(
    names: Sequence[str],
    ways: Sequence[tuple[str | None, int]],
    said: Mapping[str, str] = NOTHING,
    **asked: Any,
) -> list[Settings]:
    """Settings for two to four walks from the same noise.

    ways: (sampler, steps) of each; "none" or None leaves one out. said: as in `Request.settings`.
    asked: label, count, seed and guidance of `Request`, the same for all.
    """
    one_of(said.get("count", "count"), asked["count"], FEW)
    if asked["seed"] is None:
        asked["seed"] = random_seed()  # one for all
    found = [
        Request(sampler=sampler, steps=steps, **asked).settings(names, said)
        for sampler, steps in ways
        if sampler is not None and sampler != NONE
    ]
    if not 2 <= len(found) <= MAX_RIVALS:
        raise ValueError(f"compare 2 to {MAX_RIVALS} samplers, got {len(found)}")
    _affordable(found)
    return found


def ladder(names: Sequence[str], said: Mapping[str, str] = NOTHING, **asked: Any) -> Settings:
    """Settings of the longest walk of LADDER.

    said: as in `Request.settings`. asked: label, count, seed, sampler of `Request`.
    """
    one_of(said.get("count", "count"), asked["count"], FEW)
    return Request(steps=LADDER[-1], **asked).settings(names, said)


def picture(asked: str) -> bytes:
    """A PNG: one of the digits that come with the app ("0" to "9"), or base64 of any small PNG.

    A data URI is accepted too. Nothing is decoded that is larger than it may be.
    """
    if not isinstance(asked, str) or not asked:
        raise ValueError("the picture must be a digit (0 to 9) or a PNG as base64")
    if asked in "0123456789" and len(asked) == 1:
        return _digit(int(asked))
    if len(asked) > MAX_PNG:
        raise ValueError(f"the picture is too large: at most {MAX_PNG:,} characters of base64")
    try:
        data = base64.b64decode(asked.removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as found:
            large = max(found.size) > MAX_SIDE
            if not large:
                found.load()
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise ValueError("the picture must be a PNG as base64") from error
    if large:
        raise ValueError(f"the picture is too large: at most {MAX_SIDE} pixels a side")
    return data


def time(t: float, T: int) -> float:
    """Checks a start time: a number in 1..T, or ValueError."""
    Bounds(1, T).check("t", t)
    return t


def one_of(name: str, value: object, valid: Sequence[Any]) -> None:
    """Raises ValueError unless value is one of the valid words or numbers."""
    if type(value) not in (str, int) or value not in list(valid):
        raise ValueError(f"{name} must be one of {', '.join(map(str, valid))}")


def _digit(digit: int) -> bytes:
    with Image.open(DIGITS) as digits:
        side, file = digits.height, io.BytesIO()
        digits.crop((digit * side, 0, digit * side + side, side)).save(file, "PNG")
    return file.getvalue()


def _label(names: Sequence[str], label: str) -> int | None:
    if label in (ANY, NONE):
        return None if label == ANY or not names else len(names)
    return names.index(label)


def _affordable(walks: Sequence[Settings]) -> None:
    work = sum(each.work for each in walks)
    if work > MAX_WORK:
        raise ValueError(
            f"images × network evaluations must be at most {MAX_WORK:,} (about twenty seconds of "
            f"this machine), not {work:,}: ask for fewer images or steps"
        )


def _whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in {low}..{high}")
