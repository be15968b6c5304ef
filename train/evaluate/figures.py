"""Figures that a report has beside the panel's: what is wrong, where something is."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import members
from .metrics import Statistics, density_coverage, frechet, precision_recall
from .yardstick import Sample, Yardstick

CONFIDENT = 0.9


class Figure(NamedTuple):
    """How a figure is called in words, how it is printed, and what is good."""

    title: str
    form: str
    good: str


FIGURES: dict[str, Figure] = {
    "frechet": Figure("Fréchet distance (classifier)", ".3f", "low"),
    "precision": Figure("precision (k = 3)", ".4f", "high"),
    "recall": Figure("recall (k = 3)", ".4f", "high"),
    "density": Figure("density (k = 5)", ".4f", "high"),
    "coverage": Figure("coverage (k = 5)", ".4f", "high"),
    "confident": Figure("read with > 0.9 confidence", ".2%", "high"),
    "accuracy": Figure("shows the class asked for", ".2%", "high"),
    "copies": Figure("near-copies of training images", ".2%", "low"),
    "near": Figure("odd: nearer to a training image than 95 %", ".2%", "low"),
    "twin": Figure("odd: nearer to another one than 95 %", ".2%", "low"),
    "far": Figure("odd: farther from training images than 95 %", ".2%", "low"),
    "unsure": Figure("odd: read with less confidence than 95 %", ".2%", "low"),
}


def of(sample: Sample) -> dict[str, float]:
    """All of them.

    The Fréchet distance is that to all training images. Precision, recall, density and coverage
    compare the first 10,000 images (or as many as there are) with as many training images, at
    random. A near-copy lies nearer to a training image, in pixels, than 99 % of the test images do;
    of the first 10,000 images too. The last four are what `members` takes the worst of."""
    yardstick, seen = sample.yardstick, sample.seen
    count = min(len(sample.images), len(yardstick.neighbours))
    real, drawn = yardstick.neighbours[:count], seen.features[:count]
    gaussian = yardstick.reference.gaussians["features"]
    found = {"frechet": frechet(Statistics.of(seen.features), gaussian)}
    found["precision"], found["recall"] = precision_recall(real, drawn)
    found["density"], found["coverage"] = density_coverage(real, drawn)
    found["confident"] = _share(seen.probabilities.amax(1) > CONFIDENT)
    if sample.labels is not None:
        found["accuracy"] = _share(seen.probabilities.argmax(1) == sample.labels)
    found["copies"] = _share(sample.distances < yardstick.reference.near)
    return found | members.shares(sample)


def of_real(yardstick: Yardstick, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Those of count real test images (or of all there are): as good as a perfect model can hope to
    be. And of as many training images."""
    return of(yardstick.tests(count)[0]), of(yardstick.subset(count))


def _share(which: Tensor) -> float:
    return which.to(torch.float64).mean().item()
