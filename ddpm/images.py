"""Between tensors and pictures. The only file that knows what [-1, 1] means in pixels."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GIF_FRAMES = 40         # enough for the eye, whatever the number of steps
FRAME_MS, LAST_MS = 80, 2000
_GAP = 2                # pixels between images, before enlarging
_COLORS = {1: 16, 3: 128}  # in the moving frames of a GIF: noise in all 256 makes larger files and looks the same


def from_pixels(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1], any shape."""
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """float in [-1, 1] -> uint8 0..255 on the CPU, any shape; what lies outside is clamped."""
    return ((x.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def grid(x: Tensor, *, scale: int = 1) -> Image.Image:
    """N images N×C×H×W (C is 1 or 3) as one picture, as square as can be, row by row, black in between.

    scale enlarges every pixel to a square of that side (nearest neighbour).
    """
    n, c, h, w = x.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = int(np.ceil(n / columns))
    sheet = np.zeros((rows * (h + _GAP) - _GAP, columns * (w + _GAP) - _GAP, c), np.uint8)
    for k, image in enumerate(to_pixels(x).permute(0, 2, 3, 1).numpy()):
        top, left = k // columns * (h + _GAP), k % columns * (w + _GAP)
        sheet[top : top + h, left : left + w] = image
    picture = Image.fromarray(sheet[..., 0] if c == 1 else sheet)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def pick_frames(count: int) -> list[int]:
    """Which of `count` frames a GIF shows: at most GIF_FRAMES, evenly spread, the first and the last among them."""
    shown = min(count, GIF_FRAMES)
    return [round(k * (count - 1) / max(shown - 1, 1)) for k in range(shown)]


def gif(frames: Sequence[Tensor]) -> bytes:
    """A GIF file that plays frames (each N×C×H×W) as grids, for ever, holding the last one for two seconds.

    Every pixel is enlarged so that the picture is about 256 pixels wide, but at least twice its size.
    """
    scale = max(2, round(256 / grid(frames[0]).width))
    colors = [_COLORS[frames[0].shape[1]]] * (len(frames) - 1) + [256]
    pictures = [grid(x, scale=scale).quantize(n, dither=Image.Dither.NONE) for x, n in zip(frames, colors, strict=True)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], loop=0,
                     duration=[FRAME_MS] * (len(pictures) - 1) + [LAST_MS])
    return file.getvalue()
