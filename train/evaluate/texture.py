"""The network of the judge `texture`: trained to tell real images from slightly damaged ones.

It sees damaged training images only; the trial of the judges damages test images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .damages import Pixels, blur, changed, contrast, grain, haze, thicker
from .textures import TextureNet, fit

BATCH, LR, STEPS = 120, 4e-3, 1200
_CHANGES: dict[str, tuple[Pixels, float]] = {
    "grain": (grain, 4),
    "haze": (haze, 6),
    "blur": (blur, 0.6),
    "contrast": (contrast, 0.08),
    "thicker": (thicker, 0.4),
}
KINDS = (None, *_CHANGES)  # None: not damaged
WIDTHS = 32, 64  # of the network that is kept; each of its 64 features is a mean over all places


def texture_net(channels: int) -> TextureNet:
    """The network of the judge `texture`, not yet trained: it names the kind of a damage."""
    return TextureNet(channels, WIDTHS, len(KINDS))


def fit_texture(
    images: Tensor, steps: int, generator: torch.Generator, progress: Callable[[float], object]
) -> TextureNet:
    """Trains it to tell real training images (uint8 N×C×H×W) from slightly damaged ones, and the
    kinds of damage from each other."""

    def batch_of(rows: Tensor) -> tuple[Tensor, Tensor]:
        parts = images[rows].chunk(len(KINDS))
        spoilt = [_spoilt(kind, part, generator) for kind, part in zip(KINDS, parts, strict=False)]
        kinds = [torch.full((len(part),), k) for k, part in enumerate(spoilt)]
        return torch.cat(spoilt), torch.cat(kinds)

    network = texture_net(images.shape[1]).to(memory_format=torch.channels_last)
    return fit(
        network,
        len(images),
        batch_of,
        F.cross_entropy,
        steps=steps,
        batch=min(BATCH, len(images)),
        lr=LR,
        generator=generator,
        progress=progress,
    )


def _spoilt(kind: str | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """images after a damage of this kind, of a random strength up to the most."""
    if kind is None:
        return images
    change, most = _CHANGES[kind]
    strength = (0.3 + 0.7 * torch.rand(1, generator=generator).item()) * most
    return changed(change, images, strength, generator)
