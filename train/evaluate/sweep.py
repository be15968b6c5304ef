"""Samplers compared: the Fréchet distance by sampler, grid and number of network evaluations, from
the same seeds.

A line of JSON is kept for each cell as soon as it is done, so that a sweep can be stopped and taken
up again."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from ddpm import SAMPLERS, Pipeline
from ddpm.files import write_atomic
from ddpm.samplers import affordable_steps, evaluations

from ..processes import is_first
from . import plot
from .drawing import draw, labels_of
from .yardstick import Yardstick

_SAME = (
    "weights_sha256",
    "judge_sha256",
    "samples",
    "labels",
    "sampler",
    "grid",
    "steps",
)  # tell cells apart


class Plan(NamedTuple):
    """What to compare: each of samplers (None: all) with each grid (None: the sampler's own) at
    each of `wanted` numbers of network evaluations, by `samples` images. labels: ask for the class
    that each seed draws."""

    samples: int
    labels: bool
    samplers: list[str] | None
    wanted: list[int]
    grids: list[str] | None


class Cell(NamedTuple):
    """One combination. steps: the most that cost no more than the wanted evaluations; cost: what
    they really cost."""

    sampler: str
    grid: str
    wanted: int
    steps: int
    cost: int


def cells(plan: Plan, pipeline: Pipeline) -> list[Cell]:
    """All of them. Raises ValueError for what is unknown or out of range."""
    found = []
    for sampler in plan.samplers or SAMPLERS:
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; choose from {', '.join(SAMPLERS)}")
        for grid in plan.grids or [SAMPLERS[sampler].grid]:
            for wanted in plan.wanted:
                steps = affordable_steps(sampler, wanted)
                pipeline.model.schedule.times(steps, grid)  # raises if it cannot be
                found.append(Cell(sampler, grid, wanted, steps, evaluations(sampler, steps)))
    return found


def run(
    pipeline: Pipeline, yardstick: Yardstick, plan: Plan, out: Path, picture: Path | None
) -> None:
    """Computes the cells that out does not hold yet, prints the table, draws the picture.

    Raises ValueError or OSError with a line for the user.
    """
    if picture:
        plot.check()
    wanted = cells(plan, pipeline)
    origin = {
        "weights_sha256": pipeline.config.get("sha256"),
        "judge_sha256": yardstick.config["sha256"],
        "samples": plan.samples,
        "labels": plan.labels,
    }
    known = {_key(line): line["frechet"] for line in read(out)}
    if dist.is_initialized():
        dist.barrier()  # all have read the file before the first one writes
    keys = {cell: _key(origin | cell._asdict()) for cell in wanted}
    todo = {
        keys[cell]: cell for cell in wanted if keys[cell] not in known
    }  # two wanted costs may come to one cell
    with tqdm(
        total=len(todo) * plan.samples, unit="image", leave=False, disable=not is_first()
    ) as bar:
        for key, cell in todo.items():
            bar.set_description(f"{cell.sampler}, {cell.grid}, {cell.cost}")
            known[key] = _compute(cell, pipeline, yardstick, origin, out, bar.update)
    if is_first():
        figures, floor = (
            {cell: known[key] for cell, key in keys.items()},
            yardstick.floor_frechet(plan.samples),
        )
        print(table(figures, plan.samples, floor))
        if picture:
            plot.draw(picture, curves(figures), floor, plan.samples)


def _compute(
    cell: Cell,
    pipeline: Pipeline,
    yardstick: Yardstick,
    origin: dict[str, Any],
    out: Path,
    progress: Callable[[int], object],
) -> float:
    """Draws the images of one cell, and adds its line to the file. Of several processes only the
    first measures."""
    started = time.perf_counter()
    seeds = range(origin["samples"])
    labels = labels_of(pipeline, seeds, labelled=origin["labels"])
    pixels = draw(
        pipeline,
        seeds,
        labels=labels,
        sampler=cell.sampler,
        grid=cell.grid,
        steps=cell.steps,
        progress=progress,
    )
    if not is_first():
        return math.nan
    figure = yardstick.frechet(pixels)
    line = (
        origin
        | cell._asdict()
        | {
            "frechet": figure,
            "seconds": round(time.perf_counter() - started, 2),
            "torch": torch.__version__,
        }
    )
    write_atomic(out, "".join(json.dumps(each) + "\n" for each in [*read(out), line]).encode())
    return figure


def read(path: Path) -> list[dict[str, Any]]:
    """The cells that are there; a line that a power cut broke off is passed over."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if (
            isinstance(line, dict)
            and {*_SAME, "frechet"} <= line.keys()
            and isinstance(line["frechet"], float)
        ):
            lines.append(line)
    return lines


def table(figures: dict[Cell, float], samples: int, floor: float) -> str:
    """Rows are samplers with their grids, columns numbers of evaluations; * marks the best grid of
    a sampler in a column, and < the one that is best over all columns (lowest geometric mean)."""
    columns = sorted({cell.wanted for cell in figures})
    rows = [("sampler", "grid", *map(str, columns), "")]
    grids = _by_grid(figures)
    for (sampler, grid), row in grids.items():
        rivals = [other for (name, _), other in grids.items() if name == sampler]
        best = {wanted: min(other[wanted] for other in rivals) for wanted in row}
        shown = [
            f"{row[wanted]:.3f}{'*' if row[wanted] == best[wanted] else ' '}"
            if wanted in row
            else "- "
            for wanted in columns
        ]
        rows.append((sampler, grid, *shown, "<" if grid == _best_grid(grids, sampler) else ""))
    head = f"Fréchet distance of {samples:,} images, by network evaluations; as many real test images: {floor:.3f}"
    return "\n".join(
        [
            head,
            *aligned(rows),
            "* best grid of the sampler; < best over all columns (geometric mean)",
        ]
    )


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table: the first two columns, which are words, to the left, the others to the
    right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def curves(figures: dict[Cell, float]) -> dict[str, list[tuple[int, float]]]:
    """For each sampler, on its best grid: (true cost, Fréchet distance), by cost."""
    grids = _by_grid(figures)
    best = {sampler: _best_grid(grids, sampler) for sampler, _ in grids}
    found = {f"{sampler}, {grid}": set() for sampler, grid in best.items()}
    for cell, figure in figures.items():
        if cell.grid == best[cell.sampler]:
            found[f"{cell.sampler}, {cell.grid}"].add((cell.cost, figure))
    return {name: sorted(points) for name, points in found.items()}


def _by_grid(figures: dict[Cell, float]) -> dict[tuple[str, str], dict[int, float]]:
    """(sampler, grid) -> wanted evaluations -> Fréchet distance."""
    rows: dict[tuple[str, str], dict[int, float]] = {}
    for cell, figure in figures.items():
        rows.setdefault((cell.sampler, cell.grid), {})[cell.wanted] = figure
    return rows


def _best_grid(grids: dict[tuple[str, str], dict[int, float]], sampler: str) -> str:
    """The grid of the lowest geometric mean. All grids of a sampler have the same columns."""
    means = {
        grid: sum(math.log(max(figure, 1e-12)) for figure in row.values())
        for (name, grid), row in grids.items()
        if name == sampler
    }
    return min(means, key=means.__getitem__)


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in _SAME)
