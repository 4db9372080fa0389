"""Figures of a run: learning curves, the ranking of methods, the Pareto front. Every number has its interval."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from scarce.errors import UserError
from scarce.fewshot.statistics import CHANCE
from scarce.report.drawing import (
    BLUE,
    CHANCE_LINE,
    CHOSEN,
    FIRST,
    GREY,
    LIMIT,
    ORANGE,
    OTHER,
    TEXT,
    TITLE,
    dot_style,
    grid_behind,
    interval_across,
    interval_style,
    interval_upright,
    legend_above,
    new_figure,
    wrapped,
    write_figure,
)
from scarce.report.tables import auc_text, confidence_text, interval_text

PANEL = 180  # points; a panel of learning curves is at least so wide
SEED: dict[str, Any] = {"color": BLUE, "linestyle": "none", "marker": "|"}
TRIAL: dict[str, Any] = {"color": GREY, "linestyle": "none", "marker": "x"}
FRONT: dict[str, Any] = {"color": BLUE, "linestyle": "-", "marker": "o"}
RANDOM: dict[str, Any] = {"color": ORANGE, "linestyle": "-", "marker": "D", "markerfacecolor": "white"}


def plot_learning_curves(path: Path, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `learning_curves_figure` to `path` as PNG of 150 dpi, atomically."""
    write_figure(path, learning_curves_figure(curves))


def plot_ranking(path: Path, ranking: Mapping[str, Any]) -> None:
    """Write `ranking_figure` to `path` as PNG of 150 dpi, atomically."""
    write_figure(path, ranking_figure(ranking))


def plot_pareto(path: Path, trials: pd.DataFrame, search: Mapping[str, Any]) -> None:
    """Write `pareto_figure` to `path` as PNG of 150 dpi, atomically."""
    write_figure(path, pareto_figure(trials, search))


