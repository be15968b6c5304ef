"""One moment of a walk, and which of its moments a film shows."""

from typing import NamedTuple

from torch import Tensor

GIF_FRAMES = 40  # enough for the eye, whatever the number of steps


class Frame(NamedTuple):
    """One moment of a walk: noisy images, and the clean ones that the network predicts from them.

    t: the time. x: noisy images, N×C×H×W. x0: the prediction, same shape.
    nfe: network evaluations spent on each image so far. snr: the signal-to-noise ratio
    alpha(t)**2 / sigma(t)**2, infinite at t = 0.
    """

    t: float
    x: Tensor
    x0: Tensor
    nfe: int
    snr: float


def pick_frames(count: int) -> list[int]:
    """Which of `count` frames a film shows: at most GIF_FRAMES, evenly spread, with both ends."""
    shown = min(count, GIF_FRAMES)
    return [round(k * (count - 1) / max(shown - 1, 1)) for k in range(shown)]
