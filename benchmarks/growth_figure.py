"""What benchmarks/growth.py draws: seconds and megabytes against size, each with its exponents."""

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from scarce.report.drawing import BLUE, DPI, GREY, LIGHT, ORANGE, TEXT, TITLE

LEAST_MB = 8.0  # allocators reuse as much of what they kept: a stage that takes less is taken for one that takes this

Growth = dict[str, dict[str, list[tuple[float, float]]]]  # quantities, "s" and "MB" of each by size, ascending

STYLES: list[dict[str, Any]] = [
    {"color": color, "linestyle": line, "marker": marker}
    for color, line, marker in zip(cycle((BLUE, ORANGE, GREY)), cycle(("-", "--")), "osD^vPX*<>ph", strict=False)
]


def growth_figure(growths: dict[str, Growth]) -> Figure:
    """A row of panels for each of `growths`, by what grows: seconds, and megabytes."""
    heights = [3.4, 2.0, 2.0]
    figure = Figure(figsize=(10.0, sum(heights) + 1.4), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(growths), 2, sharex="row", squeeze=False, height_ratios=heights)
    for axes, (of, growth), height in zip(panels, growths.items(), heights, strict=True):
        for panel, unit in zip(axes, ("s", "MB"), strict=True):
            _panel(panel, growth, unit, height)
            panel.set_xlabel(of, fontsize=TEXT)
    panels[0, 0].set_title("seconds", fontsize=TITLE, loc="left")
    panels[0, 1].set_title("MB of memory beyond what was held before (of workers: all)", fontsize=TITLE, loc="left")
    note = "beside a line: its exponent by least squares, and between the two largest sizes; thin lines grow linearly"
    figure.supxlabel(note, fontsize=TEXT)
    return figure


def _panel(axes: Axes, growth: Growth, unit: str, height: float) -> None:
    """Lines with names at their ends, in axes of about this height in inches."""
    drawn = {
        name: (by_unit[unit], style)
        for (name, by_unit), style in zip(growth.items(), cycle(STYLES), strict=False)
        if unit in by_unit and is_seen(unit, by_unit[unit])
    }
    values = [value for points, _ in drawn.values() for _, value in points]
    sizes = [size for size, _ in next(iter(drawn.values()))[0]]
    middle, decades = math.sqrt(min(values) * max(values)), max(1.5, math.log10(max(values) / min(values)) + 0.4)
    low, high = middle * 10 ** (-decades / 2), middle * 10 ** (decades / 2)
    axes.set(xscale="log", yscale="log", xlim=(sizes[0] / 1.15, sizes[-1] * 1.15), ylim=(low, high))
    for start in low * 4.0 ** np.arange(-8, 12):  # wherever a line begins, one of these is near
        axes.plot(sizes, [start * size / sizes[0] for size in sizes], color=LIGHT, linewidth=0.8, zorder=0)
    place = math.log10(low)
    for end, name in sorted((points[-1][1], name) for name, (points, _) in drawn.items()):
        points, style = drawn[name]
        axes.plot(*zip(*points, strict=True), **style, markersize=5)
        place = max(math.log10(end), place + 1.5 * TEXT / 72 / height * decades)  # names don't lie on each other
        axes.annotate(
            f"{name}  {exponents(points)[0]:.2f}, {exponents(points)[1]:.2f}",
            (sizes[-1], end),
            (sizes[-1] * (sizes[-1] / sizes[0]) ** 0.12, 10**place),
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5},
            fontsize=TEXT,
            va="center",
        )
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.tick_params(labelsize=TEXT)


def exponents(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The slope of log value against log size by least squares, and between the two largest sizes."""
    size, value = np.log(np.array(points)).T
    return float(np.polyfit(size, value, 1)[0]), float((value[-1] - value[-2]) / (size[-1] - size[-2]))


def is_seen(unit: str, points: Sequence[tuple[float, float]]) -> bool:
    """Whether a quantity is large enough to have an exponent."""
    return unit == "s" or points[-1][1] > LEAST_MB
