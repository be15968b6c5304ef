"""Samplers compared: the worst judge over its floor, by sampler, grid and number of network
evaluations, from the same seeds.

A line of JSON is kept for each cell as soon as it is done, so that a sweep can be stopped and
continued."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from ddpm import SAMPLERS, Pipeline, Settings
from ddpm.files import write_atomic
from ddpm.samplers import affordable_steps, evaluations

from ..processes import is_first
from . import panel, plot
from .drawing import draw, labels_of
from .report import aligned
from .yardstick import Sample, Yardstick

DISTILLED = "its own times"  # in the place of the grid of a distilled model
# These tell cells apart.
_SAME = ("weights_sha256", "judge_sha256", "samples", "labels", "sampler", "grid", "steps")


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
    """All of them; of a distilled model its own walks. Raises ValueError for what is unknown or out
    of range."""
    if pipeline.walks:
        if plan.samplers or plan.grids:
            raise ValueError(
                "a distilled model has its own walks: leave out --samplers and --grids"
            )
        name = pipeline.usual["sampler"]
        return [Cell(name, DISTILLED, n, n, n) for n in sorted(pipeline.walks)]
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
        "judge_sha256": yardstick.config["reference_sha256"],  # the networks' statistics are in it
        "samples": plan.samples,
        "labels": plan.labels,
    }
    known = {_key(line): float(line["ratio"]) for line in read(out)}
    if dist.is_initialized():
        dist.barrier()  # all have read the file before the first one writes
    keys = {cell: _key(origin | cell._asdict()) for cell in wanted}
    # Two wanted costs may come to one cell.
    todo = {keys[cell]: cell for cell in wanted if keys[cell] not in known}
    floor = panel.floor(yardstick, plan.samples) if todo and is_first() else None
    with tqdm(
        total=len(todo) * plan.samples, unit="image", leave=False, disable=not is_first()
    ) as bar:
        for key, cell in todo.items():
            bar.set_description(f"{cell.sampler}, {cell.grid}, {cell.cost}")
            pixels = _drawn(cell, pipeline, origin, bar.update)
            if floor is not None:  # of several processes only the first measures
                known[key] = _judged(cell, pixels, yardstick, floor, origin, out)
    if is_first():
        figures = {cell: known[key] for cell, key in keys.items()}
        print(table(figures, plan.samples))
        if picture:
            plot.draw(picture, curves(figures | _students(out, plan)), plan.samples)


def _drawn(
    cell: Cell, pipeline: Pipeline, origin: dict[str, Any], progress: Callable[[int], object]
) -> Tensor:
    seeds = range(origin["samples"])
    grid = None if cell.grid == DISTILLED else cell.grid
    how = Settings([0], sampler=cell.sampler, grid=grid, steps=cell.steps)
    labels = labels_of(pipeline, seeds, labelled=origin["labels"])
    return draw(pipeline, how, seeds, labels=labels, progress=progress)


def _judged(
    cell: Cell,
    pixels: Tensor,
    yardstick: Yardstick,
    floor: panel.Floor,
    origin: dict[str, Any],
    out: Path,
) -> float:
    """What the worst judge says over its floor; adds the line of the cell to the file."""
    found = panel.figures(Sample(yardstick, pixels))
    verdict = panel.worst(found, floor)
    line = origin | cell._asdict() | verdict._asdict()
    line |= {"panel": panel.ratios(found, floor), "torch": torch.__version__}
    write_atomic(out, "".join(json.dumps(each) + "\n" for each in [*read(out), line]).encode())
    return verdict.ratio


def _students(out: Path, plan: Plan) -> dict[Cell, float]:
    """The cells of distilled models that the file holds, for the picture."""
    return {
        Cell(*(line[name] for name in Cell._fields)): line["ratio"]
        for line in read(out)
        if line["grid"] == DISTILLED
        and (line["samples"], line["labels"]) == (plan.samples, plan.labels)
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The cells that are there; a line that a power cut left incomplete is skipped."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if (
            isinstance(line, dict)
            and {*_SAME, *Cell._fields, "ratio"} <= line.keys()
            and isinstance(line["ratio"], float)
        ):
            lines.append(line)
    return lines


def table(figures: dict[Cell, float], samples: int) -> str:
    """Rows are samplers with their grids, columns numbers of evaluations; * marks the best grid of
    a sampler in a column, and < the one that is best over all columns (lowest geometric mean)."""
    columns = sorted({cell.wanted for cell in figures})
    rows = [("sampler", "grid", *map(str, columns), "")]
    grids = _by_grid(figures)
    for (sampler, grid), row in grids.items():
        rivals = [other for (name, _), other in grids.items() if name == sampler]
        best = {wanted: min(other[wanted] for other in rivals) for wanted in row}
        shown = [
            f"{row[wanted]:.2f}{'*' if row[wanted] == best[wanted] else ' '}"
            if wanted in row
            else "- "
            for wanted in columns
        ]
        rows.append((sampler, grid, *shown, "<" if grid == _best_grid(grids, sampler) else ""))
    head = f"The worst judge over its floor, {samples:,} images, by network evaluations"
    return "\n".join(
        [
            head,
            *aligned(rows),
            "* best grid of the sampler; < best over all columns (geometric mean)",
        ]
    )


def curves(figures: dict[Cell, float]) -> dict[str, list[tuple[int, float]]]:
    """For each sampler, on its best grid: (true cost, worst judge over its floor), by cost; for
    distilled models too."""
    student = {cell.cost: figure for cell, figure in figures.items() if cell.grid == DISTILLED}
    figures = {cell: figure for cell, figure in figures.items() if cell.grid != DISTILLED}
    grids = _by_grid(figures)
    best = {sampler: _best_grid(grids, sampler) for sampler, _ in grids}
    names = {
        sampler: sampler if grid == sampler else f"{sampler}, {grid}"
        for sampler, grid in best.items()
    }
    found: dict[str, set[tuple[int, float]]] = {name: set() for name in names.values()}
    for cell, figure in figures.items():
        if cell.grid == best[cell.sampler]:
            found[names[cell.sampler]].add((cell.cost, figure))
    if student:
        found["distilled"] = set(student.items())
    return {name: sorted(points) for name, points in found.items()}


def _by_grid(figures: dict[Cell, float]) -> dict[tuple[str, str], dict[int, float]]:
    """(sampler, grid) -> wanted evaluations -> worst judge over its floor."""
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
