"""How figures here are drawn: colours, sizes of letters, numbers with their intervals, legends.

Colours are those of Okabe & Ito (2008, Color Universal Design), told apart by the colour-blind; markers and line styles
say the same again for a print in grey. Figures are made without pyplot, so nothing global is touched.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from scarce.files import atomic_path

DPI = 150
TEXT = 9  # points; nothing is written smaller
TITLE = 10
NAME_WIDTH = 30  # characters of a name on one line
BLUE, ORANGE, GREY, LIGHT = "#0072B2", "#D55E00", "#555555", "#DDDDDD"
FIRST: dict[str, Any] = {"color": BLUE, "linestyle": "-", "marker": "o"}
OTHER: dict[str, Any] = {"color": ORANGE, "linestyle": "--", "marker": "s"}
CHOSEN: dict[str, Any] = {"color": ORANGE, "linestyle": "none", "marker": "D", "markersize": 8}
LIMIT: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1.2}
CHANCE_LINE: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.2}


def new_figure(width: float, height: float) -> Figure:
    """In inches. Constrained layout makes room for every label, however long."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write_figure(path: Path, figure: Figure) -> None:
    """As PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def interval_across(axes: Axes, value: float, low: float, high: float, place: float, style: Mapping[str, Any]) -> None:
    """A number with its interval on the line at `place`."""
    axes.errorbar((low + high) / 2, place, xerr=(high - low) / 2, **interval_style(style))
    axes.plot(value, place, **dot_style(style))


def interval_upright(axes: Axes, places: ArrayLike, value: Any, low: Any, high: Any, style: Mapping[str, Any]) -> None:
    """Numbers with their intervals, each above its place."""
    axes.errorbar(places, (low + high) / 2, yerr=(high - low) / 2, **interval_style(style))
    axes.plot(places, value, **dot_style(style))


def interval_style(style: Mapping[str, Any]) -> dict[str, Any]:
    """An interval, drawn around its own middle: a percentile interval need not hold the number it belongs to."""
    return {"fmt": "none", "ecolor": style["color"], "elinewidth": 1.2, "capsize": 2.5}


def dot_style(style: Mapping[str, Any]) -> dict[str, Any]:
    """The number itself, in its line's colour and marker."""
    return {**style, "linestyle": "none", "markersize": 5}


def grid_behind(axes: Axes, axis: Literal["x", "y", "both"]) -> None:
    """Thin lines at an axis' ticks, behind what is drawn."""
    axes.grid(axis=axis, color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_above(figure: Figure, entries: Sequence[tuple[Mapping[str, Any], str]]) -> None:
    """Above the panels, side by side where there is room."""
    handles = [Line2D([], [], label=wrapped(label, 2 * NAME_WIDTH), **style) for style, label in entries]
    room = figure.get_figwidth() * 72 / TEXT  # in widths of an em; a letter takes 0.6, a line and its gaps 5
    needed = [0.6 * max(map(len, str(handle.get_label()).split("\n"))) + 5 for handle in handles]
    columns = len(handles) if sum(needed) <= room else max(1, int(room / max(needed)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=TEXT, frameon=False)


def wrapped(name: str, width: int = NAME_WIDTH) -> str:
    """In lines of at most `width` characters, broken at spaces, hyphens and underscores where there are any."""
    words = re.split(r"(?<=[ _-])", name)
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word.rstrip()) > width:
            lines.append(word)
        else:
            lines[-1] += word
    return "\n".join(textwrap.fill(line, width) for line in lines).replace("$", r"\$")  # no mathematics
