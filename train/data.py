"""Data sets: image files in, one uint8 tensor out, held wholly in memory on the device that trains.

`DATASETS` is the one table of them: a new data set is one line there.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import datasets
from tqdm import tqdm

from ddpm.hub import check_class_names

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
_MAX_BYTES = 16 * 2**30  # of pixels in memory; ten times CIFAR-10 at 64×64


@dataclass(frozen=True)
class Data:
    """Images in memory, with their labels.

    images: uint8 N×C×H×W (C is 1 or 3). labels: int64 N. classes: their names, empty if there are
    no labels.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def fingerprint(self) -> str:
        """The sha256 of images and labels, to tell one data set from another."""
        digest = hashlib.sha256(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "Data":
        """The same, on the device."""
        return Data(self.images.to(device), self.labels.to(device), self.classes)


Loader = Callable[[Path, int | None], Data]


@dataclass(frozen=True)
class DataSet:
    """What the program knows of one data set. Both loaders raise ValueError or OSError.

    training: (root, size) -> the training images, which are downloaded to root if they are not
        there. size is the side in pixels, for data sets whose images may have any; else None.
    test: root -> the test images, once the training images are there. None: it has none of its own.
    hub: its name on the Hugging Face Hub, if it is there.
    shape: channels and side in pixels of its images; None if they differ from user to user.
    """

    training: Loader
    test: Callable[[Path], Data] | None = None
    hub: str | None = None
    shape: tuple[int, int] | None = None


def _torchvision(dataset: type, shape: tuple[int, int], hub: str | None = None) -> DataSet:
    """One of torchvision's data sets."""

    def training(root: Path, size: int | None) -> Data:
        if size is not None:
            raise ValueError(
                "--size is for --dataset folder; the other data sets keep their own size"
            )
        return _read_split(dataset, root, train=True)

    return DataSet(training, lambda root: _read_split(dataset, root, train=False), hub, shape)


def _read_split(dataset: type, root: Path, *, train: bool) -> Data:
    """The training images, downloaded to root if need be; or the test images, which lie there."""
    try:
        found = dataset(root, train=train, download=train)
    except Exception as error:  # torchvision raises almost anything for a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise OSError(
            f"{dataset.__name__} is not (whole) in {root} and cannot be downloaded: {reason}"
            if train
            else f"the test images of {dataset.__name__} in {root} cannot be read: {reason}"
        ) from error
    pixels = torch.as_tensor(found.data)
    images = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    classes = tuple(name.split(" - ")[0] for name in found.classes)
    labels = torch.as_tensor(found.targets)
    if not 0 < len(images) == len(labels) or not 0 <= labels.min() <= labels.max() < len(classes):
        raise OSError(
            f"{dataset.__name__} is not (whole) in {root}: its images and labels do not belong "
            "together; delete them there, and they are downloaded again"
        )
    return Data(images, labels, classes)


def _folder(root: Path, size: int | None) -> Data:
    """The user's own images below root, cut to squares and resized to size (32 if None).

    Subfolders are classes.
    """
    size = 32 if size is None else size
    if not 4 <= size <= 256:
        raise ValueError(f"--size must be in 4..256, got {size}")
    paths = _image_paths(root)
    places = [path.relative_to(root).parts for path in paths]
    classes = _classes(root, places)
    first = _read(paths[0], size)
    if len(paths) * first.nbytes > _MAX_BYTES:
        raise ValueError(
            f"{len(paths)} images of {size}×{size} need more than {_MAX_BYTES >> 30} GiB: "
            "lower --size"
        )
    images = np.empty((len(paths), *first.shape), np.uint8)
    for k, path in enumerate(tqdm(paths, "reading images", disable=None, leave=False)):
        image = _read(path, size)
        if image.shape != first.shape:
            kinds = {1: "grayscale", 3: "RGB"}
            raise ValueError(
                f"mixed channels: {paths[0]} is {kinds[len(first)]} but {path} is "
                f"{kinds[len(image)]}; convert them to one of the two"
            )
        images[k] = image
    labels = [classes.index(parts[0]) if classes else 0 for parts in places]
    return Data(torch.from_numpy(images), torch.tensor(labels), classes)


def _image_paths(root: Path) -> list[Path]:
    """The image files below root, sorted; hidden ones are left out.

    Other files are named on stderr.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder")
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    paths = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not paths:
        raise ValueError(f"{root} has no images ({', '.join(sorted(s[1:] for s in _SUFFIXES))})")
    if len(files) > len(paths):
        others = sorted({path.suffix.lower() or path.name for path in files} - _SUFFIXES)
        print(
            f"{len(files) - len(paths)} files in {root} are not images and are skipped: "
            f"{', '.join(others[:5])}",
            file=sys.stderr,
        )
    return paths


def _classes(root: Path, places: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The names of the subfolders. places: the path of each image below root, in parts."""
    classes = tuple(sorted({parts[0] for parts in places if len(parts) > 1}))
    stray = next((parts for parts in places if classes and len(parts) == 1), None)
    if stray:
        raise ValueError(
            f"{root.joinpath(*stray)} lies beside the class folders {', '.join(classes[:3])}…: "
            "move it into one"
        )
    if len(classes) > 1000:
        raise ValueError(f"{root}: subfolders are classes, at most 1000, not {len(classes)}")
    try:
        check_class_names(classes)
    except ValueError as error:
        raise ValueError(f"{root}: subfolders are classes: {error}") from error
    return classes


def _read(path: Path, size: int) -> np.ndarray:
    """One image file as uint8 C×size×size: upright, and cut to its central square.

    Transparent pixels become white.
    """
    try:
        with Image.open(path) as file:
            image = _plain(ImageOps.exif_transpose(file))
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.resize(
                (size, size),
                Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC,
                box=(left, top, left + side, top + side),
            )
    except Exception as error:  # Pillow's readers raise almost anything for a damaged file
        raise ValueError(
            f"{path} cannot be read as an image ({error}): repair or remove it"
        ) from error
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _plain(image: Image.Image) -> Image.Image:
    """The same picture with 8 bits a channel, gray or RGB.

    Raises ValueError if its range of values is unknown.
    """
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip, not scale
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel; convert it to 8 or 16")
    if image.mode in ("1", "L"):
        return image.convert("L")
    gray = image.mode in ("LA", "La") or (image.mode == "P" and _gray_palette(image))
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if gray else "RGB")


def _gray_palette(image: Image.Image) -> bool:
    """Whether every colour that the palette image can show is a gray."""
    return image.palette is not None and all(
        len(set(color[:3])) == 1 for color in image.palette.colors
    )


DATASETS: dict[str, DataSet] = {
    "mnist": _torchvision(datasets.MNIST, (1, 28), "ylecun/mnist"),
    "fashion-mnist": _torchvision(datasets.FashionMNIST, (1, 28), "zalando-datasets/fashion_mnist"),
    "kmnist": _torchvision(datasets.KMNIST, (1, 28)),
    "cifar10": _torchvision(datasets.CIFAR10, (3, 32), "uoft-cs/cifar10"),
    "folder": DataSet(_folder),
}
