"""The judge of single images: how many are odd, which no distance between distributions sees."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .metrics import nearest

if TYPE_CHECKING:
    from .yardstick import Sample

ODD = 0.05  # of real test images this share counts as odd, in each way


def _near(sample: "Sample") -> Tensor:
    """Nearer to a training image than usual: a copy."""
    return sample.distances


def _twin(sample: "Sample") -> Tensor:
    """Nearer to another image of the same set than usual: a repeat."""
    vectors = sample.vectors
    return nearest(vectors, vectors, skip=torch.arange(len(vectors)))


def _far(sample: "Sample") -> Tensor:
    """Farther from every training image than usual, in the classifier's features: garbage."""
    return -nearest(sample.seen.features[: len(sample.vectors)], sample.yardstick.neighbours)


def _unsure(sample: "Sample") -> Tensor:
    """Read with less confidence than usual: between two classes, or garbage."""
    return sample.seen.probabilities.amax(1)


WAYS: dict[str, Callable[["Sample"], Tensor]] = {
    "near": _near,
    "twin": _twin,
    "far": _far,
    "unsure": _unsure,
}  # of each image a number that is low where the image is odd


def scores(sample: "Sample") -> dict[str, Tensor]:
    """Of every way to be odd: a number for each image."""
    return {name: score(sample) for name, score in WAYS.items()}


def thresholds(real: list["Sample"]) -> dict[str, float]:
    """Below which a score is odd: for each way the lowest `ODD` of all real test images."""
    found = [scores(sample) for sample in real]
    return {
        name: torch.quantile(torch.cat([each[name] for each in found]).double(), ODD).item()
        for name in WAYS
    }


def shares(sample: "Sample") -> dict[str, float]:
    """Share of images that are odd, for each way; that of real test images is `ODD`."""
    limits = sample.thresholds
    return {
        name: (score < limits[name]).double().mean().item()
        for name, score in scores(sample).items()
    }


def figure(sample: "Sample") -> float:
    """The largest of the shares."""
    return max(shares(sample).values())