def learning_curves_figure(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel for every model but the first, which is drawn in all of them for comparison.

    Many curves with their intervals in one panel hide each other, and curves without intervals are no result.

    Args:
        curves: from `LearningCurve.describe`, by model; those that are not available are left out.

    Raises:
        UserError: no curve is available.
    """
    drawn = {name: curve for name, curve in curves.items() if curve["available"]}
    if not drawn:
        reasons = "; ".join(f"{name}: {curve['reason']}" for name, curve in curves.items())
        raise UserError(f"there is no learning curve to draw ({reasons or 'no models'})")
    first, *others = drawn
    panels = others or [first]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(max(3.3 * columns + 0.4, 5.5), 2.9 * rows + 1.2)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for place, (axes, name) in enumerate(zip(grid, panels, strict=False)):
        _curve(axes, drawn[first], FIRST, aside=0.96 if others else 1)
        if others:
            _curve(axes, drawn[name], OTHER, aside=1.04)
        if len(others) > 1:
            axes.set_title(wrapped(name), fontsize=TITLE, loc="left")
        axes.axhline(CHANCE, **CHANCE_LINE)
        axes.tick_params(labelsize=TEXT, labelbottom=place + columns >= len(panels))
        grid_behind(axes, "y")
    _positives_axis(grid[0], drawn)
    _auc_axis(grid[0], drawn)
    note = f"bars and bands: {confidence_text(drawn[first])} intervals; thin lines: extrapolated"
    figure.supxlabel(f"labelled positives in an episode, and as many negatives\n{note}", fontsize=TEXT)
    figure.supylabel("test AUC", fontsize=TEXT)
    labels = [(FIRST, f"{first} (in every panel)" if len(others) > 1 else first)]
    labels += [(OTHER, "the model above the panel" if len(others) > 1 else others[0])] if others else []
    legend_above(figure, [*labels, (CHANCE_LINE, "chance")])
    return figure


def _curve(axes: Axes, curve: Mapping[str, Any], style: Mapping[str, Any], aside: float) -> None:
    """`aside`: factor by which the observed points are moved, so that two models' bars lie side by side."""
    fitted, color = curve["fitted"], style["color"]
    measured = [point for point in fitted if not point["extrapolated"]]
    beyond = [measured[-1], *(point for point in fitted if point["extrapolated"])]
    for part, alpha, width in ((measured, 0.25, 1.8), (beyond, 0.1, 1.0)):
        n, auc, low, high = _columns(part)
        axes.fill_between(n, low, high, color=color, alpha=alpha, linewidth=0)
        axes.plot(n, auc, color=color, linestyle=style["linestyle"], linewidth=width)
    n, auc, low, high = _columns(curve["observed"])
    interval_upright(axes, n * aside, auc, low, high, style)


def _columns(points: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n, auc, low, high = (np.array([point[key] for point in points]) for key in ("shots", "auc", "ci_low", "ci_high"))
    return n, auc, low, high


def _positives_axis(axes: Axes, curves: Mapping[str, Mapping[str, Any]]) -> None:
    """A logarithmic axis with the shot counts as ticks, where there is room, and the end of the extrapolation."""
    shots = {n for curve in curves.values() for n in curve["shots"]}
    last = max(curve["fitted"][-1]["shots"] for curve in curves.values())
    axes.set_xscale("log")
    axes.set_xlim(min(shots) / 1.15, last * 1.15)
    ticks: list[float] = [last]
    for n in sorted(shots, reverse=True):
        letters = len(f"{ticks[-1]:,.0f}{n:,.0f}") / 2
        if PANEL * math.log(ticks[-1] / n) / math.log(last / min(shots)) > 0.6 * TEXT * letters + TEXT:
            ticks.append(n)
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _auc_axis(axes: Axes, curves: Mapping[str, Mapping[str, Any]]) -> None:
    points = [point for curve in curves.values() for point in (*curve["observed"], *curve["fitted"])]
    low = min(CHANCE, *(point["ci_low"] for point in points))
    high = max(CHANCE, *(point["ci_high"] for point in points))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def ranking_figure(ranking: Mapping[str, Any]) -> Figure:
    """A line for every method, best on top: its AUC, that of every pretraining seed, and its random initialisation.

    Args:
        ranking: from `rank_models`.
    """
    methods = ranking["methods"]
    places = np.arange(len(methods))
    names = [wrapped(row["method"]) for row in methods]
    lines = max(name.count("\n") + 1 for name in names)
    figure = new_figure(9.0, max(0.42, 0.17 * lines) * len(methods) + 1.1)
    axes = figure.subplots()
    axes.axvline(CHANCE, **CHANCE_LINE)
    for place, row in zip(places, methods, strict=True):
        for below, number, style in ((0.0, row, FIRST), (0.24, row["random"], RANDOM)):
            if number:
                interval_across(axes, number["auc"], number["ci_low"], number["ci_high"], place + below, style)
        axes.plot(row["seed_aucs"], np.full(len(row["seed_aucs"]), place - 0.22), **SEED)
    axes.set_yticks(places, names, fontsize=TEXT)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    confidence = confidence_text(ranking["protocol"])
    axes.set_xlabel(f"test AUC, mean over findings and shots; bars: {confidence} intervals", fontsize=TEXT)
    axes.tick_params(axis="x", labelsize=TEXT)
    grid_behind(axes, "x")
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(places, [_numbers(row) for row in methods], fontsize=TEXT)
    beside.tick_params(length=0)
    entries = [(FIRST, "pretrained"), (SEED, "each pretraining seed")]
    if any(row["random"] for row in methods):
        entries.append((RANDOM, "its random initialisation"))
    legend_above(figure, [*entries, (CHANCE_LINE, "chance")])
    return figure


def _numbers(row: Mapping[str, Any]) -> str:
    rank = f"{row['rank']} ({row['rank_low']} to {row['rank_high']})"
    return f"{auc_text(row)} ({interval_text(row)}), rank {rank}"


def pareto_figure(trials: pd.DataFrame, search: Mapping[str, Any]) -> Figure:
    """Every trial by its shortcut score and its AUC: up and to the left is better.

    The front is drawn in steps: what lies below and to the right of it is dominated, and what lies between two of its
    points has not been reached.

    Args:
        trials: all of a search: `trial`, `val_auc`, `val_shortcut` and their `_se`.
        search: from `choose_trial`: the `front` and the `chosen_trial`.
    """
    front = pd.DataFrame(search["front"])
    dominated = trials[~trials["trial"].isin(front["trial"])]
    figure = new_figure(9.0, 4.6)
    axes = figure.subplots()
    axes.axhline(front["val_auc"].iloc[0] - front["val_auc_se"].iloc[0], **LIMIT)
    for points, style in ((dominated, TRIAL), (front, FRONT)):
        place = points["val_shortcut"], points["val_auc"]
        axes.errorbar(*place, xerr=points["val_shortcut_se"], **interval_style(style))
        axes.errorbar(*place, yerr=points["val_auc_se"], **interval_style(style))
        axes.plot(*place, **dot_style(style))
    axes.step(front["val_shortcut"], front["val_auc"], where="pre", color=FRONT["color"])
    axes.plot(search["val_shortcut"], search["val_auc"], **CHOSEN)
    axes.set_xlabel(
        "shortcut score ± one standard error: validation AUC above chance without the thorax", fontsize=TEXT
    )
    axes.set_ylabel("validation AUC ± one standard error", fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    grid_behind(axes, "both")
    chosen = f"chosen: {search['chosen_trial']}"
    entries = [(FRONT, "Pareto front"), (CHOSEN, chosen), (LIMIT, "best AUC minus its standard error")]
    legend_above(figure, [*([(TRIAL, "dominated trial")] if len(dominated) else []), *entries])
    return figure
