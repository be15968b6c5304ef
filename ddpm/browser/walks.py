"""Every sampler's way through its evaluations as a table of numbers, so that none is written twice.

A sampler only ever adds multiples of what it has seen: the noise it starts from, the x0s that the
network said, and fresh noise. So it is enough to let it walk once over basis vectors: wherever it
asks the network, x is then the list of those multiples. walk.js goes along the table."""

import numpy as np
import torch
from torch import Tensor

from ..schedule import Schedule
from ..settings import Settings

NEGLIGIBLE = 1e-9  # of an x0: what is left over where multiples cancel in float64


def walk(schedule: Schedule, settings: Settings) -> np.ndarray:
    """The walk that settings ask for, of whatever seed, as a table with a row for each evaluation
    of the network, and one for the finished image.

    Row k is [t, alpha, sigma, shown, a, b_1 … b_E, c_1 … c_R] in float32: the network is asked at
    time t about x_k = a·x_(k-1) + sum of b_i·x0_i + sum of c_j·noise_j, where x_(-1) is the noise
    that the walk starts from, E the number of evaluations and R how often fresh noise was called
    for. `shown` is 1 for what the sampler yields, 0 for an evaluation on the way there. The last
    row, at t = 0, is the image.

    Raises ValueError for steps that the schedule does not have."""
    times = settings.times(schedule)
    room = 2 * len(times)  # evaluations, or calls for noise, that no sampler exceeds
    basis = torch.eye(1 + 2 * room, dtype=torch.float64).unbind()
    asked: list[tuple[float, Tensor]] = []
    shown, fresh = set(), 0

    def denoise(x: Tensor, t: float) -> Tensor:
        asked.append((t, x))
        return basis[len(asked)]

    def randn_like(_x: Tensor) -> Tensor:
        nonlocal fresh
        fresh += 1
        return basis[room + fresh]

    for step in settings.walk(denoise, schedule, basis[0], times, randn_like):
        shown.add(len(asked) - 1)
        image = step.x
    shown.add(len(asked))
    asked.append((0.0, image))
    kept = [*range(1, len(asked)), *range(1 + room, 1 + room + fresh)]
    moments = torch.tensor([t for t, _ in asked], dtype=torch.float64)
    heads = torch.stack([moments, *schedule(moments)], dim=1).tolist()
    rows, before = [], basis[0].numpy()
    for k, (head, (_, seen)) in enumerate(zip(heads, asked, strict=True)):
        # Told by the x before it, most samplers need only a few multiples more. Zeros take no room
        # in a compressed page.
        now = seen.numpy()
        a = now[0] / before[0] if before[0] else 0.0
        rest = (now - a * before)[kept]
        rest[np.abs(rest) < NEGLIGIBLE] = 0
        rows.append([*head, k in shown, a, *rest])
        before = now
    return np.array(rows, np.float32)
