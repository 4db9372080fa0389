"""AUC against the number of labels, of the chosen model and every baseline side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from scarce.fewshot.statistics import CHANCE
from scarce.report.audit_plots import GREEN, PURPLE, SKY
from scarce.report.drawing import (
    BLUE,
    CHANCE_LINE,
    GREY,
    ORANGE,
    TEXT,
    TITLE,
    grid_behind,
    interval_upright,
    legend_above,
    new_figure,
)

Points = Sequence[Mapping[str, Any]]  # each with `shots`, `auc`, `ci_low` and `ci_high`

YELLOW = "#E69F00"
STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "marker": marker, "linestyle": "none"}
    for color, marker in (
        *((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D")),
        *(("black", "v"), (SKY, "P"), (YELLOW, "X"), (GREY, "*")),
    )
)


def shots_figure(models: Mapping[str, Points], confidence: str, title: str = "") -> Figure:
    """Models side by side at every number of shots, each with its interval.

    Lines between the shots would make seven intervals unreadable, so there are none.

    Args:
        models: by name, in the order of the legend; a model may lack some numbers of shots.
        confidence: of the intervals, as in 95%.
        title: above the axes.
    """
    shots = sorted({point["shots"] for points in models.values() for point in points})
    aside = 0.8 / max(len(models), 2)
    figure = new_figure(9.5, 3.2)
    axes = figure.subplots()
    axes.axhline(CHANCE, **CHANCE_LINE)
    for number, points in enumerate(models.values()):
        style = STYLES[number % len(STYLES)]
        place = np.array([shots.index(point["shots"]) for point in points]) + (number - (len(models) - 1) / 2) * aside
        auc, low, high = (np.array([point[key] for point in points]) for key in ("auc", "ci_low", "ci_high"))
        interval_upright(axes, place, auc, low, high, style)
    for between in np.arange(len(shots) - 1) + 0.5:
        axes.axvline(between, color="#DDDDDD", linewidth=0.8)
    axes.set_xlim(-0.5, len(shots) - 0.5)
    axes.set_xticks(range(len(shots)), [f"{count:,}" for count in shots], fontsize=TEXT)
    axes.tick_params(axis="y", labelsize=TEXT)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(
        f"labelled positives in an episode, and as many negatives; bars: {confidence} intervals", fontsize=TEXT
    )
    axes.set_ylabel("test AUC", fontsize=TEXT)
    if title:
        axes.set_title(title.replace("$", r"\$"), fontsize=TITLE, loc="left")
    grid_behind(axes, "y")
    entries = [(STYLES[number % len(STYLES)], name) for number, name in enumerate(models)]
    legend_above(figure, [*entries, (CHANCE_LINE, "chance")])
    return figure
