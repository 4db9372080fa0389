"""What a search found out about its settings: importances, slices and parallel coordinates."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from scarce.report.drawing import (
    BLUE,
    CHOSEN,
    GREY,
    LIGHT,
    ORANGE,
    TEXT,
    dot_style,
    grid_behind,
    interval_across,
    interval_style,
    legend_above,
    new_figure,
)
from scarce.report.importance import Importance

DONE: dict[str, Any] = {"color": BLUE, "linestyle": "none", "marker": "o"}
PRUNED: dict[str, Any] = {"color": GREY, "linestyle": "none", "marker": "x"}
COLLAPSED: dict[str, Any] = {"color": ORANGE, "linestyle": "none", "marker": "v"}
BUDGET: dict[str, Any] = {"color": GREY, "linestyle": "none", "marker": "s", "markerfacecolor": "white"}
FAILED: dict[str, Any] = {"color": ORANGE, "linestyle": "none", "marker": "*"}
BY_STATUS: dict[str, dict[str, Any]] = {
    "done": DONE,
    "pruned": PRUNED,
    "collapsed": COLLAPSED,
    "budget": BUDGET,
    "failed": FAILED,
}
WORDS = {"done": "ended", "pruned": "pruned", "collapsed": "collapsed", "budget": "stopped for the budget"}
BY_CHANCE: dict[str, Any] = {"color": GREY, "linestyle": "none", "marker": "|", "markersize": 10}
COLUMNS = 4
COLOURS = colormaps["cividis"]  # its lightness grows evenly: it reads the same in grey and by the colour-blind


def importance_figure(found: Sequence[Importance], confidence: str) -> Figure:
    """A line for every setting, the most important on top: its share, its interval, and what chance gives."""
    figure = new_figure(9.0, 0.32 * len(found) + 1.1)
    axes = figure.subplots()
    for place, one in enumerate(found):
        interval_across(axes, one.share, one.ci_low, one.ci_high, place, DONE)
        axes.plot(one.by_chance, place, **BY_CHANCE)
    axes.set_yticks(range(len(found)), [one.setting for one in found], fontsize=TEXT)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=TEXT)
    axes.set_xlabel(
        f"share of what a forest explains of the validation AUC; bars: {confidence} intervals", fontsize=TEXT
    )
    grid_behind(axes, "x")
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(found)), [f"p {one.p:.2f}" for one in found], fontsize=TEXT)
    beside.tick_params(length=0)
    legend_above(figure, [(DONE, "importance"), (BY_CHANCE, "with the AUCs shuffled")])
    return figure


def slices_figure(trials: pd.DataFrame, settings: Sequence[str], logarithmic: Collection[str], chosen: str) -> Figure:
    """A panel for every setting: each trial's value of it against its best validation AUC, with its standard error.

    Args:
        trials: as in trials.parquet, those with a `val_auc`.
        settings: columns that were searched.
        logarithmic: those of them whose range is.
        chosen: identity of the chosen trial.
    """
    columns = min(COLUMNS, len(settings))
    rows = -(-len(settings) // columns)
    figure = new_figure(9.5, 2.1 * rows + 0.7)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(settings) :]:
        axes.set_visible(False)
    for axes, name in zip(grid, settings, strict=False):
        place = _axis(axes, trials[name], name in logarithmic)
        for status, style in status_styles(trials).items():
            here = (trials["status"] == status).to_numpy()
            axes.errorbar(
                place[here], trials["val_auc"][here], yerr=trials["val_auc_se"][here], **interval_style(style)
            )
            axes.plot(place[here], trials["val_auc"][here], **dot_style(style))
        is_chosen = (trials["trial"] == chosen).to_numpy()
        axes.plot(place[is_chosen], trials["val_auc"][is_chosen], **CHOSEN)
        axes.set_xlabel(name, fontsize=TEXT)
        axes.tick_params(labelsize=TEXT)
        grid_behind(axes, "y")
    figure.supylabel("best validation AUC ± one standard error", fontsize=TEXT)
    legend_above(figure, [*status_entries(trials), (CHOSEN, "chosen")])
    return figure


def parallel_figure(trials: pd.DataFrame, settings: Sequence[str], logarithmic: Collection[str], chosen: str) -> Figure:
    """A line for every trial through its settings to its AUC; the lighter, the better. Pruned ones are dashed.

    Args: as of `slices_figure`.
    """
    names = [*settings, "val_auc"]
    figure = new_figure(9.5, 4.2)
    axes = figure.subplots()
    shares, ends = zip(*(_share(trials[name], name in logarithmic) for name in names), strict=True)
    places = np.column_stack(shares)
    shade = Normalize(trials["val_auc"].min(), trials["val_auc"].max())
    order = trials["val_auc"].argsort()
    for row in order:
        trial = trials.iloc[row]
        is_chosen = trial["trial"] == chosen
        style = {"linestyle": "-" if trial["status"] == "done" or is_chosen else "--", "linewidth": 1.2}
        color = COLOURS(shade(trial["val_auc"]))
        axes.plot(range(len(names)), places[row], **style | {"color": color, "linewidth": 3.0 if is_chosen else 1.2})
        error = trial["val_auc_se"] / (np.ptp(trials["val_auc"]) or 1)
        axes.errorbar(len(names) - 1, places[row, -1], yerr=error, **interval_style({"color": color}))
    for place in range(len(names)):
        axes.axvline(place, color=LIGHT, linewidth=1, zorder=0)
        for height, text in zip((-0.04, 1.04), ends[place], strict=True):
            side = "top" if height < 0 else "bottom"
            axes.text(place, height, text, ha="center", va=side, fontsize=TEXT)
    axes.set_xlim(-0.4, len(names) - 0.6)
    axes.set_ylim(-0.16, 1.16)
    labels = [*(name.replace(".", ".\n") for name in settings), "val AUC\n± s.e."]
    axes.set_xticks(range(len(names)), labels, fontsize=TEXT)
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(shade, COLOURS), ax=axes, pad=0.01, fraction=0.03)
    bar.set_label("best validation AUC", fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    solid = {"color": GREY, "linestyle": "-", "linewidth": 1.2}
    entries = [(solid | {"linewidth": 3.0}, "chosen"), (solid, "ended"), (solid | {"linestyle": "--"}, "stopped early")]
    legend_above(figure, entries)
    return figure


def status_styles(trials: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How the trials of each status are drawn, by those that there are."""
    return {status: style for status, style in BY_STATUS.items() if (trials["status"] == status).any()}


