"""The real images that drawn ones are compared with, and what of them is worth keeping beside the
judge.

Sets, all of them the same at every call: train       all training images: the Gaussian of the
    Fréchet distance, and where copies are looked for neighbours  up to 10,000 of them, drawn by
    lot: the real side of the k-nearest-neighbour figures subset      up to 10,000 others of them:
    what as many perfect samples would score test        up to 10,000 test images, drawn by lot: the
    floor, what images of the same kind but unseen score
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ..data import DATASETS, Data
from ..processes import first_then_others
from .classifier import FEATURES, Judge
from .metrics import Statistics, nearest

REFERENCE = "reference.safetensors"
MOST = 10_000
NEAR = 0.01  # a copy lies nearer to a training image than this share of the test images


class Reference(NamedTuple):
    """train, test: Gaussians of the features of all training and all test images.

    test_nearest, subset_nearest: for each image of these sets, float32, the distance to the nearest
    training image other than itself, in pixels of 0..1 (the root of the sum of squared
    differences)."""

    train: Statistics
    test: Statistics
    test_nearest: Tensor
    subset_nearest: Tensor

    @property
    def near(self) -> float:
        """Images nearer than this to a training image count as copies of it."""
        return torch.quantile(self.test_nearest, NEAR).item()


def real_images(dataset: str, root: Path, size: int | None = None) -> tuple[Data, Data]:
    """Training and test images. Of one's own (`folder`) every tenth is held out. Raises as the
    loaders of `data.py`."""
    source = DATASETS[dataset]
    with first_then_others():  # it may have to be downloaded
        data = source.training(root, size)
    if source.test is not None:
        return data, source.test(root)
    held = torch.arange(len(data.images)) % 10 == 9
    return tuple(Data(data.images[part], data.labels[part], data.classes) for part in (~held, held))


def neighbours(train: Data) -> Tensor:
    """Indices of the set of that name, drawn by lot."""
    return _shuffled(len(train.images))[: _half(train)]


def subset(train: Data) -> Tensor:
    """Indices of the set of that name, drawn by lot; none of them is in `neighbours`."""
    return _shuffled(len(train.images))[-_half(train) :]


def tested(test: Data) -> Tensor:
    """Indices of the test images that are compared, drawn by lot: MNIST's first 5,000 are easier
    than the others."""
    return _shuffled(len(test.images))[:MOST]


def as_vectors(pixels: Tensor) -> Tensor:
    """uint8 N×C×H×W as float32 vectors of values 0..1."""
    return pixels.flatten(1).float().div_(255)


def measure(judge: Judge, train: Data, test: Data) -> Reference:
    """Looks at all real images once, with a progress bar."""
    with tqdm(
        total=len(train.images) + len(test.images), desc="features", disable=None, leave=False
    ) as bar:
        features = [judge.look(data.images, bar.update).features for data in (train, test)]
    vectors, others = as_vectors(train.images), subset(train)
    return Reference(
        *map(Statistics.of, features),
        nearest(as_vectors(test.images[tested(test)]), vectors),
        nearest(vectors[others], vectors, skip=others),
    )


def to_bytes(reference: Reference) -> bytes:
    """The content of reference.safetensors."""
    tensors = {"test.nearest": reference.test_nearest, "subset.nearest": reference.subset_nearest}
    for name in ("train", "test"):
        mean, covariance, count = getattr(reference, name)
        tensors |= {
            f"{name}.mean": mean,
            f"{name}.covariance": covariance,
            f"{name}.count": torch.tensor(count),
        }
    return save(tensors)


def load(folder: Path, sha256: str) -> Reference:
    """Reads reference.safetensors. Raises ValueError or OSError with a line that says what is wrong
    with it."""
    path = folder / REFERENCE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {REFERENCE}: the judge is not whole")
    if path.stat().st_size > 2**20:
        raise ValueError(f"{path}: larger than 1 MB, not a judge's reference")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"{path}: damaged or not the file that config.json describes (its sha256 differs)"
        )
    try:
        tensors = from_bytes(content)
        gaussians = [
            Statistics(
                tensors[f"{name}.mean"],
                tensors[f"{name}.covariance"],
                int(tensors[f"{name}.count"]),
            )
            for name in ("train", "test")
        ]
        found = Reference(*gaussians, tensors["test.nearest"], tensors["subset.nearest"])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not the reference of a judge ({error})") from error
    if any(
        g.mean.shape != (FEATURES,) or g.covariance.shape != (FEATURES, FEATURES) for g in gaussians
    ):
        raise ValueError(f"{path}: its statistics are not of {FEATURES} features")
    return found


def _half(train: Data) -> int:
    return min(MOST, len(train.images) // 2)


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
