"""The panel: judges that differ in kind, and the worst of them over its own floor.

A judge is a function that gives one figure for a set of images; the lower it is, the more they are
like real ones. Its floor is the figure of as many real test images. What counts is the judge with
the highest figure over its floor: 1 if the images cannot be told from real ones.

The Fréchet distances of three judges are roots of what is called FID elsewhere: twice the figure is
twice as far away."""

import math
from collections.abc import Callable, Mapping
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from . import members, pixel_stats, two_sample
from .metrics import Statistics, frechet
from .reference import MOST
from .yardstick import SETS, Sample, Yardstick

COUNTS = 2_000, 10_000  # of images, whose floors are kept beside the judges
_LEAST = 1e-6  # of the largest variance: a direction with less is rounding
# Of a number about pixels, most of them shares: a smaller spread counts as this one.
_LEAST_SPREAD = 0.01


class Judge(NamedTuple):
    """title: in words. form: how the figure is printed. figure: of a set of images."""

    title: str
    form: str
    figure: Callable[[Sample], float]


def _features(sample: Sample) -> float:
    return math.sqrt(frechet(Statistics.of(sample.seen.features), _real(sample, "features")))


def _texture(sample: Sample) -> float:
    """Along the principal axes of the training images, each in units of its standard deviation.

    Otherwise the direction of the largest variance would dominate the distance."""
    real = _real(sample, "texture")
    values, axes = torch.linalg.eigh(real.covariance)
    by = axes / values.clamp(min=_LEAST * values.amax()).sqrt()
    drawn = Statistics.of(sample.yardstick.networks.texture.look(sample.images))
    return math.sqrt(frechet(drawn.seen_by(by), real.seen_by(by)))


def _pixels(sample: Sample) -> float:
    """Each number in units of its standard deviation over the training images."""
    real = _real(sample, "pixels")
    by = torch.diag(1 / real.covariance.diagonal().sqrt().clamp(min=_LEAST_SPREAD))
    drawn = Statistics.of(pixel_stats.vectors(sample.images))
    return math.sqrt(frechet(drawn.seen_by(by), real.seen_by(by)))


def _real(sample: Sample, name: str) -> Statistics:
    return sample.yardstick.reference.gaussians[name]


def _two_sample(sample: Sample) -> float:
    images = sample.images[:MOST]
    return two_sample.odds(two_sample.auc(images, sample.yardstick.real[: len(images)]))


JUDGES: dict[str, Judge] = {
    "features": Judge("what a classifier sees", ".3f", _features),
    "texture": Judge("what a network for texture sees", ".3f", _texture),
    "pixels": Judge("statistics of pixels", ".3f", _pixels),
    "two-sample": Judge("a network trained to find them (odds)", ".3f", _two_sample),
    "members": Judge("single images that are odd (largest share)", ".2%", members.figure),
}


class Floor(NamedTuple):
    """figure: of each judge, what as many real test images score. spread: by how much that varies
    (standard deviation, None if there are too few to say). limits: below which a score of `members`
    is odd."""

    figure: dict[str, float]
    spread: dict[str, float | None]
    limits: dict[str, float]


class Verdict(NamedTuple):
    """The worst judge of a panel, its figure over its floor, and by how much that ratio varies."""

    judge: str
    ratio: float
    spread: float | None


def figures(sample: Sample) -> dict[str, float]:
    """The figure of every judge."""
    return {name: judge.figure(sample) for name, judge in JUDGES.items()}


def floor(yardstick: Yardstick, count: int) -> Floor:
    """Of count images (of all test images, if there are fewer): as kept beside the judges, or
    measured now, which takes as long as judging up to five sets of so many images."""
    kept = yardstick.config.get("floors", {}).get(str(count))
    if kept is not None and kept["figure"].keys() == JUDGES.keys():
        return Floor(**kept)
    return measured(yardstick, count)


def measured(yardstick: Yardstick, count: int) -> Floor:
    """The mean over up to five sets of test images. Where there is only one, its spread is that of
    sets of a fifth, which varies more by the root of five."""
    sets = _figures(yardstick.tests(count))
    count = min(count, len(yardstick.test.images))
    parts, shrink = sets, 1.0
    if len(sets) == 1 and count >= 6 * SETS:
        parts, shrink = _figures(yardstick.tests(count // SETS)), SETS**-0.5
    return Floor(
        {name: mean(each[name] for each in sets) for name in JUDGES},
        {
            name: stdev([each[name] for each in parts]) * shrink if len(parts) > 1 else None
            for name in JUDGES
        },
        yardstick.thresholds(count),
    )


def _figures(samples: list[Sample]) -> list[dict[str, float]]:
    return [figures(each) for each in tqdm(samples, desc="floor", unit="set", leave=False)]


def ratios(found: Mapping[str, float], real: Floor) -> dict[str, float]:
    """Each judge's figure over its floor. A floor of 0 has no multiple: it counts as 1e-12."""
    return {name: figure / max(real.figure[name], 1e-12) for name, figure in found.items()}


def worst(found: Mapping[str, float], real: Floor) -> Verdict:
    """The judge with the highest ratio."""
    over = ratios(found, real)
    name = max(over, key=over.__getitem__)
    spread = real.spread[name]
    return Verdict(
        name, over[name], None if spread is None else spread / max(real.figure[name], 1e-12)
    )


def report(found: list[dict[str, float]], real: Floor) -> dict[str, Any]:
    """What a report keeps of several sets of images: of each judge the mean figure, the figures,
    the floor, their ratio, and its spread (over the sets, or of real images if there is one set);
    and which is the worst."""
    panel: dict[str, dict[str, Any]] = {}
    for name in JUDGES:
        values = [each[name] for each in found]
        low = max(real.figure[name], 1e-12)
        spread = stdev(values) if len(values) > 1 else real.spread[name]
        panel[name] = {
            "figure": mean(values),
            "values": values,
            "floor": real.figure[name],
            "ratio": mean(values) / low,
            "spread": None if spread is None else spread / low,
        }
    name = max(panel, key=lambda each: float(panel[each]["ratio"]))
    verdict = Verdict(name, panel[name]["ratio"], panel[name]["spread"])
    return {"worst": verdict._asdict(), "panel": panel}
