"""The noise schedules, and the grids of times that samplers walk along.

This file knows neither networks nor images. It answers two questions:
how much signal and how much noise an image holds at time t (`Schedule.__call__`),
and at which times a sampler evaluates the network (`Schedule.times`).
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor


def linear_betas(T: int) -> Tensor:
    """Betas from 1e-4 to 0.02 over 1000 steps, rescaled for other T.

    For T below 20 the last time is not pure noise. DDPM, Section 4.
    """
    return (torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * (1000 / T)).clamp(max=0.999)


def cosine_betas(T: int) -> Tensor:
    """Betas for which alpha_bar falls like a squared cosine.

    Improved DDPM (Nichol & Dhariwal 2021), Eq. 17.
    """
    u = torch.arange(T + 1, dtype=torch.float64) / T
    alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"cosine": cosine_betas, "linear": linear_betas}


class Bounds(NamedTuple):
    """The numbers that a parameter may be, both ends included."""

    low: float
    high: float

    def check(self, name: str, value: object) -> None:
        """Raises ValueError unless value is a number in here; NaN is in no range."""
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        number = cast(float, value) if plain else math.nan
        if not self.low <= number <= self.high:  # NaN compares false
            raise ValueError(f"{name} must be a number in {self}")

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"


class Grid(NamedTuple):
    """A way to spread times: (schedule, steps, *parameters) -> times, and the parameters' bounds.

    The function has the parameters' defaults.
    """

    times: Callable[..., list[float]]
    parameters: dict[str, Bounds]


def uniform(schedule: "Schedule", steps: int) -> list[float]:
    """Equal strides from T down to 0 (known elsewhere as "trailing")."""
    return power(schedule, steps, 1.0)


def power(schedule: "Schedule", steps: int, rho: float = 0.5) -> list[float]:
    """t = T * u**rho, u uniform from 1 to 0.

    rho below 1 spends more of the steps where the noise is strong, rho above 1 where it is weak.
    """
    return [schedule.T * (1 - k / steps) ** rho for k in range(steps + 1)]


def leading(schedule: "Schedule", steps: int) -> list[float]:
    """Multiples of T // steps, plus 1: DDIM's own grid.

    It starts at 1 + (steps - 1) * (T // steps): for few steps far *below* T, where an image is not
    all noise yet.
    """
    stride = schedule.T // steps
    return [float(1 + k * stride) for k in reversed(range(steps))] + [0.0]


def linspace(schedule: "Schedule", steps: int) -> list[float]:
    """Equal strides from T down to 1, then 0: both ends of the trained times are visited."""
    return [1 + (schedule.T - 1) * (1 - k / max(steps - 1, 1)) for k in range(steps)] + [0.0]


def karras(
    schedule: "Schedule",
    steps: int,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> list[float]:
    """Equal strides in (sigma / alpha)**(1 / rho), from sigma_max to sigma_min, then 0.

    Both ends are first clipped to what the schedule has from T to 1. Karras et al. 2022, Eq. 5.
    """
    Bounds(sigma_min, GRIDS["karras"].parameters["sigma_max"].high).check("sigma_max", sigma_max)
    # sigma / alpha at t = 1..T
    noise = (-_log_snr(schedule, torch.device("cpu"))[1:] / 2).exp().numpy()
    low, high = np.clip((sigma_min, sigma_max), noise[0], noise[-1])
    roots = np.linspace(high ** (1 / rho), low ** (1 / rho), steps)
    times = np.interp(np.log(roots) * rho, np.log(noise), np.arange(1, schedule.T + 1)).tolist()
    if any(s >= t for t, s in pairwise(times)):
        raise ValueError(
            f"sigma_min and sigma_max leave no room for {steps} steps: "
            f"this schedule has sigma / alpha in {noise[0]:.2g}..{noise[-1]:.2g}"
        )
    return [*times, 0.0]


class LearnedWalk(NamedTuple):
    """A walk that `python -m train.walks` learned.

    times: of the evaluations, as falling shares of T. reach: of each step but the first, how far it
    extrapolates (`ddpm.samplers.learned`).
    """

    times: list[float]
    reach: list[float]


LEARNED_FILE = Path(__file__).parent / "learned.json"  # what `python -m train.walks` wrote
LEARNED = {
    len(walk["times"]): LearnedWalk(**walk)
    for walk in json.loads(LEARNED_FILE.read_text(encoding="utf-8"))["walks"]
}


def learned(schedule: "Schedule", steps: int) -> list[float]:
    """The times of a learned walk if there is one of so many steps, else those of `uniform`."""
    if steps not in LEARNED:
        return uniform(schedule, steps)
    return [schedule.T * share for share in LEARNED[steps].times] + [0.0]


_SIGMAS = Bounds(1e-4, 1e5)
GRIDS: dict[str, Grid] = {
    "power": Grid(power, {"rho": Bounds(0.1, 3)}),
    "uniform": Grid(uniform, {}),
    "leading": Grid(leading, {}),
    "linspace": Grid(linspace, {}),
    "karras": Grid(karras, {"rho": Bounds(0.1, 100), "sigma_min": _SIGMAS, "sigma_max": _SIGMAS}),
    "learned": Grid(learned, {}),
}


def parse_grid(text: str) -> tuple[Grid, list[float]]:
    """A grid and its parameters, written name or name(1, 2).

    Raises ValueError that names the valid grids, or the parameters that this one takes.
    """
    found = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text) if isinstance(text, str) else None
    name, inside = found.groups() if found else ("", None)
    if name not in GRIDS:
        known = ", ".join(GRIDS)
        raise ValueError(
            f"unknown grid {text!r}; choose from {known}, with parameters as in power(0.5)"
        )
    grid = GRIDS[name]
    names = list(grid.parameters)
    takes = f"up to {len(names)} numbers: {name}({', '.join(names)})" if names else "no parameters"
    refusal = ValueError(f"grid {text!r}: {name} takes {takes}")
    try:
        values = [float(value) for value in inside.split(",")] if inside and inside.strip() else []
    except ValueError:
        raise refusal from None
    if len(values) > len(names):
        raise refusal
    for parameter, value in zip(names, values, strict=False):  # those left out have defaults
        grid.parameters[parameter].check(parameter, value)
    return grid, values


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving noise schedule: a value, equal by value, hashable and JSON-able.

    x_t = alpha(t) * x0 + sigma(t) * eps, with alpha**2 + sigma**2 = 1 and alpha(0) = 1
    (DDPM, Eq. 4; alpha(t) is the square root of the paper's alpha_bar_t). t runs from 0 (clean) to
    T (noise).

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

        Whole numbers give the betas' own values. Between them log-SNR is interpolated, so that a
        solver may evaluate there; between 0 and 1, where log-SNR is infinite at one end, sigma
        grows in proportion to t.
        """
        t = torch.as_tensor(t, dtype=torch.float64)
        log_snr = _log_snr(self, t.device)
        below, above = t.floor().long().clamp(1, self.T), t.ceil().long().clamp(1, self.T)
        log_snr = torch.lerp(log_snr[below], log_snr[above], t - t.floor())
        sigma = torch.sigmoid(-log_snr).sqrt() * t.clamp(max=1)
        alpha = torch.where(t < 1, (1 - sigma**2).sqrt(), torch.sigmoid(log_snr).sqrt())
        return alpha, sigma

    def times(self, steps: int, grid: str = "power") -> list[float]:
        """The steps + 1 times that a sampler walks through, falling to 0.

        The first is T, with `leading` and `karras` a time below it. grid is a key of GRIDS, with
        parameters in parentheses unless the defaults are meant: "karras(7, 0.05, 40)".
        Raises ValueError for an unknown grid, or steps outside 1..T.
        """
        found, parameters = parse_grid(grid)
        if type(steps) is not int or not 1 <= steps <= self.T:
            raise ValueError(f"steps must be a whole number in 1..{self.T}, got {steps!r}")
        return found.times(self, steps, *parameters)


@cache  # never dropped: a captured CUDA graph reads the table where it lies
def _log_snr(schedule: Schedule, device: torch.device) -> Tensor:
    """log(alpha**2 / sigma**2) at t = 0..T; the entry at 0 is infinite and never read."""
    log_alpha_bar = torch.log1p(-SCHEDULES[schedule.name](schedule.T)).cumsum(0)
    log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
    return torch.cat([torch.tensor([math.inf], dtype=torch.float64), log_snr]).to(device)
