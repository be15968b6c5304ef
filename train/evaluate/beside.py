"""Images beside each other, to be looked at: as they are, and eight times as bright.

On a dark ground a faint grain or haze is seen only when it is brightened."""

import torch
from PIL import Image
from torch import Tensor

BRIGHTER, SCALE = 8, 2
_SHOWN, _GAP = 16, 8


def strip(images: Tensor, factor: int = 1) -> Image.Image:
    """Images, uint8 N×C×H×W, side by side, `factor` times as bright."""
    bright = (images.int() * factor).clamp(max=255).byte()
    rows = torch.cat(list(bright), 2).permute(1, 2, 0).numpy()
    found = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)
    return found.resize((found.width * SCALE, found.height * SCALE), Image.Resampling.NEAREST)


def picture(real: Tensor, images: Tensor) -> Image.Image:
    """Real images (first row), others (second row), and both again eight times as bright.

    The first sixteen of each, uint8 N×C×H×W.
    """
    rows = [strip(each[:_SHOWN], factor) for factor in (1, BRIGHTER) for each in (real, images)]
    high = rows[0].height
    sheet = Image.new("RGB", (max(row.width for row in rows), 4 * high + 3 * _GAP), "white")
    for k, row in enumerate(rows):
        sheet.paste(row, (0, k * (high + _GAP)))
    return sheet
