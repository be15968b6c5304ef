"""The reverse process: ways to walk from noise to an image, each a generator in the table SAMPLERS.

A sampler sees only denoise(x, t) -> x0 and the schedule; it knows no network, label or seed. It yields
len(times) Steps: the noise at times[0] first, and last the image at times[-1] = 0, where `x is x0`. Nothing is
changed in place, so every Step may be kept. Progress bars, GIFs and "just the image" are consumers.

In the code s is the next time after t (s < t), and alpha_t, sigma_t, … are the schedule's values there, in float64.
A new sampler is one function here and one line in the table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from .diffusion import Denoise
from .schedule import Schedule

RandnLike = Callable[[Tensor], Tensor]  # standard normal noise of the same shape


class Step(NamedTuple):
    """Where the walk is: the time t, the noisy images x (N×C×H×W), and what the network makes of them, x0."""

    t: float
    x: Tensor
    x0: Tensor


Sampler = Callable[[Denoise, Schedule, Tensor, Sequence[float], RandnLike], Iterator[Step]]


def _strides(schedule: Schedule, times: Sequence[float]) -> Iterator[tuple[float, float, float, float, float]]:
    """(t, alpha_t, sigma_t, alpha_s, sigma_s) for each pair of successive times t > s."""
    points = [(t, *(float(c) for c in schedule(t))) for t in times]
    for (t, alpha_t, sigma_t), (_, alpha_s, sigma_s) in pairwise(points):
        yield t, alpha_t, sigma_t, alpha_s, sigma_s


def ddpm(
    denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[float], randn_like: RandnLike
) -> Iterator[Step]:
    """Ancestral sampling: x_s drawn from the posterior q(x_s | x_t, x0). DDPM, Eq. 6, 7 and Algorithm 2."""
    for t, alpha_t, sigma_t, alpha_s, sigma_s in _strides(schedule, times):
        x0 = denoise(x, t)
        yield Step(t, x, x0)
        alpha_ts = alpha_t / alpha_s                      # q(x_t | x_s) = N(alpha_ts x_s, beta_ts), from s to t at once
        beta_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
        mean = (alpha_s * beta_ts * x0 + alpha_ts * sigma_s**2 * x) / sigma_t**2
        x = mean + math.sqrt(beta_ts) * sigma_s / sigma_t * randn_like(x)
    yield Step(times[-1], x, x)


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    x: Tensor,
    times: Sequence[float],
    randn_like: RandnLike,
    *,
    eta: float = 0.0,
) -> Iterator[Step]:
    """The deterministic walk (eta = 0), or with noise up to that of `ddpm` (eta = 1). DDIM, Eq. 12 and 16.

    The noise that remains is taken from the clipped x0, so x_t = alpha x0 + sigma eps holds whatever the network says.
    """
    for t, alpha_t, sigma_t, alpha_s, sigma_s in _strides(schedule, times):
        x0 = denoise(x, t)
        yield Step(t, x, x0)
        eps = (x - alpha_t * x0) / sigma_t
        fresh = eta * sigma_s * math.sqrt(max(0.0, 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2))
        x = alpha_s * x0 + math.sqrt(sigma_s**2 - fresh**2) * eps
        if eta:
            x = x + fresh * randn_like(x)
    yield Step(times[-1], x, x)


def dpm_pp_2m(
    denoise: Denoise, schedule: Schedule, x: Tensor, times: Sequence[float], randn_like: RandnLike
) -> Iterator[Step]:
    """DPM-Solver++(2M): second order at one evaluation a step. Lu et al. 2022 (DPM-Solver++), Algorithm 2.

    Two successive x0 give the slope of x0 over half log-SNR, `lam` (the paper's lambda). The first step has no slope
    yet; the last ends where lam is infinite. Both are of first order, which is `ddim`.
    """
    x0_before, h_before = None, math.nan
    for t, alpha_t, sigma_t, alpha_s, sigma_s in _strides(schedule, times):
        x0 = denoise(x, t)
        yield Step(t, x, x0)
        target = x0
        if sigma_s > 0:
            h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
            if x0_before is not None:
                target = x0 + h / (2 * h_before) * (x0 - x0_before)
            x0_before, h_before = x0, h
        x = sigma_s / sigma_t * x + (alpha_s - alpha_t * sigma_s / sigma_t) * target
    yield Step(times[-1], x, x)


SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm++2m": dpm_pp_2m,
}
