"""Figures of the report: every number with its interval, every text whole and legible."""

import numpy as np
import pandas as pd
import pytest
from figure_texts import check_texts
from matplotlib.collections import LineCollection

from scarce.report.importance import Importance
from scarce.report.result_plots import shots_figure
from scarce.report.search_plots import importance_figure, parallel_figure, slices_figure
from scarce.report.trial_plots import collapse_figure, timeline_figure, views_figure
from scarce.trials.records import TrialRecord

MODELS = ("chosen", "pixel_statistics", "pixels_16", "random_weights", "random_forest", "from_scratch", "imagenet")
STATUSES = ("done", "pruned", "collapsed", "budget", "failed")
SETTINGS = ["method.temperature", "views.brightness", "views.flip", "optimiser.name", "optimiser.lr"]
CHOSEN = f"{0:012x}"


def trials_of(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "trial": [f"{number:012x}" for number in range(count)],
            "status": [STATUSES[number % len(STATUSES)] for number in range(count)],
            "val_auc": np.sort(rng.uniform(0.5, 0.7, count))[::-1],
            "val_auc_se": 0.01,
            "method.temperature": rng.uniform(0.05, 1, count),
            "views.brightness": rng.uniform(0, 0.8, count),
            "views.flip": [0.5 * (number % 2) for number in range(count)],
            "optimiser.name": [("sgd", "adamw")[number % 2] for number in range(count)],
            "optimiser.lr": 10.0 ** rng.uniform(-4, -1, count),
        }
    )
    if count > 4:
        table.loc[4, ["val_auc", "val_auc_se"]] = np.nan
    return table


def records_of(count: int) -> list[TrialRecord]:
    records = []
    for number in range(count):
        dead = number % 3 == 2
        history = [
            {"epoch": float(epoch), "effective_rank": 1.0 if dead else 9.0, "embedding_std": 0.01 if dead else 0.9}
            | {"collapsed": float(dead)}
            for epoch in range(1, 4)
        ]
        records.append(TrialRecord(f"{number:012x}", {}, {}, history))
    return records


def points(strength: float) -> list[dict]:
    aucs = [0.5 + strength * step for step in range(5)]
    rows = zip((1, 5, 10, 23, 50), aucs, strict=True)
    return [{"shots": n, "auc": auc, "ci_low": auc - 0.05, "ci_high": auc + 0.04} for n, auc in rows]


def important(count: int) -> list[Importance]:
    return [Importance(f"views.setting_{n}", 0.5 - 0.02 * n, 0.3 - 0.02 * n, 0.6, 0.1, 0.01 * n) for n in range(count)]


SECONDS = {f"{number:012x}": 60.0 * number for number in range(12)}
FIGURES = {
    "all models": lambda: shots_figure({name: points(0.03 * n) for n, name in enumerate(MODELS)}, "95%", "hernia $x$"),
    "one model, one number of shots": lambda: shots_figure({"chosen": points(0.03)[:1]}, "95%"),
    "importances": lambda: importance_figure(important(12), "95%"),
    "slices": lambda: slices_figure(trials_of(12).dropna(subset="val_auc"), SETTINGS, {"optimiser.lr"}, CHOSEN),
    "one slice": lambda: slices_figure(trials_of(3), SETTINGS[:1], (), CHOSEN),
    "parallel": lambda: parallel_figure(trials_of(12).dropna(subset="val_auc"), SETTINGS, {"optimiser.lr"}, CHOSEN),
    "time": lambda: timeline_figure(trials_of(12), SECONDS, CHOSEN),
    "hours": lambda: timeline_figure(trials_of(3), {key: 90 * value for key, value in SECONDS.items()}, CHOSEN),
    "collapse": lambda: collapse_figure(records_of(6), CHOSEN),
    "views": lambda: views_figure(np.zeros((2, 6, 8, 8), dtype=np.uint8)),
}


@pytest.mark.parametrize("what", FIGURES)
def test_texts_are_large_enough_whole_and_do_not_overlap(what: str, monkeypatch: pytest.MonkeyPatch):
    check_texts(FIGURES[what](), monkeypatch)


def bars_of(figure) -> np.ndarray:
    found = [
        bars.get_segments() for axes in figure.axes for bars in axes.collections if isinstance(bars, LineCollection)
    ]
    return np.array([segment for segments in found for segment in segments])


def test_every_model_has_its_interval_at_every_number_of_shots():
    models = {name: points(0.03 * n) for n, name in enumerate(MODELS)}
    bars = bars_of(shots_figure(models, "95%"))
    expected = [[point["ci_low"], point["ci_high"]] for ofmodel in models.values() for point in ofmodel]
    np.testing.assert_allclose(bars[:, :, 1], expected)
    assert (np.diff(np.sort(bars[:, 0, 0])) > 0.05).all()  # side by side


def test_every_trial_has_its_standard_error_in_every_slice():
    trials = trials_of(12).dropna(subset="val_auc")
    bars = bars_of(slices_figure(trials, SETTINGS, {"optimiser.lr"}, CHOSEN))
    assert len(bars) == len(trials) * len(SETTINGS)
    np.testing.assert_allclose(bars[:, 1, 1] - bars[:, 0, 1], 0.02)


def test_a_logarithmic_setting_has_a_logarithmic_axis():
    figure = slices_figure(trials_of(12).dropna(subset="val_auc"), SETTINGS, {"optimiser.lr"}, CHOSEN)
    scales = {axes.get_xlabel(): axes.get_xscale() for axes in figure.axes if axes.get_visible()}
    assert scales == dict.fromkeys(SETTINGS[:-1], "linear") | {"optimiser.lr": "log"}


def test_the_best_so_far_never_falls_and_a_trial_without_a_report_is_shown():
    axes = timeline_figure(trials_of(12), SECONDS, CHOSEN).axes[0]
    (best,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert (np.diff(best.get_ydata()) >= 0).all()
    assert best.get_ydata()[-1] == trials_of(12)["val_auc"].max()
    silent = [line for line in axes.lines if line.get_transform() == axes.get_xaxis_transform()]
    assert [line.get_xdata().tolist() for line in silent] == [[4.0]]  # minutes
