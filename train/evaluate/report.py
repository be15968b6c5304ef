"""A report of `python -m train.evaluate`, in words and tables."""

from typing import Any

from .figures import FIGURES
from .panel import JUDGES


def described(report: dict[str, Any]) -> str:
    """What was measured: how many images, drawn how."""
    times = f", {report['repetitions']} times" if report["repetitions"] > 1 else ""
    how = report.get("settings") or {}
    words = [
        f"{how[name]} {name}" if name == "steps" else f"{name} {how[name]}"
        for name in how
        if name != "labels" and how[name]
    ]
    if "labels" in how:
        words.append("each class as often as in training" if how["labels"] else "without labels")
    return f"{report['samples']:,} images{times}" + (f" ({', '.join(words)})" if words else "")


def verdict(report: dict[str, Any]) -> str:
    """The headline: the worst judge, over its own floor.

    Raises KeyError, TypeError or ValueError if it is no report, as the functions below."""
    worst = report["worst"]
    spread = "" if worst["spread"] is None else f" ± {worst['spread']:.2f}"
    title = JUDGES[worst["judge"]].title
    return f"{worst['ratio']:.2f}{spread} × real test images, by the worst judge: {title}"


def judged(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """What each judge says: title, figure over floor, spread of that ("" if unknown), figure, and
    that of as many real test images (the floor)."""
    found: list[tuple[str, ...]] = []
    for name, said in report["panel"].items():
        title, form, _ = JUDGES[name]
        spread = "" if said["spread"] is None else f"{said['spread']:.2f}"
        figure, floor = format(said["figure"], form), format(said["floor"], form)
        found.append((title, f"{said['ratio']:.2f}", spread, figure, floor))
    return found


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The other figures: what it is, what is good, this, its spread over the repetitions ("" for
    one), as many real test images, as many training images."""
    found: list[tuple[str, ...]] = []
    for name, figure in report["figures"].items():
        title, form, good = FIGURES[name]
        spread = "" if figure["std"] is None else format(figure["std"], form)
        real = (format(figure[each], form) for each in ("floor", "subset"))
        found.append((title, good, format(figure["mean"], form), spread, *real))
    return found


def table(report: dict[str, Any]) -> str:
    """All of it, as `python -m train.evaluate` prints it."""
    above: list[tuple[str, ...]] = [("judge", "", "× floor", "±", "this", "floor")]
    above += [(title, "", *rest) for title, *rest in judged(report)]
    head: tuple[str, ...] = ("", "good", "this", "±", "test images", "training images")
    return "\n".join(
        [
            f"{report['model']}: {described(report)}",
            verdict(report),
            "",
            *aligned(above),
            "",
            *aligned([head, *rows(report)]),
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
