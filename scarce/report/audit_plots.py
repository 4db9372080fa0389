"""Figures of the audits, in the style of `plots`: intervals always, colours told apart in grey by marker or letter."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from scarce.audit.verdicts import ORDER, Curve, Exhibit, Verdict
from scarce.errors import UserError
from scarce.fewshot.statistics import CHANCE
from scarce.report.audit import known, main_numbers, scale_of, verdict_matrix
from scarce.report.drawing import (
    BLUE,
    CHANCE_LINE,
    DPI,
    GREY,
    ORANGE,
    TEXT,
    TITLE,
    grid_behind,
    interval_across,
    legend_above,
    new_figure,
    wrapped,
    write_figure,
)
from scarce.report.tables import confidence_text

GREEN, PURPLE, SKY = "#009E73", "#CC79A7", "#56B4E9"
SERIES: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "marker": marker, "linestyle": "none"}
    for color, marker in ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), ("black", "v"), (SKY, "P"))
)
FILLS: dict[Verdict, str] = {"fails": "#A84300", "can't tell": "#F0C75E", "passes": "#CFE6F4", "not run": "#FFFFFF"}
INKS: dict[Verdict, str] = {"fails": "white", "can't tell": "black", "passes": "black", "not run": GREY}
LETTERS: dict[Verdict, str] = {"fails": "F", "can't tell": "?", "passes": "P", "not run": "–"}
WORDS: dict[Verdict, str] = {"fails": ORANGE, "can't tell": GREY, "passes": BLUE, "not run": GREY}
BAND = "#F4F4F4"
MILD: dict[str, Any] = {"color": ORANGE, "linestyle": "none", "marker": "D", "markersize": 7}
LEVEL: dict[str, Any] = {"color": BLUE, "linestyle": "-", "marker": "o"}
HEAT = colormaps["inferno"]
OUTLINE: dict[str, Any] = {"color": SKY, "linestyle": "--", "linewidth": 1.1}
BOX: dict[str, Any] = {"color": GREEN, "linestyle": "-", "linewidth": 1.4}
RIM: list[AbstractPathEffect] = [withStroke(linewidth=2.6, foreground="black")]  # lines are seen on white and on black
COLUMNS = 4  # of a contact sheet


def plot_audit_overview(path: Path, report: Mapping[str, Any]) -> None:
    """Write `overview_figure` to `path` as PNG of 150 dpi, atomically."""
    write_figure(path, overview_figure(report))


def png(figure: Figure) -> bytes:
    """A figure as PNG of 150 dpi."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def overview_figure(report: Mapping[str, Any]) -> Figure:
    """A line for every finding, a column for every shortcut audit: the verdict of the finding's worst row there.

    Args:
        report: from `report_json`.

    Raises:
        UserError: there is no finding or no shortcut audit.
    """
    matrix = verdict_matrix(report)
    keys = list(next(iter(matrix.values()), {}))
    if not keys:
        raise UserError("there are no verdicts to draw: the report has no finding or no shortcut audit")
    verdicts = [[row[key] for key in keys] for row in matrix.values()]
    figure = new_figure(9.0, 0.36 * len(matrix) + 1.6)
    axes = figure.subplots()
    colours = ListedColormap([FILLS[verdict] for verdict in ORDER])
    codes = [[ORDER.index(verdict) for verdict in row] for row in verdicts]
    axes.pcolormesh(codes, cmap=colours, vmin=-0.5, vmax=len(ORDER) - 0.5, edgecolors=GREY, linewidth=0.6)
    for place, row in enumerate(verdicts):
        for column, verdict in enumerate(row):
            middle = (column + 0.5, place + 0.5)
            style: dict[str, Any] = {"color": INKS[verdict], "fontweight": "bold" if verdict == "fails" else "normal"}
            axes.text(*middle, LETTERS[verdict], ha="center", va="center", fontsize=TITLE, **style)
    titles = [wrapped(report["audits"][key]["title"], 13) for key in keys]
    axes.set_xticks(np.arange(len(keys)) + 0.5, titles, fontsize=TEXT)
    axes.set_yticks(np.arange(len(matrix)) + 0.5, [wrapped(name, 40) for name in matrix], fontsize=TEXT)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.invert_yaxis()
    square = {"linestyle": "none", "marker": "s", "markersize": 9, "markeredgecolor": GREY}
    entries = [({**square, "color": FILLS[verdict]}, f"{LETTERS[verdict]}  {verdict}") for verdict in ORDER]
    legend_above(figure, entries)
    return figure


