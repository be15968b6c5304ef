"""Where the images to evaluate come from: sampled from a model, by one process or several, or read
from a folder of PNGs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from ddpm import Pipeline, Settings
from ddpm.pipeline import MAX_PIXELS
from ddpm.pixels import to_pixels

_BATCH = {"cpu": 100, "cuda": 1000}


def draw(
    pipeline: Pipeline,
    how: Settings,
    seeds: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """Samples one image for each seed, uint8 N×C×H×W on the CPU, rounded as in a PNG.

    how: the settings of every batch, but for its seeds and labels. labels: one for each seed.
    progress is called with the number of images done, by all processes as far as this one knows.
    Every process gets all images. Whole batches are dealt out to the processes (torchrun), so that
    an image is in the same batch however many processes there are.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    model, device = pipeline.model, pipeline.device
    shape = model.channels, model.size, model.size
    height = max(1, min(_BATCH[device.type], MAX_PIXELS // (model.channels * model.size**2)))
    pixels = torch.zeros(len(seeds), *shape, dtype=torch.uint8)
    for start in range(rank * height, len(seeds), height * world):
        rows = slice(start, start + height)
        batch = replace(how, seeds=seeds[rows], labels=labels and labels[rows])
        for frame in pipeline.stream(batch):
            last = frame
        pixels[rows] = to_pixels(last.x)
        progress(min(height * world, len(seeds) - (start - rank * height)))
    if world > 1:
        shared = pixels.to(device)  # each has zeros where others drew: the sum is the whole
        dist.all_reduce(shared)
        pixels = shared.cpu()
    return pixels


def labels_of(pipeline: Pipeline, seeds: Sequence[int], *, labelled: bool) -> list[int] | None:
    """The label for each seed: the class that the seed chooses or, if not labelled, "no label".

    None if the model has no classes."""
    classes = pipeline.model.classes
    if not classes:
        return None
    return [pipeline.label_of(seed) if labelled else classes for seed in seeds]


def is_pictures(source: str) -> bool:
    """Whether source is a folder of PNGs rather than a model."""
    folder = Path(source)
    return folder.is_dir() and not (folder / "config.json").exists() and any(folder.glob("*.png"))


def read_pictures(
    folder: Path,
    count: int | None,
    channels: int,
    size: int,
    progress: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """The first count PNGs of folder by name (all if None), uint8 N×C×H×W, as they are: nothing is
    resized.

    Raises ValueError if there are fewer, or one is not of this many channels and pixels.
    """
    paths = sorted(folder.glob("*.png"))
    if count is not None and len(paths) < count:
        raise ValueError(
            f"{folder} has {len(paths):,} PNGs, fewer than the {count:,} asked for: "
            "lower --samples or --seeds, or leave them out"
        )
    images = []
    for path in paths[:count]:
        images.append(torch.from_numpy(_read(path, channels, size)))
        progress(1)
    return torch.stack(images)


def _read(path: Path, channels: int, size: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.size != (size, size):
                raise ValueError(
                    f"it has {image.width}×{image.height} pixels, and the judge reads {size}×{size}"
                )
            if image.mode not in ("1", "L", "P", "RGB"):
                raise ValueError(f"its mode is {image.mode}; convert it to 8 bits of gray or RGB")
            pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ValueError(f"{path} cannot be evaluated: {error}") from error
    if channels == 1 and (pixels != pixels[:1]).any():
        raise ValueError(f"{path} cannot be evaluated: it has colours, and the judge reads gray")
    found: np.ndarray = pixels[:channels]
    return found
