"""Real images, damaged one way at a time: what a panel of judges has to notice.

A classifier does not react to most of these; a person does (`python -m train.evaluate.trial`)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Data

Generator = torch.Generator


class Damage(NamedTuple):
    """title: in words. strengths: three, rising. visible: the weakest of them that a person can see
    side by side (in the images, or in a sheet of them). apply: (images with labels, count,
    strength, training images, generator) -> count images, uint8 count×C×H×W. single: whether one
    image shows it."""

    title: str
    strengths: tuple[float, float, float]
    visible: float
    apply: Callable[[Data, int, float, Data, Generator], Tensor]
    single: bool = True


Pixels = Callable[[Tensor, float, Generator], Tensor]


def grain(x: Tensor, level: float, generator: Generator) -> Tensor:
    """Every pixel moves by up to level gray levels up or down."""
    top = round(level)
    return x + torch.randint(-top, top + 1, x.shape, generator=generator)


def haze(x: Tensor, level: float, generator: Generator) -> Tensor:
    """A low-pass residue: level gray levels where strokes are, falling off over some pixels."""
    soft = _smooth(x, 3.0)
    return x + level * soft / soft.amax((1, 2, 3), keepdim=True).clamp(min=1)


def blur(x: Tensor, sigma: float, generator: Generator) -> Tensor:
    """A Gaussian of standard deviation sigma, in pixels."""
    return _smooth(x, sigma)


def shift(x: Tensor, pixels: float, generator: Generator) -> Tensor:
    """All images move to the right by so many pixels."""
    by = round(pixels)
    return F.pad(x, (by, 0, 0, 0), mode="replicate")[..., : x.shape[-1]]


def contrast(x: Tensor, factor: float, generator: Generator) -> Tensor:
    """Every gray level times 1 - factor."""
    return x * (1 - factor)


def thicker(x: Tensor, share: float, generator: Generator) -> Tensor:
    """Strokes grow by share of a pixel on every side (of what is bright; a dilation)."""
    return x + share * (F.max_pool2d(x, 3, 1, 1) - x)


def _each(change: Pixels) -> Callable[[Data, int, float, Data, Generator], Tensor]:
    """The damage that changes every image by itself."""

    def apply(data: Data, count: int, strength: float, train: Data, generator: Generator) -> Tensor:
        return changed(change, data.images[:count], strength, generator)

    return apply


def changed(change: Pixels, images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Images, uint8 N×C×H×W, after a change, rounded and clipped to 0..255."""
    return change(images.float(), strength, generator).round_().clamp_(0, 255).byte()


def _missing(data: Data, count: int, strength: float, train: Data, generator: Generator) -> Tensor:
    """Leaves out the first classes, and part of the next (strength 1.5: 0, and half of 1)."""
    gone = (data.labels - (strength - 1)).clamp(0, 1)  # 0: all of the class, 1: none of it
    kept = torch.rand(len(gone), generator=generator) < gone
    return data.images[kept | (data.labels >= strength)][:count]


def _repeated(data: Data, count: int, strength: float, train: Data, generator: Generator) -> Tensor:
    """This share of the images are repeats of others in the set."""
    again = round(count * strength)
    return torch.cat([data.images[: count - again], data.images[:again]])


def _copied(data: Data, count: int, strength: float, train: Data, generator: Generator) -> Tensor:
    """This share of the images are training images."""
    copies = round(count * strength)
    rows = torch.randperm(len(train.images), generator=generator)[:copies]
    return torch.cat([data.images[: count - copies], train.images[rows]])


def _garbage(data: Data, count: int, strength: float, train: Data, generator: Generator) -> Tensor:
    """In this share of the images, the lower half is that of another image, upside down."""
    images, bad = data.images[:count].clone(), round(count * strength)
    half = images.shape[-2] // 2
    images[:bad, :, half:] = images.roll(bad, 0)[:bad, :, half:].flip(-2, -1)
    return images


DAMAGES: dict[str, Damage] = {
    "grain": Damage("grain, ± gray levels", (1, 2, 4), 1, _each(grain)),
    "haze": Damage("haze, gray levels", (2, 4, 8), 2, _each(haze)),
    "blur": Damage("blur, pixels", (0.35, 0.5, 0.7), 0.5, _each(blur)),
    "shift": Damage("shift, pixels", (1, 2, 3), 1, _each(shift)),
    "contrast": Damage("contrast lost", (0.02, 0.05, 0.1), 0.05, _each(contrast)),
    "thicker": Damage("strokes thicker, pixels", (0.25, 0.5, 1), 0.25, _each(thicker)),
    "missing": Damage("classes missing", (0.5, 1, 2), 1, _missing, False),
    "repeated": Damage("share repeated", (0.1, 0.25, 0.5), 0.25, _repeated, False),
    "copied": Damage("training copies", (0.02, 0.05, 0.1), 0.05, _copied, False),
    "garbage": Damage("garbage", (0.01, 0.02, 0.05), 0.02, _garbage),
}


def _smooth(x: Tensor, sigma: float) -> Tensor:
    """x convolved with a Gaussian, N×C×H×W float32; the edge goes on beyond the picture."""
    reach = max(1, min(round(3 * sigma), x.shape[-1] - 1))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    planes = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes.view_as(x)