def rows_figure(audit: Mapping[str, Any], confidence: float) -> Figure:
    """A line for every row of an audit: its main numbers with intervals, and its verdict.

    Numbers of different scales stand side by side: AUCs, differences, and whatever else there is.

    Args:
        audit: of `report_json`.
        confidence: of the intervals.

    Raises:
        UserError: the audit has no row with numbers.
    """
    rows = [(row, main_numbers(row)) for row in audit["rows"] if row["numbers"]]
    if not rows:
        raise UserError(f"there are no numbers to draw: the audit {audit['title']!r} has no rows")
    names = list(dict.fromkeys(name for _, numbers in rows for name in numbers))
    scales = list(dict.fromkeys(scale_of(number) for _, numbers in rows for number in numbers.values()))
    styles = {name: SERIES[place % len(SERIES)] for place, name in enumerate(names)}
    labels = [wrapped(row["name"]) for row, _ in rows]
    lines = max(label.count("\n") + 1 for label in labels)
    counts = [sum(scale_of(number) == scale for number in numbers.values()) for _, numbers in rows for scale in scales]
    together = max(counts)
    height = max(0.13 * together + 0.07, 0.16 * lines + 0.06)
    figure = new_figure(9.5, height * len(rows) + 1.3 + 0.17 * len(names) / 2)
    panels = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for axes, scale in zip(panels, scales, strict=True):
        for place, (_, numbers) in enumerate(rows):
            if place % 2:
                axes.axhspan(place - 0.5, place + 0.5, color=BAND, zorder=0)
            here = [name for name, number in numbers.items() if scale_of(number) == scale]
            for below, name in zip(_spread(len(here)), here, strict=True):
                _interval(axes, numbers[name], place + below, styles[name])
        if scale.null is not None:
            axes.axvline(scale.null, **CHANCE_LINE)
        axes.set_xlabel(scale.label, fontsize=TEXT)
        axes.locator_params(axis="x", nbins=5 if len(scales) < 3 else 3)
        axes.tick_params(labelsize=TEXT, length=3)
        grid_behind(axes, "x")
    panels[0].set_yticks(range(len(rows)), labels, fontsize=TEXT)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    beside = panels[-1].secondary_yaxis("right")
    beside.set_yticks(range(len(rows)), [row["verdict"] or "" for row, _ in rows], fontsize=TEXT)
    beside.tick_params(length=0)
    for label, (row, _) in zip(beside.get_yticklabels(), rows, strict=True):
        if row["verdict"]:
            label.set(color=WORDS[row["verdict"]], fontweight="bold" if row["verdict"] == "fails" else "normal")
    figure.supxlabel(f"bars: {confidence_text({'confidence': confidence})} intervals", fontsize=TEXT)
    null = [(CHANCE_LINE, "chance, or no difference")] if any(scale.null is not None for scale in scales) else []
    legend_above(figure, [*((styles[name], name) for name in names), *null])
    return figure


def _spread(count: int) -> np.ndarray:
    """Places of a row's numbers below its middle, in rows."""
    spread: np.ndarray = (np.arange(count) - (count - 1) / 2) * 0.8 / max(count, 2)
    return spread


def _interval(axes: Axes, number: Mapping[str, Any], place: float, style: Mapping[str, Any]) -> None:
    value, low, high = (known(number[end]) for end in ("value", "ci_low", "ci_high"))
    interval_across(axes, value, low, high, place, style)


