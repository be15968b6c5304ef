"""Between tensors and pictures. The only file that knows which value means which gray level."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GIF_WIDTH = 472  # at least: what is narrower looks lost where people share it
# A GIF shows the result, the way to it, and the result again: 2 to 4 seconds. Each frame of the way
# takes FRAME_MS, or less if all of them would take longer than WAY_MS.
FIRST_MS, FRAME_MS, WAY_MS, LAST_MS = 400, 80, 2000, 1600
GAP = 2  # pixels between images, before enlarging
_COLORS = {"L": 16, "RGB": 128}  # in moving frames: noise in all 256 makes larger files for nothing

# Clean images lie in [-LIMIT, LIMIT]. Gray levels 1 to 251 lie where others have them, at
# level / 127.5 - 1. At both ends, where images have most of their pixels, levels lie further apart:
# black 25 such steps below level 1, and 251 to 255 7 steps from each other. A network never hits a
# value exactly, and there its small errors would show, as grain on a black ground or as white of
# the wrong shade. What falls between black and level 1 is an error of black; it becomes black.
# Every gray level still comes back exactly.
_STEPS = torch.tensor([0] + [25] + [1] * 250 + [7] * 4, dtype=torch.float64)
LIMIT = _STEPS.sum().item() / 255
_VALUES = _STEPS.cumsum(0) / 127.5 - LIMIT
_LEVELS = _VALUES.float()  # the value of each gray level 0..255
# Where one gray level ends and the next begins: half-way, and for black half a step below level 1.
_BELOW = torch.cat([torch.ones(1), _STEPS[2:]]) / 2
BETWEEN = (_VALUES[1:] - _BELOW / 127.5).float()


def from_pixels(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-LIMIT, LIMIT], any shape."""
    return _LEVELS.to(pixels.device)[pixels.int()]


def to_pixels(x: Tensor) -> Tensor:
    """float -> uint8 0..255 on the CPU, any shape: the nearest gray level, or black below 1."""
    return torch.bucketize(x.detach().cpu().float(), BETWEEN).to(torch.uint8)


def from_picture(picture: Image.Image, channels: int, size: int) -> Tensor:
    """Any picture as one image 1×C×size×size: resized, gray or RGB, black where transparent."""
    black = Image.new("RGBA", picture.size, "black")
    mode = "L" if channels == 1 else "RGB"
    picture = Image.alpha_composite(black, picture.convert("RGBA")).convert(mode)
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).view(size, size, channels)
    return from_pixels(pixels.permute(2, 0, 1)[None])


def sheet(x: Tensor, *, scale: int = 1) -> Image.Image:
    """N images N×C×H×W (C is 1 or 3) as one picture, as square as possible, row by row.

    The gaps between them are black. scale enlarges every pixel to a square of that side (nearest
    neighbour).
    """
    n, c, h, w = x.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = int(np.ceil(n / columns))
    canvas = np.zeros((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, c), np.uint8)
    for k, image in enumerate(to_pixels(x).permute(0, 2, 3, 1).numpy()):
        top, left = k // columns * (h + GAP), k % columns * (w + GAP)
        canvas[top : top + h, left : left + w] = image
    picture = Image.fromarray(canvas[..., 0] if c == 1 else canvas)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def moving(picture: Image.Image) -> Image.Image:
    """The picture (gray or RGB) with few colors, for a frame that is soon followed by the next."""
    return picture.quantize(_COLORS[picture.mode], dither=Image.Dither.NONE)


def gif(pictures: Sequence[Image.Image]) -> bytes:
    """A GIF file that plays pictures (gray or RGB) of one size for ever.

    It starts with the last picture, which a still preview then shows, and ends with it. Every pixel
    is enlarged so that it is at least GIF_WIDTH pixels wide, and at least twice its size.
    """
    scale = max(2, -(-GIF_WIDTH // pictures[0].width))
    result = pictures[-1].quantize(256, dither=Image.Dither.NONE)
    first, *others = [
        frame.resize((frame.width * scale, frame.height * scale), Image.Resampling.NEAREST)
        for frame in (result, *map(moving, pictures[:-1]), result)
    ]
    file = io.BytesIO()
    first.save(
        file, "GIF", save_all=True, append_images=others, loop=0, duration=durations(len(pictures))
    )
    return file.getvalue()


def durations(count: int) -> list[int]:
    """For how many milliseconds a GIF of `count` pictures shows each frame: the last one first."""
    way = min(FRAME_MS, WAY_MS // max(1, count - 1)) // 10 * 10  # a GIF counts in hundredths
    return [FIRST_MS, *[max(way, 20)] * (count - 1), LAST_MS]
