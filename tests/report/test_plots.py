from dataclasses import asdict
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_texts import check_texts
from matplotlib.collections import LineCollection, PolyCollection
from PIL import Image
from ranking_cases import make_ranking

from scarce.errors import UserError
from scarce.fewshot.learning_curve import fit_learning_curve
from scarce.report.plots import (
    learning_curves_figure,
    pareto_figure,
    plot_learning_curves,
    plot_pareto,
    plot_ranking,
    ranking_figure,
)
from scarce.study.pareto import Point, choose, pareto_front

LONG = "supervised_on_the_pretraining_hospital_with_labels"
NAMES = ("chosen", "pixel_statistics", "random_weights", LONG)
SHAPES = [(0.8, 0.25, 0.4), (0.6, 0.05, 1), (0.65, 0.1, 0.5), (0.9, 0.3, 0.6)]
MANY_SHOTS = (3, 4, 5, 100, 900, 1000)


def curve(a, b, c, shots=(1, 5, 10, 23, 50)):
    auc = a - b * np.array(shots, dtype=float) ** -c
    noise = np.random.default_rng(0).normal(scale=0.015, size=(len(shots), 100))
    columns = np.concatenate([auc[:, None], auc[:, None] + noise], axis=1)
    return fit_learning_curve(shots, columns, np.full(100, 0.97), 0.95).describe()


CURVES = {name: curve(*shape) for name, shape in zip(NAMES, SHAPES, strict=True)}
MISSING = {"from_scratch": {"available": False, "reason": "scored on 3 of 10 episodes a cell"}}