def curves_figure(curves: Sequence[Curve], confidence: float) -> Figure:
    """A panel for every curve: AUC with its band against the level; levels that the verdict is about are marked.

    Raises:
        UserError: there are no curves.
    """
    if not curves:
        raise UserError("there are no curves to draw")
    columns = min(len(curves), 3)
    lines = -(-len(curves) // columns)
    figure = new_figure(max(3 * columns, 5.5), 2.4 * lines + 1.0)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    for axes, curve in zip(grid, curves, strict=False):
        levels = np.array([level for level, _ in curve.points])
        auc, low, high = np.array([(number.value, number.low, number.high) for _, number in curve.points]).T
        axes.fill_between(levels, low, high, color=LEVEL["color"], alpha=0.25, linewidth=0)
        axes.plot(levels, auc, **LEVEL, markersize=4)
        mild = np.isin(levels, curve.marked)
        axes.plot(levels[mild], auc[mild], **MILD)
        axes.axhline(CHANCE, **CHANCE_LINE)
        axes.set_title(wrapped(curve.name), fontsize=TITLE, loc="left")
        axes.set_xlabel(wrapped(curve.unit), fontsize=TEXT)
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(labelsize=TEXT)
        grid_behind(axes, "y")
    figure.supylabel("test AUC, mean over findings", fontsize=TEXT)
    band = f"AUC; bands: {confidence_text({'confidence': confidence})} intervals"
    legend_above(figure, [(LEVEL, band), (MILD, "mild: judged"), (CHANCE_LINE, "chance")])
    return figure


def exhibits_figure(exhibits: Sequence[Exhibit]) -> Figure:
    """A contact sheet: films in gray with heat map, outline and box where they have them, and captions below.

    Raises:
        UserError: there are no exhibits.
    """
    if not exhibits:
        raise UserError("there are no exhibits to draw")
    columns = min(len(exhibits), COLUMNS)
    lines = -(-len(exhibits) // columns)
    captions = [wrapped(exhibit.caption, 26) for exhibit in exhibits]
    below = 0.17 * max(caption.count("\n") + 1 for caption in captions)
    marked = any(one.heat is not None or one.outline is not None or one.box for one in exhibits)
    figure = new_figure(max(2.3 * columns, 6.5 if marked else 0), (2.2 + below) * lines + (0.9 if marked else 0.1))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(exhibits) :]:
        axes.set_visible(False)
    for axes, exhibit, caption in zip(grid, exhibits, captions, strict=False):
        _show(axes, exhibit)
        axes.set_xlabel(caption, fontsize=TEXT)
    shown = (
        (OUTLINE, "lungs, or what stands for them", any(exhibit.outline is not None for exhibit in exhibits)),
        (BOX, "where the finding is", any(exhibit.box for exhibit in exhibits)),
    )
    entries = [(style, label) for style, label, there in shown if there]
    if entries:
        legend_above(figure, entries)
    if any(exhibit.heat is not None for exhibit in exhibits):
        below_all: dict[str, Any] = {"location": "bottom", "shrink": 0.5, "aspect": 40, "pad": 0.01}
        bar = figure.colorbar(ScalarMappable(cmap=HEAT), ax=list(grid), **below_all)
        bar.set_label("what moved the score, as a share of the map's highest value", fontsize=TEXT)
        bar.ax.tick_params(labelsize=TEXT)
    return figure


def _show(axes: Axes, exhibit: Exhibit) -> None:
    height, width = exhibit.image.shape
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow(exhibit.image, cmap="gray", vmin=0, vmax=255, extent=extent)
    if exhibit.heat is not None:
        heat = np.nan_to_num(exhibit.heat)
        axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * heat.clip(0, 1), extent=extent)
    if exhibit.outline is not None and exhibit.outline.any() and not exhibit.outline.all():
        pixels = (np.arange(width) + 0.5, np.arange(height) + 0.5)
        style = {"colors": OUTLINE["color"], "linestyles": OUTLINE["linestyle"], "linewidths": OUTLINE["linewidth"]}
        axes.contour(*pixels, exhibit.outline.astype(float), levels=[0.5], **style).set_path_effects(RIM)
    if exhibit.box is not None:
        left, top, right, bottom = exhibit.box
        corner, size = (left * width, top * height), ((right - left) * width, (bottom - top) * height)
        axes.add_patch(Rectangle(corner, *size, fill=False, path_effects=RIM, **BOX))
    axes.set_xticks([])
    axes.set_yticks([])
