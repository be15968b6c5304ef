"""Did the model copy? The training images nearest to an image, from an index of at most 2 MB.

The index is a product quantizer (Jégou et al. 2011). An image is described by its coordinates along
the main axes of all training images. The axes are in groups, and of each group an image keeps one
byte: which of 256 points is nearest. So what is found is nearly right, and pictures are a little
blurred: `python -m train.evaluate.nearest`, which makes an index, says how often it is right.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save
from torch import Tensor

from ..hub import BUILT_IN
from ..pipeline import Pipeline
from ..pixels import from_pixels, to_pixels

FILE, MOST_BYTES = "nearest.safetensors", 2_000_000
SHOWN = 3  # training images
FAINT = 0.1  # what is darker in a picture is grain that the index has made
_TYPES = {
    "mean": (torch.float32, 1),
    "axes": (torch.int8, 2),
    "scales": (torch.float32, 1),
    "points": (torch.float16, 3),
    "codes": (torch.uint8, 2),
    "fade": (torch.float32, 0),
    "usual": (torch.float32, 1),
}  # type and number of dimensions of each tensor in the file


class Index(NamedTuple):
    """N training images of D values 0..1, each described by M bytes.

    mean: of all images, D. axes, scales: D×K and K; an axis is its column times its scale, and has
    length 1. points: M×256×(K/M), places along each group of axes. codes: M×N. fade: below. usual:
    three distances; of real test images 1 % (what is nearer counts as a copy), 5 % and 95 % are
    nearer than this to a training image.
    """

    mean: Tensor
    axes: Tensor
    scales: Tensor
    points: Tensor
    codes: Tensor
    fade: Tensor
    usual: Tensor

    def find(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Distances to the SHOWN nearest training images, and which these are, both N×SHOWN.

        images: N×D, 0..1. A distance is the root of the sum of squared differences of pixels. What
        the index leaves out of an image is itself r long. A copy leaves out the same, another image
        something else: on the way from one to the other, s being the square of what the index sees
        of the distance, s + 2 r² (1 - exp(-s / fade)) has about the right mean."""
        seen, out, which = self.look(images)
        return (seen + 2 * out * (1 - torch.exp(-seen / self.fade))).sqrt(), which

    def look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s (N×SHOWN) and r² (N×1) of `find`, and which the training images are."""
        centred = images - self.mean
        along = centred @ self._axes
        places = along.view(len(images), len(self.points), 1, -1)
        parts = (places - self.points.float()).square().sum(-1)  # N×M×256
        beside = centred.square().sum(1) - along.square().sum(1)  # what no axis describes
        out = parts.amin(-1).sum(1) + beside
        found = []
        for part, rest in zip(parts, beside - out, strict=True):
            seen = sum(
                (each[code.int()] for each, code in zip(part, self.codes, strict=True)), rest
            )
            found.append(seen.topk(SHOWN, largest=False))
        seen = torch.stack([each.values for each in found]).clamp(min=0)
        return seen, out[:, None], torch.stack([each.indices for each in found])

    def pictures(self, which: Tensor) -> Tensor:
        """Training images as the index has them, N×D, 0..1."""
        codes = self.codes[:, which].int()
        places = [self.points[m].float()[codes[m]] for m in range(len(self.points))]
        found = self.mean + torch.cat(places, 1) @ self._axes.T
        return found.where(found > FAINT, 0).clamp(max=1)

    def to_bytes(self) -> bytes:
        """The content of a file."""
        return save({name: part.contiguous() for name, part in self._asdict().items()})

    @property
    def _axes(self) -> Tensor:
        return self.axes * self.scales


def load(path: Path) -> Index:
    """The index in a file. Nothing in it is trusted: raises ValueError that says what is wrong."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: more than the {MOST_BYTES:,} bytes that an index may have")
    try:
        found = from_bytes(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file") from error
    if {name: (part.dtype, part.ndim) for name, part in found.items()} != _TYPES:
        raise ValueError(f"{path}: not the tensors of an index: {', '.join(_TYPES)}")
    index = Index(**found)
    groups, points, each = index.points.shape
    fits = (
        index.axes.shape == (len(index.mean), groups * each)
        and index.scales.shape == (groups * each,)
        and len(index.codes) == groups
        and index.codes.shape[1] >= SHOWN
        and int(index.codes.max()) < points
        and index.usual.shape == (3,)
        and index.fade > 0
    )
    if not fits or not all(part.float().isfinite().all() for part in index):
        raise ValueError(f"{path}: the tensors of this index do not fit each other")
    return index


def path_of(pipeline: Pipeline, source: str, built_in: bool) -> Path:
    """Where the index of a model is, if it has one. Built-in weights of one data set share it.

    source: their name, or the folder of the model."""
    folder = BUILT_IN / str(pipeline.config.get("dataset")) if built_in else Path(source)
    return folder / FILE


def told(index: Index, image: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The distances of the nearest training images, in words too; and these images.

    image: 1×C×H×W, as `ddpm.pixels.from_pixels` gives it; so are the others."""
    pixels = to_pixels(image).flatten(1).float() / 255
    if pixels.shape[1] != len(index.mean):
        raise ValueError("the index was made of images of another size")
    [distances], [which] = index.find(pixels)
    copy, low, high = index.usual.tolist()
    first, count = distances[0].item(), index.codes.shape[1]
    words = (
        f"The nearest of {count:,} training images is {first:.1f} away (0 is the same image). "
        f"Of real test images it is usually {low:.1f} to {high:.1f}."
    )
    if first < copy:
        words += " Only 1 real test image in 100 is as near: this may be a copy."
    words += " (Blurred, as all of them have to fit into 2 MB.)"
    facts = {
        "words": words,
        "distances": [round(distance, 2) for distance in distances.tolist()],
        "usual": [round(low, 2), round(high, 2)],
        "copy_below": round(copy, 2),
        "training_images": count,
    }
    found = (index.pictures(which) * 255).round().to(torch.uint8)
    return facts, from_pixels(found).view(-1, *image.shape[1:])
