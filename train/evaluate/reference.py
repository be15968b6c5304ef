"""The real images that generated ones are compared with, and what is kept of them beside the
judges.

Sets, all of them the same at every call (random, from a fixed seed):

- train: all training images. The Gaussians of the Fréchet distances; copies are looked for here.
- neighbours: up to 10,000 of them. The real side of the k-nearest-neighbour figures.
- subset: up to 10,000 others of them. What as many perfect samples would score.
- test: up to 10,000 test images. The floor: what unseen images of the same kind score.
"""

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
from . import pixel_stats
from .folder import Networks
from .metrics import Statistics, nearest

MOST = 10_000
NEAR = 0.01  # a copy lies nearer to a training image than this share of the test images


class Reference(NamedTuple):
    """gaussians: for each judge that compares distributions, that of its vectors of all training
    images.

    test_nearest, subset_nearest: for each image of these sets, float32, the distance to the nearest
    training image other than itself, in pixels of 0..1 (the root of the sum of squared
    differences)."""

    gaussians: dict[str, Statistics]
    test_nearest: Tensor
    subset_nearest: Tensor

    @property
    def near(self) -> float:
        """Images nearer than this to a training image count as copies of it."""
        return torch.quantile(self.test_nearest, NEAR).item()


def vectors(networks: Networks, images: Tensor) -> dict[str, Tensor]:
    """What the judges that compare distributions see of images, uint8 N×C×H×W: float32 N×D each."""
    return {
        "features": networks.classifier.look(images).features,
        "texture": networks.texture.look(images),
        "pixels": pixel_stats.vectors(images),
    }


def real_images(dataset: str, root: Path, size: int | None = None) -> tuple[Data, Data]:
    """Training and test images. Of a `folder` every tenth image is held out. Raises as the
    loaders of `data.py`."""
    source = DATASETS[dataset]
    with first_then_others():  # it may have to be downloaded
        data = source.training(root, size)
    if source.test is not None:
        return data, source.test(root)
    held = torch.arange(len(data.images)) % 10 == 9
    train, test = (
        Data(data.images[part], data.labels[part], data.classes) for part in (~held, held)
    )
    return train, test


def neighbours(train: Data) -> Tensor:
    """Indices of the set of that name, at random."""
    return _shuffled(len(train.images))[: _half(train)]


def subset(train: Data) -> Tensor:
    """Indices of the set of that name, at random; none of them is in `neighbours`."""
    return _shuffled(len(train.images))[-_half(train) :]


def tested(test: Data) -> Tensor:
    """Indices of the test images that are compared, in random order: MNIST's first 5,000 are easier
    than the others."""
    return _shuffled(len(test.images))[:MOST]


def as_vectors(pixels: Tensor) -> Tensor:
    """uint8 N×C×H×W as float32 vectors of values 0..1."""
    return pixels.flatten(1).float().div_(255)


def measure(networks: Networks, train: Data, test: Data) -> Reference:
    """Looks at all real images once, with a progress bar."""
    found: dict[str, list[Tensor]] = {}
    with tqdm(total=len(train.images), desc="features", leave=False) as bar:
        for part in torch.split(train.images, 2000):
            for name, each in vectors(networks, part).items():
                found.setdefault(name, []).append(each)
            bar.update(len(part))
    flat, others = as_vectors(train.images), subset(train)
    return Reference(
        {name: Statistics.of(torch.cat(parts)) for name, parts in found.items()},
        nearest(as_vectors(test.images[tested(test)]), flat),
        nearest(flat[others], flat, skip=others),
    )


def to_bytes(reference: Reference) -> bytes:
    """The content of reference.safetensors."""
    tensors = {"test.nearest": reference.test_nearest, "subset.nearest": reference.subset_nearest}
    for name, (mean, covariance, count) in reference.gaussians.items():
        tensors |= {
            f"{name}.mean": mean,
            f"{name}.covariance": covariance,
            f"{name}.count": torch.tensor(count),
        }
    return save(tensors)


def from_content(content: bytes, expected: dict[str, int], path: Path) -> Reference:
    """Of the content of reference.safetensors. expected: for each judge the length of its vectors.
    path: where it came from, for the line of the ValueError if it is not one."""
    try:
        tensors = from_bytes(content)
        gaussians = {
            name: Statistics(
                tensors[f"{name}.mean"],
                tensors[f"{name}.covariance"],
                int(tensors[f"{name}.count"]),
            )
            for name in expected
        }
        found = Reference(gaussians, tensors["test.nearest"], tensors["subset.nearest"])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not the reference of judges ({error})") from error
    for name, size in expected.items():
        mean, covariance, _ = gaussians[name]
        if mean.shape != (size,) or covariance.shape != (size, size):
            raise ValueError(f"{path}: the statistics of {name} are not of {size} numbers")
    return found


def _half(train: Data) -> int:
    return min(MOST, len(train.images) // 2)


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
