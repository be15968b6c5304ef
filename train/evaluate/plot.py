"""The picture of a sweep. The only file that knows matplotlib, which is asked for only where a
picture is wanted."""

import importlib.util
import io
import math
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from ddpm.files import write_atomic

Curve = list[tuple[int, float]]  # (network evaluations, worst judge over its floor), by cost
_INK, _FAINT = "#333333", "#e3e3e3"
_COLORS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
    "#666666",
)  # Okabe & Ito: also told apart by the colour-blind
_SHOWN = 1, 100  # of what the worst judge says over its floor
_GAP = 0.058  # between the middles of two labels, of the height of the axes


def check() -> None:
    """Raises ValueError if matplotlib is missing: before the hours of computing, not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install matplotlib")


def draw(path: Path, curves: dict[str, Curve], samples: int) -> None:
    """What the worst judge says over its floor, over network evaluations, a line for each name, on
    log axes, to a PNG 1600 pixels wide.

    Each line has its name at its right end: nobody has to match a dozen colours. White behind it,
    on dark pages too. The axis shows 1 to 100, and less where a line falls below 1."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink: Any = {
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "font.size": 10,
    }
    with mpl.rc_context(ink):
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        lowest = min(y for points in curves.values() for _, y in points)
        _set_up(axes, curves, min(_SHOWN[0], lowest) * 0.9, samples)
        ranked = sorted(curves.items(), key=lambda item: item[1][-1][1])
        styles: list[dict[str, Any]] = [
            {
                "color": color,
                "markersize": 5,
                "marker": "osD^v"[k % 5],
                "markerfacecolor": color if k < len(_COLORS) else "white",
            }
            for k, color in enumerate(islice(cycle(_COLORS), len(ranked)))
        ]
        for (_, points), style in zip(ranked, styles, strict=True):
            axes.plot(*zip(*points, strict=True), linewidth=1.5, **style)
        axes.axhline(1, color=_INK, linestyle="--", linewidth=1.2)
        ends: list[tuple[float, float, str, dict[str, Any]]] = [
            (*points[-1], name, style) for (name, points), style in zip(ranked, styles, strict=True)
        ]
        real = {"color": _INK, "marker": "_", "markersize": 9}
        ends.append((axes.get_xlim()[1], 1.0, "real test images", real))
        _name(axes, sorted(ends, key=lambda end: end[1]))
        file = io.BytesIO()
        figure.savefig(file, dpi=200, format="png", facecolor="white")
    write_atomic(path, file.getvalue())


def _set_up(axes: Any, curves: dict[str, Curve], low: float, samples: int) -> None:
    """Log axes with few ticks, in plain numbers."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    axes.set(
        xscale="log",
        yscale="log",
        ylim=(low, _SHOWN[1]),
        xlabel="network evaluations an image",
        ylabel=f"worst judge over its floor, {samples:,} images (lower is better)",
    )
    plain = StrMethodFormatter("{x:g}")
    for axis, locator in (
        (axes.xaxis, FixedLocator(_ticks(curves))),
        (axes.yaxis, LogLocator(subs=(1, 2, 3, 5, 7))),
    ):
        axis.set(major_locator=locator, minor_locator=NullLocator(), major_formatter=plain)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)


def _name(axes: Any, ends: list[tuple[float, float, str, dict[str, Any]]]) -> None:
    """Writes beside the axes what each line is. ends: of each the last point, its name and how it
    is drawn, the lowest first."""
    low, high = map(math.log, axes.get_ylim())
    wanted = [min((math.log(y) - low) / (high - low), 1.0) for _, y, _, _ in ends]
    for (x, y, name, style), height in zip(ends, _apart(wanted), strict=True):
        lead = {"linewidth": 0.7, "arrowstyle": "-", "shrinkA": 0, "shrinkB": 0}
        lead |= {"color": style["color"]}
        axes.annotate(
            "",
            (x, min(y, math.exp(high))),
            (1.06, height),
            textcoords="axes fraction",
            arrowprops=lead,
        )
        axes.plot(1.075, height, transform=axes.transAxes, clip_on=False, **style)
        axes.text(1.1, height, name, transform=axes.transAxes, va="center", fontsize=9)


def _apart(heights: list[float]) -> list[float]:
    """Rising heights of labels, moved so that none touches the next and all stay in 0..1."""
    up, down, last = list(heights), list(heights), len(heights) - 1
    gap = min(_GAP, 1 / max(last, 1))
    for k in range(1, last + 1):
        up[k] = max(up[k], up[k - 1] + gap)
        down[-k - 1] = min(down[-k - 1], down[-k] - gap)
    # Both keep the gap, and so do their mean and the bounds.
    return [
        min(max((a + b) / 2, k * gap), 1 - (last - k) * gap)
        for k, (a, b) in enumerate(zip(up, down, strict=True))
    ]


def _ticks(curves: dict[str, Curve]) -> list[int]:
    """The costs that most curves have, far enough apart for their numbers not to touch."""
    ticks: list[int] = []
    for cost, _ in Counter(cost for points in curves.values() for cost, _ in points).most_common():
        if all(max(cost, other) > 1.2 * min(cost, other) for other in ticks):
            ticks.append(cost)
    return ticks
