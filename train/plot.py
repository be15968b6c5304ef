"""The picture of a sweep. The only file that knows matplotlib, which is asked for only where a picture is wanted."""

import importlib.util
import io
from collections import Counter
from pathlib import Path

from ddpm.files import write_atomic

Curve = list[tuple[int, float]]  # (network evaluations, Fréchet distance), by evaluations
_INK, _FAINT = "#333333", "#e3e3e3"


def check() -> None:
    """Raises ValueError if there is nothing to draw with: better before the hours of computing than after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install matplotlib")


def draw(path: Path, curves: dict[str, Curve], floor: float, samples: int) -> None:
    """Fréchet distance over network evaluations, a line for each name, on log axes, to a PNG 1600 pixels wide."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel="network evaluations an image",
             ylabel=f"Fréchet distance, {samples:,} images")
    colors = mpl.colormaps["tab20" if len(curves) > 10 else "tab10"].colors
    ranked = sorted(curves.items(), key=lambda item: item[1][-1][1], reverse=True)  # the legend reads like the picture
    for k, (name, points) in enumerate(ranked):
        axes.plot(*zip(*points, strict=True), marker="osD^v"[k % 5], markersize=5, linewidth=1.6, label=name,
                  color=colors[k % len(colors)])
    axes.axhline(floor, color=_INK, linestyle="--", linewidth=1.2, label="real test images")
    axes.xaxis.set(major_locator=FixedLocator(_ticks(curves)), minor_locator=NullLocator(),
                   major_formatter=StrMethodFormatter("{x:g}"))
    axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(),
                   major_formatter=StrMethodFormatter("{x:g}"))
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, dpi=200, format="png", facecolor="white")
    write_atomic(path, file.getvalue())


def _ticks(curves: dict[str, Curve]) -> list[int]:
    """The costs that most curves have, far enough apart for their numbers not to touch."""
    ticks: list[int] = []
    for cost, _ in Counter(cost for points in curves.values() for cost, _ in points).most_common():
        if all(max(cost, other) > 1.2 * min(cost, other) for other in ticks):
            ticks.append(cost)
    return ticks
