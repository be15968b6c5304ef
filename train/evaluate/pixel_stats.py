"""What can be said of an image without any network: 47 numbers (79 for RGB) about its pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = (0, 1, 3, 9, 33, 65, 129, 193, 241)  # where the classes of gray levels begin
_STEPS = (1, 3, 9, 33, 129)  # the same of differences between neighbours
_RINGS = 8  # of spatial frequencies
_CELLS = 4  # a side of the coarse picture
_BATCH = 1000


def vectors(images: Tensor) -> Tensor:
    """float32 N×D, of images uint8 N×C×H×W. D depends on C alone.

    Shares of gray levels (exactly black apart, white from 241) and of differences between
    neighbours, light over edge (how thick a stroke is), place and extent of the light, log power in
    rings of spatial frequency, and a coarse picture of each colour."""
    return torch.cat([_of(part.float()) for part in torch.split(images, _BATCH)])


def length(channels: int) -> int:
    """How many numbers an image gives."""
    return len(_LEVELS) + 3 + len(_STEPS) + 6 + _RINGS + channels * _CELLS**2


def _of(x: Tensor) -> Tensor:
    return torch.cat([_levels(x), _edges(x), _place(x), _spectrum(x), _coarse(x)], 1)


def _levels(x: Tensor) -> Tensor:
    return _shares(x.flatten(1), _LEVELS)


def _edges(x: Tensor) -> Tensor:
    across = (x[..., 1:] - x[..., :-1]).abs().flatten(1)
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().flatten(1)
    light, edge = x.flatten(1).mean(1), across.mean(1) + down.mean(1)
    thick = light / edge.clamp(min=1)
    means = torch.stack([across.mean(1) / 255, down.mean(1) / 255, thick], 1)
    return torch.cat([means, _shares(torch.cat([across, down], 1), _STEPS)], 1)


def _place(x: Tensor) -> Tensor:
    """Mean light, its centre, and its second moments about it, in units of half a side."""
    light = x.mean(1)
    total = light.sum((1, 2)).clamp(min=1)
    rows, columns = (torch.linspace(-1, 1, side) for side in light.shape[1:])
    y = (light.sum(2) * rows).sum(1) / total
    z = (light.sum(1) * columns).sum(1) / total
    dy, dz = rows - y[:, None], columns - z[:, None]
    yy = (light.sum(2) * dy**2).sum(1) / total
    zz = (light.sum(1) * dz**2).sum(1) / total
    yz = torch.einsum("nij,ni,nj->n", light, dy, dz) / total
    return torch.stack([total / light[0].numel() / 255, y, z, yy, zz, yz], 1)


def _spectrum(x: Tensor) -> Tensor:
    power = torch.fft.rfft2(x / 255, norm="ortho").abs().square().mean(1)
    across = torch.fft.rfftfreq(x.shape[-1])
    radius = (torch.fft.fftfreq(x.shape[-2])[:, None] ** 2 + across**2).sqrt()
    ring = (radius * 2 * _RINGS).long().clamp(max=_RINGS - 1).flatten()
    sums = torch.zeros(len(x), _RINGS).index_add_(1, ring, power.flatten(1))
    counts = torch.bincount(ring, minlength=_RINGS).clamp(min=1)
    return (sums / counts + 1e-5).log()  # the constant: rounding to whole levels is no signal


def _coarse(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x / 255, _CELLS).flatten(1)


def _shares(values: Tensor, starts: tuple[int, ...]) -> Tensor:
    """Share of values in each class; a class reaches from its start to the next one's."""
    above = torch.stack([(values >= start).float().mean(1) for start in starts], 1)
    return above - F.pad(above[:, 1:], (0, 1))
