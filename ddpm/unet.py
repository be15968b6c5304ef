"""The network: a U-Net that takes a noisy image, the time and the label.

What it predicts, the noise, the image or a mix of both, is its `prediction`. Read the file from the
bottom up, from `UNet.forward`. Every block is called as block(x, emb), where emb
(N×E) is the embedding of the time and the label. The blocks know nothing of diffusion. The parts
and their order are those of diffusers' UNet2DModel, so that weights can be carried over.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .schedule import Schedule

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x, t, y) -> out, as `UNet.forward`."""

# What a network may be trained to predict; diffusion.PREDICTIONS has the formulas.
PREDICTION_TYPES = ("v", "eps", "x0")

# The most that a network may have: values in one image of one layer, pixels a side where every
# pixel attends to every other, parameters (2 GB).
MAX_VALUES, MAX_ATTENTION, MAX_PARAMETERS = 2**24, 64, 2**29


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Cosines and sines of t at dim / 2 frequencies from 1 down to 1/10000: N -> N×dim.

    DDPM, Appendix B.
    """
    frequencies = torch.exp(
        -math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2)
    )
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _silence(layer: nn.Module) -> None:
    """Makes the last layer of a branch output 0 at the start of training.

    So a deep network starts as a shallow one.
    """
    for p in layer.parameters():
        nn.init.zeros_(p)


class Attention(nn.Module):
    """Multi-head self-attention over the pixels, N×C×H×W -> the same, added to its input."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))
        _silence(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """x N×C×H×W -> the same shape."""
        h = self.norm(x).flatten(2).transpose(1, 2)  # N×HW×C
        q, k, v = (
            f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v)  # N×heads×HW×C/heads
        h = self.out(h.transpose(1, 2).flatten(2))  # N×HW×C
        out: Tensor = x + h.transpose(1, 2).unflatten(2, x.shape[2:])
        return out


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, with a scale and shift from emb; perhaps attention."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, groups: int, heads: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(c_emb, 2 * c_out)
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out, heads, groups) if heads else nn.Identity()
        _silence(self.conv2)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x N×c_in×H×W, emb N×c_emb -> N×c_out×H×W."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.emb(F.silu(emb))[:, :, None, None].chunk(2, dim=1)  # N×C×1×1 each
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        out: Tensor = self.attention(self.shortcut(x) + h)
        return out


