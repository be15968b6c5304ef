"""The figures of a set of images, and those of real images of the same number to compare them
with."""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data import DATASETS, Data
from . import classifier, reference
from .classifier import Judge
from .metrics import Statistics, density_coverage, frechet, nearest, precision_recall
from .reference import MOST, Reference, as_vectors

CONFIDENT = 0.9


class Figure(NamedTuple):
    """How a figure is called in words, how it is printed, and what is good."""

    title: str
    form: str
    good: str


FIGURES: dict[str, Figure] = {
    "frechet": Figure("Fréchet distance", ".3f", "low"),
    "precision": Figure("precision (k = 3)", ".4f", "high"),
    "recall": Figure("recall (k = 3)", ".4f", "high"),
    "density": Figure("density (k = 5)", ".4f", "high"),
    "coverage": Figure("coverage (k = 5)", ".4f", "high"),
    "confident": Figure("read with > 0.9 confidence", ".2%", "high"),
    "accuracy": Figure("shows the class asked for", ".2%", "high"),
    "copies": Figure("near-copies of training images", ".2%", "low"),
}


def described(report: dict[str, Any]) -> str:
    """What was measured, of a report of `python -m train.evaluate`: how many images, drawn how."""
    times = f", {report['repetitions']} times" if report["repetitions"] > 1 else ""
    how = report.get("settings") or {}
    words = [
        f"{how[name]} {name}" if name == "steps" else f"{name} {how[name]}"
        for name in how
        if name != "labels" and how[name]
    ]
    if "labels" in how:
        words.append("each class as often as in training" if how["labels"] else "without labels")
    return f"{report['samples']:,} images{times}" + (f" ({', '.join(words)})" if words else "")


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The figures of a report as people read them: what it is, what is good, this, its spread over
    the repetitions ("" for one), as many real test images, as many training images.

    Raises KeyError, TypeError or ValueError if it is no report.
    """
    found = []
    for name, figure in report["figures"].items():
        title, form, good = FIGURES[name]
        spread = "" if figure["std"] is None else format(figure["std"], form)
        found.append(
            (
                title,
                good,
                format(figure["mean"], form),
                spread,
                *(format(figure[real], form) for real in ("floor", "subset")),
            )
        )
    return found


class Yardstick:
    """A judge, what it keeps of the real images, and the real images. Works on the device on which
    the judge lies.

    Raises ValueError if the training images are not those that the judge was made with.
    """

    def __init__(
        self, judge: Judge, config: dict[str, Any], kept: Reference, train: Data, test: Data
    ) -> None:
        if train.fingerprint() != config["fingerprint"]:
            raise ValueError(
                f"the {config['dataset']} images given with --data are not those the judge was made with"
            )
        if kept.test_nearest.shape != (len(reference.tested(test)),):
            raise ValueError(
                f"the {config['dataset']} test images given with --data are not those of the judge"
            )
        self.judge, self.config, self.reference, self.train, self.test = (
            judge,
            config,
            kept,
            train,
            test,
        )

    @classmethod
    def open(cls, folder: Path, data: Path, device: torch.device) -> "Yardstick":
        """With the judge in folder and the data set in data. Raises ValueError or OSError with a
        line for the user."""
        judge, config = classifier.load(folder)
        if config["dataset"] not in list(DATASETS):
            raise ValueError(
                f"{folder}: unknown dataset {config['dataset']!r}; valid are {', '.join(DATASETS)}"
            )
        kept = reference.load(folder, config["reference_sha256"])
        size = judge.size if config["dataset"] == "folder" else None
        return cls(
            judge.to(device), config, kept, *reference.real_images(config["dataset"], data, size)
        )

    def frechet(self, pixels: Tensor) -> float:
        """The Fréchet distance alone, of images uint8 N×C×H×W, to all training images."""
        return frechet(Statistics.of(self.judge.look(pixels).features), self.reference.train)

    def figures(
        self, pixels: Tensor, labels: Tensor | None = None, distances: Tensor | None = None
    ) -> dict[str, float]:
        """All figures of images, uint8 N×C×H×W. labels: the classes they should show, int64 N.

        The Fréchet distance is that to all training images. Precision, recall, density and coverage
        compare the first 10,000 images (or as many as there are) with as many training images,
        drawn by lot. A near-copy lies nearer to a training image, in pixels, than 99 % of the test
        images do; of the first 10,000 images too. distances: how far each is from the nearest
        training image, where that is known."""
        seen, count = self.judge.look(pixels), min(len(pixels), len(self._neighbours))
        real, drawn = self._neighbours[:count], seen.features[:count]
        found = {"frechet": frechet(Statistics.of(seen.features), self.reference.train)}
        found["precision"], found["recall"] = precision_recall(real, drawn)
        found["density"], found["coverage"] = density_coverage(real, drawn)
        found["confident"] = _share(seen.probabilities.amax(1) > CONFIDENT)
        if labels is not None:
            found["accuracy"] = _share(seen.probabilities.argmax(1) == labels)
        if distances is None:
            distances = nearest(as_vectors(pixels[:MOST]), as_vectors(self.train.images))
        found["copies"] = _share(distances < self.reference.near)
        return found

    def floor(self, count: int) -> dict[str, float]:
        """The figures of count real test images (or of all there are): as good as a perfect model
        can hope to be."""
        return self._of(self.test, reference.tested(self.test)[:count], self.reference.test_nearest)

    def floor_frechet(self, count: int) -> float:
        """The Fréchet distance of count real test images (or of all there are)."""
        return self.frechet(self.test.images[reference.tested(self.test)[:count]])

    def subset(self, count: int) -> dict[str, float]:
        """The figures of count real training images (or of as many as are set aside)."""
        return self._of(
            self.train, reference.subset(self.train)[:count], self.reference.subset_nearest
        )

    def _of(self, data: Data, rows: Tensor, distances: Tensor) -> dict[str, float]:
        return self.figures(data.images[rows], data.labels[rows], distances[: len(rows)])

    @cached_property
    def _neighbours(self) -> Tensor:
        return self.judge.look(self.train.images[reference.neighbours(self.train)]).features


def _share(which: Tensor) -> float:
    return which.double().mean().item()