def status_entries(trials: pd.DataFrame) -> list[tuple[Mapping[str, Any], str]]:
    """The legend's entries for them."""
    return [(style, WORDS.get(status, status)) for status, style in status_styles(trials).items()]


def _axis(axes: Axes, values: pd.Series, log: bool) -> np.ndarray:
    """Set an axis up for a setting; where its values lie on it."""
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= 3:
        codes, names = pd.factorize(values, sort=True)
        axes.set_xticks(range(len(names)), [_text(name) for name in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        # Trials of one category are moved apart, so that their bars can be told.
        moved: np.ndarray = codes + 0.5 * (np.arange(len(codes)) / max(len(codes) - 1, 1) - 0.5)
        return moved
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.locator_params(axis="x", nbins=4)
    return values.to_numpy(dtype=float)


def _share(values: pd.Series, log: bool) -> tuple[np.ndarray, tuple[str, str]]:
    """Values as shares of their range, and its ends in words."""
    if not pd.api.types.is_numeric_dtype(values):
        codes, names = pd.factorize(values, sort=True)
        return codes / max(len(names) - 1, 1), (_text(names[0]), _text(names[-1]))
    low, high = values.min(), values.max()
    scaled = np.log(values.to_numpy(dtype=float)) if log else values.to_numpy(dtype=float)
    spread = np.ptp(scaled)
    share = (scaled - scaled.min()) / spread if spread else np.full(len(scaled), 0.5)
    return share, (_text(low), _text(high))


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float, np.number)) else str(value)