class Downsample(nn.Module):
    """Halves height and width with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x N×C×H×W -> N×C×H/2×W/2; emb is not used."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Doubles height and width by repetition, then smooths with a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x N×C×H×W -> N×C×2H×2W; emb is not used."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class UNet(nn.Module):
    """The whole network, with the schedule and the prediction that its weights were trained for.

    Args:
        channels, size: of the images: 1 or 3, and pixels a side (a multiple of
            2 ** (number of levels - 1)).
        classes: how many labels there are; 0 for none. Label `classes` itself stands for
            "no label".
        width: the unit of width in channels, a multiple of 8.
        mults: the width of each level, as a multiple of `width`; each level halves the resolution.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: for each level, whether attention follows its residual blocks (in heads of
            `width` channels).
        schedule: the noise schedule it was trained on.
        prediction: what its output means, one of PREDICTION_TYPES.

    Raises ValueError naming the argument that is out of range.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        classes: int = 10,
        width: int = 32,
        mults: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        attention: Sequence[bool] = (False, True, True),
        schedule: Schedule = Schedule(),
        prediction: str = "v",
    ) -> None:
        super().__init__()
        mults, attention = tuple(mults), tuple(attention)
        _check(
            channels=channels,
            size=size,
            classes=classes,
            width=width,
            mults=mults,
            blocks=blocks,
            attention=attention,
            prediction=prediction,
        )
        self.channels, self.size, self.classes, self.width = channels, size, classes, width
        self.mults, self.blocks, self.attention = mults, blocks, attention
        self.schedule, self.prediction = schedule, prediction
        widths, groups = [width * m for m in mults], 8
        stem, c_emb = widths[0], 4 * widths[0]

        def residual(c_in: int, c_out: int, attends: bool) -> ResidualBlock:
            return ResidualBlock(c_in, c_out, c_emb, groups, heads=c_out // width if attends else 0)

        self.time = nn.Sequential(nn.Linear(stem, c_emb), nn.SiLU(), nn.Linear(c_emb, c_emb))
        table = torch.empty(classes + 1, c_emb)
        # On the meta device (hub.py) random numbers would import half of torch for nothing.
        if not table.is_meta:
            table.normal_()
        self.label = nn.Embedding(classes + 1, c_emb, _weight=table) if classes else None
        self.conv_in = nn.Conv2d(channels, stem, 3, padding=1)

        self.down, skips = nn.ModuleList(), [stem]
        for level, (c, attends) in enumerate(zip(widths, attention, strict=True)):
            for _ in range(blocks):
                self.down.append(residual(skips[-1], c, attends))
                skips.append(c)
            if level < len(widths) - 1:
                self.down.append(Downsample(c))
                skips.append(c)

        c = widths[-1]
        self.middle = nn.ModuleList([residual(c, c, attends=True), residual(c, c, attends=False)])

        self.up, previous = nn.ModuleList(), c
        for level, (c, attends) in reversed(list(enumerate(zip(widths, attention, strict=True)))):
            for _ in range(blocks + 1):
                self.up.append(residual(previous + skips.pop(), c, attends))
                previous = c
            if level > 0:
                self.up.append(Upsample(c))

        self.norm_out = nn.GroupNorm(groups, stem)
        self.conv_out = nn.Conv2d(stem, channels, 3, padding=1)
        _silence(self.conv_out)
        _check_most("parameters", sum(p.numel() for p in self.parameters()), MAX_PARAMETERS)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the network predicts (see `prediction`), N×C×H×W.

        x is N×C×H×W, t N times in (0, T], y N labels; y may be None, or hold `classes`, where there
        is no label.
        """
        # Elsewhere in the field (and in diffusers) times count from 0.
        emb = self.time(timestep_embedding(t - 1, self.conv_in.out_channels))
        if self.label is not None:
            none = torch.full_like(t, self.classes, dtype=torch.long)
            emb = emb + self.label(none if y is None else y)
        skips = [h := self.conv_in(x)]
        for block in self.down:
            skips.append(h := block(h, emb))
        for block in self.middle:
            h = block(h, emb)
        for block in self.up:
            h = block(h if isinstance(block, Upsample) else torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out


def _check(
    *,
    channels: int,
    size: int,
    classes: int,
    width: int,
    mults: tuple[int, ...],
    blocks: int,
    attention: tuple[bool, ...],
    prediction: str,
) -> None:
    """Checks the bounds of every argument: they may come from an untrusted config.json."""
    if not 1 <= len(mults) <= 5:
        raise ValueError(f"mults must be 1 to 5 whole numbers, got {len(mults)}")
    side, levels = 2 ** (len(mults) - 1), len(mults)
    flags = len(attention) == levels and all(type(a) is bool for a in attention)
    types = ", ".join(PREDICTION_TYPES)
    rules: list[tuple[object, bool, str]] = [
        (
            channels,
            channels in (1, 3) and _whole(channels, 1, 3),
            "channels must be 1 (grayscale) or 3 (RGB)",
        ),
        (mults, all(_whole(m, 1, 16) for m in mults), "mults must be whole numbers in 1..16"),
        (
            size,
            _whole(size, 4, 256) and size % side == 0,
            f"size must be a multiple of {side} in 4..256",
        ),
        (classes, _whole(classes, 0, 1000), "classes must be a whole number in 0..1000"),
        (
            width,
            _whole(width, 8, 256) and width % 8 == 0,
            "width must be a multiple of 8 in 8..256",
        ),
        (blocks, _whole(blocks, 1, 8), "blocks must be a whole number in 1..8"),
        (attention, flags, f"attention must be true or false for each of the {levels} levels"),
        (prediction, prediction in PREDICTION_TYPES, f"prediction must be one of {types}"),
    ]
    for value, holds, rule in rules:
        if not holds:
            raise ValueError(f"{rule}, got {value!r}")
    _check_memory(size, width, mults, attention)


def _check_memory(
    size: int, width: int, mults: tuple[int, ...], attention: tuple[bool, ...]
) -> None:
    """Raises ValueError if the layers would need too much memory, before any is taken."""
    sides = [size >> level for level in range(len(mults))]
    widest = max(width * m * side**2 for m, side in zip(mults, sides, strict=True))
    _check_most("width × mult × pixels of a level", widest, MAX_VALUES)
    attends = (*attention[:-1], True)  # the middle, at the last level's side, always does
    largest = max(side for side, a in zip(sides, attends, strict=True) if a)
    _check_most("the side of a level with attention", largest, MAX_ATTENTION)


def _whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _check_most(what: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{what} may be at most {most:,}, got {value:,}: the network is too large")
