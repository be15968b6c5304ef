"""The images to be judged, and the real images that they are compared with."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import DATASETS, Data
from . import folder, members, pixel_stats, reference
from .classifier import FEATURES, Seen
from .folder import Networks
from .metrics import nearest
from .reference import MOST, Reference, as_vectors
from .texture import WIDTHS

SETS = 5  # of real images, at most, whose mean is a floor


class Yardstick:
    """The networks of the judges, what is kept of the real images, and the real images. Works on
    the device on which the networks lie.

    Raises ValueError if the real images are not those that the judges were made with.
    """

    def __init__(
        self, networks: Networks, config: dict[str, Any], kept: Reference, train: Data, test: Data
    ) -> None:
        self.networks, self.config, self.reference = networks, config, kept
        self.train, self.test = train, test
        floors = config.get("floors", {})
        self._thresholds = {int(count): floor["limits"] for count, floor in floors.items()}
        if train.fingerprint() != config["fingerprint"]:
            raise ValueError(self._stranger("training"))
        if kept.test_nearest.shape != (len(reference.tested(test)),):
            raise ValueError(self._stranger("test"))

    @classmethod
    def open(cls, where: Path, data: Path, device: torch.device) -> "Yardstick":
        """With the judges in the folder where and the data set in data. Raises ValueError or
        OSError with a line for the user."""
        networks, config = folder.load(where)
        name = config["dataset"]
        if name not in list(DATASETS):
            raise ValueError(f"{where}: unknown dataset {name!r}; valid are {', '.join(DATASETS)}")
        sizes = {
            "features": FEATURES,
            "texture": WIDTHS[-1],
            "pixels": pixel_stats.length(networks.classifier.channels),
        }
        content = folder.read_reference(where, config)
        kept = reference.from_content(content, sizes, where / folder.REFERENCE)
        size = networks.classifier.size if name == "folder" else None
        real = reference.real_images(name, data, size)
        return cls(networks.to(device), config, kept, *real)

    def tests(self, count: int) -> list["Sample"]:
        """Up to five sets of count test images each, no two with an image in common; one set of all
        there are if there are fewer than count."""
        rows = reference.tested(self.test)
        return self._sets(self.test, rows, self.reference.test_nearest, count)

    def subset(self, count: int) -> "Sample":
        """Count training images, or as many as are set aside."""
        rows = reference.subset(self.train)
        return self._sets(self.train, rows, self.reference.subset_nearest, count)[0]

    def thresholds(self, count: int) -> dict[str, float]:
        """Below which a score of `members` is odd, in a set of count images."""
        if count not in self._thresholds:
            self._thresholds[count] = members.thresholds(self.tests(count))
        limits: dict[str, float] = self._thresholds[count]
        return limits

    @cached_property
    def neighbours(self) -> Tensor:
        """The classifier's features of the real images that neighbours are looked for among."""
        return self.networks.classifier.look(self.real).features

    @cached_property
    def real(self) -> Tensor:
        """Those images, uint8 N×C×H×W."""
        return self.train.images[reference.neighbours(self.train)]

    def _stranger(self, kind: str) -> str:
        return (
            f"the {self.config['dataset']} {kind} images given with --data are not those that the "
            "judges were made with"
        )

    def _sets(self, data: Data, rows: Tensor, distances: Tensor, count: int) -> list["Sample"]:
        count = min(count, len(rows))
        parts = zip(torch.split(rows, count), torch.split(distances, count), strict=True)
        return [
            Sample(self, data.images[part], data.labels[part], near)
            for part, near in list(parts)[: min(SETS, len(rows) // count)]
        ]


class Sample:
    """A set of images, uint8 N×C×H×W, and what more than one judge asks about them, found once.

    labels: the classes that they should show, int64 N, if known. distances: how far each of the
    first 10,000 is from the nearest training image, where that is known."""

    def __init__(
        self,
        yardstick: Yardstick,
        images: Tensor,
        labels: Tensor | None = None,
        distances: Tensor | None = None,
    ) -> None:
        self.yardstick, self.images, self.labels = yardstick, images, labels
        self._distances = distances

    @cached_property
    def seen(self) -> Seen:
        """What the classifier makes of them."""
        return self.yardstick.networks.classifier.look(self.images)

    @cached_property
    def vectors(self) -> Tensor:
        """The pixels of the first 10,000, float32 N×D, 0..1."""
        return as_vectors(self.images[:MOST])

    @cached_property
    def distances(self) -> Tensor:
        """Distances of the first 10,000 to the nearest training image, in pixels of 0..1."""
        if self._distances is not None:
            return self._distances
        return nearest(self.vectors, as_vectors(self.yardstick.train.images))

    @property
    def thresholds(self) -> dict[str, float]:
        """What `members` counts as odd in a set of this size."""
        return self.yardstick.thresholds(len(self.vectors))