def search_of(count: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Trials of a search, the better the more they use a shortcut, and what was chosen."""
    rng = np.random.default_rng(0)
    drawn = [(0.6 + 0.1 * shortcut + 0.01 * rng.normal(), shortcut) for shortcut in rng.uniform(0, 0.3, count)]
    points = [Point(f"{number:012x}", auc, 0.01, shortcut, 0.02) for number, (auc, shortcut) in enumerate(drawn)]
    chosen = choose(points)
    front = [asdict(point) for point in pareto_front(points)]
    return pd.DataFrame(map(asdict, points)), {**asdict(chosen), "chosen_trial": chosen.trial, "front": front}


FIGURES = {
    "one curve": lambda: learning_curves_figure({"chosen": CURVES["chosen"]}),
    "two of long names": lambda: learning_curves_figure({f"{LONG}_again": CURVES["chosen"], LONG: CURVES[LONG]}),
    "four curves": lambda: learning_curves_figure(CURVES | MISSING),
    "nine curves": lambda: learning_curves_figure({f"{name}_{i}": CURVES[name] for i in range(2) for name in NAMES}),
    "many shots": lambda: learning_curves_figure({"a": curve(0.8, 0.2, 0.4, MANY_SHOTS), "b": CURVES["chosen"]}),
    "one trial": lambda: pareto_figure(*search_of(1)),
    "many trials": lambda: pareto_figure(*search_of(40)),
    "one method": lambda: ranking_figure(make_ranking(1)),
    "nine methods": lambda: ranking_figure(make_ranking(9)),
}


@pytest.mark.parametrize("what", FIGURES)
def test_texts_are_large_enough_whole_and_do_not_overlap(what, monkeypatch):
    everything = check_texts(FIGURES[what](), monkeypatch)
    assert "chance" in everything
    assert ("one standard error" if "trial" in what else "95% intervals") in everything


def test_every_curve_has_its_band_and_every_point_its_bar():
    figure = learning_curves_figure(CURVES | MISSING)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left").replace("\n", "") for axes in panels] == list(NAMES[1:])
    for axes, name in zip(panels, NAMES[1:], strict=True):
        bands = [band.get_paths()[0].vertices for band in axes.collections if isinstance(band, PolyCollection)]
        bars = [bars.get_segments() for bars in axes.collections if isinstance(bars, LineCollection)]
        for model, measured, beyond, ends in zip(("chosen", name), bands[::2], bands[1::2], bars, strict=True):
            for points, vertices in (
                ([p for p in CURVES[model]["fitted"] if p["shots"] <= 50], measured),
                ([p for p in CURVES[model]["fitted"] if p["shots"] >= 50], beyond),
            ):
                for point in points:
                    for end in ("ci_low", "ci_high"):
                        assert np.abs(vertices - [point["shots"], point[end]]).sum(axis=1).min() < 1e-9
            expected = [[point["ci_low"], point["ci_high"]] for point in CURVES[model]["observed"]]
            np.testing.assert_allclose([segment[:, 1] for segment in ends], expected)


def test_every_method_has_its_dots_and_bars_best_on_top():
    ranking = make_ranking()
    axes = ranking_figure(ranking).axes[0]
    assert axes.yaxis_inverted()
    names = [label.get_text().replace("\n", "").replace(" ", "") for label in axes.get_yticklabels()]
    assert names == [row["method"].replace(" ", "") for row in ranking["methods"]]
    bars = [segment[:, 0].tolist() for bars in axes.collections for segment in bars.get_segments()]
    dots = [line.get_xdata() for line in axes.lines]
    for row in ranking["methods"]:
        for number in filter(None, (row, row["random"])):
            assert any(np.allclose(bar, [number["ci_low"], number["ci_high"]]) for bar in bars)
            assert any(np.array_equal(dot, [number["auc"]]) for dot in dots)
        assert any(np.array_equal(dot, row["seed_aucs"]) for dot in dots)
    assert len(bars) == 9 + 8
    beside = axes.child_axes[0].get_yticklabels()
    assert beside[0].get_text() == "0.680 (0.660 to 0.700), rank 1 (1 to 3)"


def test_every_trial_has_its_dot_and_bar_and_the_steps_bound_what_is_dominated():
    trials, search = search_of(40)
    axes = pareto_figure(trials, search).axes[0]
    bars = np.concatenate([bars.get_segments() for bars in axes.collections if isinstance(bars, LineCollection)])
    lines = {(str(line.get_marker()), line.get_linestyle()): line for line in axes.lines}
    dots = np.concatenate([lines[marker, "None"].get_xydata() for marker in "xo"])
    assert len(bars) == 2 * len(dots) == 80
    for x, x_error, auc, error in trials[["val_shortcut", "val_shortcut_se", "val_auc", "val_auc_se"]].to_numpy():
        assert np.abs(dots - [x, auc]).sum(axis=1).min() < 1e-9
        assert np.abs(bars - [[x, auc - error], [x, auc + error]]).sum(axis=(1, 2)).min() < 1e-9
        assert np.abs(bars - [[x - x_error, auc], [x + x_error, auc]]).sum(axis=(1, 2)).min() < 1e-9
    np.testing.assert_allclose(
        lines["o", "None"].get_xydata(), [[p["val_shortcut"], p["val_auc"]] for p in search["front"]]
    )
    assert lines["D", "None"].get_xydata().tolist() == [[search["val_shortcut"], search["val_auc"]]]
    best = search["front"][0]
    assert list(lines["None", "--"].get_ydata()) == [best["val_auc"] - best["val_auc_se"]] * 2
    steps = lines["None", "-"]
    assert steps.get_drawstyle() == "steps-pre"  # from the best down: at a point's own AUC until the next one's
    assert np.all(np.diff(steps.get_xdata()) < 0)


def test_an_interval_beside_its_own_number_is_drawn_where_it_is():
    ranking = make_ranking(1)
    ranking["methods"][0].update(ci_low=0.7, ci_high=0.72)
    axes = ranking_figure(ranking).axes[0]
    assert any(np.allclose(segment[:, 0], [0.7, 0.72]) for bars in axes.collections for segment in bars.get_segments())


def test_two_models_differ_in_marker_and_line_as_well_as_in_colour():
    axes = learning_curves_figure({name: CURVES[name] for name in NAMES[:2]}).axes[0]
    curves = [line for line in axes.lines if line.get_linestyle() in ("-", "--")]
    assert {line.get_linestyle() for line in curves} == {"-", "--"}
    assert len({line.get_color() for line in curves}) == 2
    assert {line.get_marker() for line in axes.lines} >= {"o", "s"}


def test_files_are_whole_pngs_of_150_dpi_and_nothing_global_changes(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_ranking(tmp_path / "plots" / "ranking.png", make_ranking())
    plot_learning_curves(tmp_path / "plots" / "curves.png", CURVES)
    assert dict(matplotlib.rcParams) == before
    plot_pareto(tmp_path / "plots" / "pareto.png", *search_of(20))
    assert dict(matplotlib.rcParams) == before
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["curves.png", "pareto.png", "ranking.png"]
    for path in (tmp_path / "plots").iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert min(picture.size) > 400
    again = (tmp_path / "plots" / "curves.png").read_bytes()
    plot_learning_curves(tmp_path / "plots" / "curves.png", CURVES)
    assert (tmp_path / "plots" / "curves.png").read_bytes() == again


def test_nothing_to_draw_is_said_with_the_reasons():
    with pytest.raises(UserError, match=r"no learning curve to draw \(from_scratch: scored on 3 of 10"):
        learning_curves_figure(MISSING)
