"""The process: adding noise, the loss that trains a network to remove it, and the denoiser.

Everything here is algebra on x_t = alpha * x0 + sigma * eps. If x_t is known, any one of x0, eps
and v = alpha * eps - sigma * x0 gives the others, so a network may be trained to predict any of
the three; the rest of the program uses x0 alone.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .pixels import LIMIT
from .schedule import Schedule
from .unet import Network, UNet

Denoise = Callable[[Tensor, float], Tensor]
"""(x_t, t) -> x0; labels, guidance and clipping live inside."""

Formula = Callable[[Tensor, Tensor, Tensor | float, Tensor | float], Tensor]


class Prediction(NamedTuple):
    """What a network may be trained to predict. All arguments broadcast against N×C×H×W.

    target: (x0, eps, alpha, sigma) -> what the network should predict.
    x0: (its prediction, x_t, alpha, sigma) -> x0.
    """

    target: Formula
    x0: Formula


PREDICTIONS: dict[str, Prediction] = {
    "v": Prediction(  # Salimans & Ho 2022, Section 4 and Appendix D
        target=lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
        x0=lambda out, x, alpha, sigma: alpha * x - sigma * out,
    ),
    "eps": Prediction(  # DDPM, Eq. 12 and 15
        target=lambda x0, eps, alpha, sigma: eps,
        x0=lambda out, x, alpha, sigma: (x - sigma * out) / alpha,
    ),
    "x0": Prediction(target=lambda x0, eps, alpha, sigma: x0, x0=lambda out, x, alpha, sigma: out),
}


def coefficients(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at N times, as float32 N×1×1×1."""
    alpha, sigma = schedule(t)
    return alpha.float()[:, None, None, None], sigma.float()[:, None, None, None]


def add_noise(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """A sample of q(x_t | x0) in closed form. DDPM, Eq. 4.

    x0 and eps are N×C×H×W, t are N times in [0, T].
    """
    alpha, sigma = coefficients(schedule, t)
    return alpha * x0 + sigma * eps


def loss(
    model: UNet, x0: Tensor, y: Tensor | None, t: Tensor, eps: Tensor, *, huber: float = 0.0
) -> Tensor:
    """Mean squared error of the model's prediction from x_t, a scalar.

    DDPM, Algorithm 1 and Eq. 14.

    Args:
        x0, eps: clean images and standard normal noise, N×C×H×W.
        y: N labels, `model.classes` where there is none; or None.
        t: N times in 1..T.
        huber: above 0, the pseudo-Huber loss sqrt(error**2 + huber**2) - huber of each pixel in
            place of the square: errors far above huber count by their size alone, as in Song &
            Dhariwal 2023, "Improved Techniques for Training Consistency Models", Section 3.3.
    """
    prediction = PREDICTIONS[model.prediction]
    alpha, sigma = coefficients(model.schedule, t)
    out: Tensor = model(alpha * x0 + sigma * eps, t, y).float()
    square = (out - prediction.target(x0, eps, alpha, sigma)).square()
    return ((square + huber**2).sqrt() - huber).mean() if huber else square.mean()


@lru_cache(4096)  # a walk asks for the same times as the one before
def _alpha_sigma(schedule: Schedule, t: float) -> tuple[float, float]:
    """alpha and sigma at one time."""
    alpha, sigma = schedule(t)
    return float(alpha), float(sigma)


def denoiser(
    model: UNet, y: Tensor | None = None, *, guidance: float = 0.0, run: Network | None = None
) -> Denoise:
    """Turns a model into the function that samplers call: (x_t, t) -> x0, without gradients.

    x0 is clamped to [-LIMIT, LIMIT], where images live; x_t never is.

    Args:
        y: N labels, `model.classes` where there is none; or None for none at all.
        guidance: the weight w of classifier-free guidance, (1 + w) * with label - w * without.
            Ho & Salimans 2022, Eq. 6; 0 takes the labelled prediction as it is.
        run: computes the network; the model itself if left out.

    Raises ValueError for guidance without labels.
    """
    if guidance and y is None:
        raise ValueError("guidance needs a label: say what to guide towards")
    network: Network = run or model

    def predict(x: Tensor, t: float) -> Tensor:
        if not guidance or y is None:
            return network(x, x.new_full((len(x),), t), y)
        both = torch.cat([y, torch.full_like(y, model.classes)])  # one call: half the overhead
        out = network(x.repeat(2, 1, 1, 1), x.new_full((2 * len(x),), t), both)
        with_label, without = out.chunk(2)
        return (1 + guidance) * with_label - guidance * without

    def denoise(x: Tensor, t: float) -> Tensor:
        alpha, sigma = _alpha_sigma(model.schedule, t)
        with torch.no_grad():
            x0 = PREDICTIONS[model.prediction].x0(predict(x, t), x, alpha, sigma)
            return x0.clamp(-LIMIT, LIMIT)

    return denoise
