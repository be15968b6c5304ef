"""Every sampler's way through its evaluations as a table of numbers, so that none is written twice.

A sampler only ever adds multiples of what it has seen: the noise it starts from, the x0s that the
network said, and fresh noise. So it is enough to let it walk once over basis vectors: wherever it
asks the network, x is then the list of those multiples. The page walks along the table (walk.js)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..samplers import SAMPLERS
from ..schedule import Schedule

NEGLIGIBLE = 1e-9  # of an x0 in [-1, 1]: what is left over where multiples cancel in float64


def walk(schedule: Schedule, sampler: str, times: Sequence[float]) -> np.ndarray:
    """The walk of a sampler over times (falling to 0), as a table with a row for each evaluation of
    the network, and one for the finished image.

    Row k is [t, alpha, sigma, shown, a, b_1 … b_E, c_1 … c_R] in float32: the network is asked at
    time t about x_k = a·x_(k-1) + sum of b_i·x0_i + sum of c_j·noise_j, where x_(-1) is the noise
    that the walk starts from, E the number of evaluations and R how often fresh noise was called
    for. `shown` is 1 for what the sampler yields, 0 for an evaluation on the way there. The last
    row, at t = 0, is the image."""
    room = 2 * len(times)  # evaluations, or calls for noise, that no sampler exceeds
    basis: Any = np.eye(1 + 2 * room)  # samplers only add and multiply: numpy's vectors will do
    asked: list[tuple[float, Any]] = []
    shown, fresh = set(), 0

    def denoise(x: Any, t: float) -> Any:
        asked.append((t, x))
        return basis[len(asked)]

    def randn_like(_x: Any) -> Any:
        nonlocal fresh
        fresh += 1
        return basis[room + fresh]

    for step in SAMPLERS[sampler](denoise, schedule, basis[0], times, randn_like):
        shown.add(len(asked) - 1)
    shown.add(len(asked))
    kept = [*range(1, 1 + len(asked)), *range(1 + room, 1 + room + fresh)]
    asked.append((0.0, step.x))
    alphas, sigmas = schedule(torch.tensor([t for t, _ in asked], dtype=torch.float64))
    rows, before = [], basis[0]
    for k, (t, x) in enumerate(asked):
        # Told by the x before it, most samplers need only a few multiples more. Zeros take no room
        # in a compressed page.
        a = x[0] / before[0] if before[0] else 0.0
        rest = (x - a * before)[kept]
        rest[np.abs(rest) < NEGLIGIBLE] = 0
        rows.append([t, alphas[k].item(), sigmas[k].item(), k in shown, a, *rest])
        before = x
    return np.array(rows, np.float32)
