"""How a search went: its trials over time, and whether their embeddings stayed alive."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scarce.collapse import LEAST
from scarce.report.drawing import (
    BLUE,
    CHOSEN,
    GREY,
    LIMIT,
    ORANGE,
    TEXT,
    dot_style,
    grid_behind,
    interval_style,
    legend_above,
    new_figure,
)
from scarce.report.search_plots import BY_STATUS, status_entries, status_styles
from scarce.trials.records import TrialRecord

BEST: dict[str, Any] = {"color": BLUE, "linestyle": "-", "linewidth": 1.6}
SIGNS = {
    "effective_rank": "effective rank of the embeddings",
    "embedding_std": "s.d. of the embeddings (1: spread evenly)",
}
LINES: dict[str, dict[str, Any]] = {
    "chosen": {"color": BLUE, "linestyle": "-", "linewidth": 2.4, "marker": "D", "markersize": 5},
    "collapsed": {"color": ORANGE, "linestyle": "-.", "linewidth": 1.4, "marker": "v", "markersize": 5},
    "others": {"color": GREY, "linestyle": "-", "linewidth": 0.8, "marker": "o", "markersize": 3},
}
MINUTES_UP_TO = 3.0  # hours; a longer search is drawn in hours


def timeline_figure(trials: pd.DataFrame, seconds: Mapping[str, float], chosen: str) -> Figure:
    """Every trial when it ended, by its best validation AUC and how it ended; and the best one so far.

    Args:
        trials: as in trials.parquet; those without a report are drawn at the lower edge.
        seconds: after the search's start at which each ended, by identity; others are left out.
        chosen: identity of the chosen trial.
    """
    known = trials[trials["trial"].isin(list(seconds))]
    unit, divisor = ("minutes", 60.0) if max(seconds.values()) < MINUTES_UP_TO * 3600 else ("hours", 3600.0)
    at = np.array([seconds[name] / divisor for name in known["trial"]])
    figure = new_figure(9.0, 3.6)
    axes = figure.subplots()
    reported = known["val_auc"].notna().to_numpy()
    for status, style in status_styles(known).items():
        here = (known["status"] == status).to_numpy() & reported
        axes.errorbar(at[here], known["val_auc"][here], yerr=known["val_auc_se"][here], **interval_style(style))
        axes.plot(at[here], known["val_auc"][here], **dot_style(style))
    order = np.argsort(at[reported])
    times, best = at[reported][order], np.maximum.accumulate(known["val_auc"].to_numpy()[reported][order])
    axes.step([*times, at.max()], [*best, best[-1]], where="post", **BEST)
    silent = ~reported
    if silent.any():
        axes.plot(
            at[silent],
            np.full(silent.sum(), 0.03),
            transform=axes.get_xaxis_transform(),
            **dot_style(BY_STATUS["failed"]),
        )
    is_chosen = (known["trial"] == chosen).to_numpy()
    axes.plot(at[is_chosen], known["val_auc"][is_chosen], **CHOSEN)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{unit} since the first trial began", fontsize=TEXT)
    axes.set_ylabel("validation AUC ± one s.e.", fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    grid_behind(axes, "y")
    silent_words = [(BY_STATUS["failed"], "no report (lower edge)")] if silent.any() else []
    entries = status_entries(known[reported])
    legend_above(figure, [(BEST, "best so far"), *entries, *silent_words, (CHOSEN, "chosen")])
    return figure


def collapse_figure(records: Sequence[TrialRecord], chosen: str) -> Figure:
    """Effective rank and s.d. of the embeddings of every trial over its epochs, and the values below which it is dead.

    They are measured on the same held-out images in the same two views at every report, so they have no interval.
    """
    figure = new_figure(9.5, 3.6)
    kinds = {record.identity: _kind(record, chosen) for record in records}
    for axes, (sign, label) in zip(figure.subplots(1, 2), SIGNS.items(), strict=True):
        for record in sorted(records, key=lambda record: list(LINES)[::-1].index(kinds[record.identity])):
            epochs, values = ([report[key] for report in record.history] for key in ("epoch", sign))
            axes.plot(epochs, values, **LINES[kinds[record.identity]])
        axes.axhline(LEAST[sign], **LIMIT)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epochs", fontsize=TEXT)
        axes.set_ylabel(label, fontsize=TEXT)
        axes.tick_params(labelsize=TEXT)
        grid_behind(axes, "y")
    present = [(LINES[kind], kind) for kind in LINES if kind in kinds.values()]
    legend_above(figure, [*present, (LIMIT, "dead below this")])
    return figure


def views_figure(views: np.ndarray) -> Figure:
    """Films in the first column and random views of them beside it.

    Args:
        views: grey levels, uint8 [N, 1 + count, S, S].
    """
    rows, columns = views.shape[:2]
    figure = new_figure(9.5, 9.5 / columns * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for films, line in zip(views, grid, strict=True):
        for film, axes in zip(films, line, strict=True):
            axes.imshow(film, cmap="gray", vmin=0, vmax=255)
            axes.axis("off")
    for column, axes in enumerate(grid[0]):
        axes.set_title(f"view {column}" if column else "film", fontsize=TEXT)
    return figure


def _kind(record: TrialRecord, chosen: str) -> str:
    if record.identity == chosen:
        return "chosen"
    return "collapsed" if record.collapse else "others"
