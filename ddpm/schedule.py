"""When to be how noisy: the noise schedules, and the lists of times that samplers walk along.

This file knows neither networks nor images. It answers two questions:
how much signal and how much noise an image holds at time t (`Schedule.__call__`),
and at which times a sampler should look (`Schedule.times`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


def linear_betas(T: int) -> Tensor:
    """Betas from 1e-4 to 0.02 over 1000 steps, rescaled for other T. DDPM, Section 4."""
    return (torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * (1000 / T)).clamp(max=0.999)


def cosine_betas(T: int) -> Tensor:
    """Betas for which alpha_bar falls like a squared cosine. Improved DDPM (Nichol & Dhariwal 2021), Eq. 17."""
    u = torch.arange(T + 1, dtype=torch.float64) / T
    alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"cosine": cosine_betas, "linear": linear_betas}


def uniform(T: int, steps: int) -> list[float]:
    """Equal strides from T down to 0 (known elsewhere as "trailing")."""
    return [T * (1 - k / steps) for k in range(steps + 1)]


def power(T: int, steps: int, rho: float = 0.5) -> list[float]:
    """t = T * u**rho, u uniform. Below 1, rho spends the steps where the noise is strong: few steps look far better."""
    return [T * (1 - k / steps) ** rho for k in range(steps + 1)]


def leading(T: int, steps: int) -> list[float]:
    """Multiples of T // steps, plus 1. DDIM's own grid; it starts *below* T, unless steps divides T - 1 or is T."""
    stride = T // steps
    return [float(1 + k * stride) for k in reversed(range(steps))] + [0.0]


def linspace(T: int, steps: int) -> list[float]:
    """Equal strides from T down to 1, then 0: both ends of the trained times are visited."""
    return [1 + (T - 1) * (1 - k / max(steps - 1, 1)) for k in range(steps)] + [0.0]


GRIDS: dict[str, Callable[[int, int], list[float]]] = {
    "power": power,
    "uniform": uniform,
    "leading": leading,
    "linspace": linspace,
}


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving noise schedule: a value, equal by value, hashable and JSON-able.

    x_t = alpha(t) * x0 + sigma(t) * eps, with alpha**2 + sigma**2 = 1 and alpha(0) = 1 (DDPM, Eq. 4;
    alpha(t) is the square root of the paper's alpha_bar_t). t runs from 0 (clean) to T (noise).

    Raises ValueError for an unknown name or T outside 1..10000.
    """

    name: str = "cosine"
    T: int = 1000

    def __post_init__(self) -> None:
        if self.name not in list(SCHEDULES):
            raise ValueError(f"unknown schedule {self.name!r}; choose from {', '.join(SCHEDULES)}")
        if type(self.T) is not int or not 1 <= self.T <= 10_000:
            raise ValueError(f"T must be a whole number in 1..10000, got {self.T!r}")

    def __call__(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """alpha and sigma at times t in [0, T], as float64 tensors of t's shape, on t's device.

        Whole numbers give the betas' own values. Between them log-SNR is interpolated, so that a solver may
        land there; between 0 and 1, where log-SNR is infinite at one end, sigma grows in proportion to t.
        """
        t = torch.as_tensor(t, dtype=torch.float64)
        log_snr = _log_snr(self, t.device)
        below, above = t.floor().long().clamp(1, self.T), t.ceil().long().clamp(1, self.T)
        log_snr = torch.lerp(log_snr[below], log_snr[above], t - t.floor())
        sigma = torch.sigmoid(-log_snr).sqrt() * t.clamp(max=1)
        alpha = torch.where(t < 1, (1 - sigma**2).sqrt(), torch.sigmoid(log_snr).sqrt())
        return alpha, sigma

    def times(self, steps: int, grid: str = "power") -> list[float]:
        """The steps + 1 times that a sampler walks through: falling, from T (for `leading`: near T) to 0.

        Raises ValueError unless 1 <= steps <= T and grid is a key of GRIDS.
        """
        if grid not in list(GRIDS):
            raise ValueError(f"unknown grid {grid!r}; choose from {', '.join(GRIDS)}")
        if type(steps) is not int or not 1 <= steps <= self.T:
            raise ValueError(f"steps must be a whole number in 1..{self.T}, got {steps!r}")
        return GRIDS[grid](self.T, steps)


@cache  # never dropped: a captured CUDA graph reads the table where it lies
def _log_snr(schedule: Schedule, device: torch.device) -> Tensor:
    """log(alpha**2 / sigma**2) at t = 0..T; the entry at 0 is infinite and never read."""
    log_alpha_bar = torch.log1p(-SCHEDULES[schedule.name](schedule.T)).cumsum(0)
    log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
    return torch.cat([torch.tensor([math.inf], dtype=torch.float64), log_snr]).to(device)
