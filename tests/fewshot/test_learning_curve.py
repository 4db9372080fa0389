import json
from dataclasses import replace

import numpy as np
import pytest
from fewshot_cases import make_task
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit, least_squares
from scipy.stats import norm

from scarce.errors import UserError
from scarce.fewshot import statistics
from scarce.fewshot.learning_curve import fit_learning_curve, fit_power_law, learning_curve
from scarce.fewshot.task import Scores

SHOTS = np.array([1, 5, 10, 23, 50])


def power_law(n, a, b, c):
    return a - b * n**-c


def fit(auc, draws=0.0, kept=1.0):
    """The curve through AUCs [5] whose resamples are `draws` [5, B] away from them."""
    draws = np.broadcast_to(draws, (5, np.shape(draws)[-1] if np.ndim(draws) else 3))
    columns = np.concatenate([auc[:, None], auc[:, None] + draws], axis=1)
    return fit_learning_curve(SHOTS.tolist(), columns, np.full(draws.shape[1], kept), 0.95)


def test_noise_free_curves_give_their_parameters_back_in_any_units_of_the_weights():
    truth = [(0.8, 0.25, 0.5), (0.95, 0.4, 0.3), (1.0, 0.45, 0.2), (0.9, 0.3, 0.1), (0.75, 0.2, 2.0), (0.5, 0.2, 1.0)]
    auc = np.stack([power_law(SHOTS, *parameters) for parameters in truth], axis=1)
    for weights in (np.ones(5), np.array([1e3, 4e3, 2e4, 3e3, 9e3])):
        np.testing.assert_allclose(fit_power_law(SHOTS, auc, weights).T, truth, rtol=1e-5)


def test_well_behaved_curves_as_scipy_fits_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = (rng.uniform(0.75, 0.85), rng.uniform(0.2, 0.3), rng.uniform(0.4, 0.8))
        deviation = rng.uniform(0.001, 0.004, size=5)
        auc = power_law(SHOTS, *truth) + deviation * rng.normal(size=5)
        peer, _ = curve_fit(power_law, SHOTS.astype(float), auc, p0=truth, sigma=deviation, xtol=1e-14, ftol=1e-14)
        np.testing.assert_allclose(fit_power_law(SHOTS, auc[:, None], deviation**-2.0)[:, 0], peer, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.2, 1.0), min_size=5, max_size=5), st.lists(st.floats(0.1, 10), min_size=5, max_size=5))
def test_no_bounded_fit_from_any_start_is_better(auc, weights):
    auc, root = np.array(auc), np.sqrt(np.array(weights) / np.sum(weights))
    a, b, c = fit_power_law(SHOTS, auc[:, None], root**2)[:, 0]
    assert 0.5 <= a <= 1
    assert b >= 0
    assert 0.1 - 1e-12 <= c <= 2 + 1e-12

    def residuals(parameters):
        return root * (auc - power_law(SHOTS, *parameters))

    bounds = ([0.5, 0, 0.1], [1, np.inf, 2])
    starts = [(0.75, 0.3, c) for c in (0.15, 0.5, 1.0, 1.9)]
    best = min(2 * least_squares(residuals, start, bounds=bounds, xtol=1e-12, ftol=1e-12).cost for start in starts)
    assert np.sum(residuals((a, b, c)) ** 2) <= best + 2e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_curves_never_fall_nor_leave_the_range_of_an_auc(seed):
    rng = np.random.default_rng(seed)
    curve = fit(rng.uniform(0.3, 1.0, size=5), rng.normal(scale=0.1, size=(5, 30)))
    values = curve.at(np.geomspace(1, 1e4, 50))
    assert (np.diff(values, axis=0) >= -1e-12).all()
    assert (values <= 1 + 1e-12).all()


def test_a_steady_fall_and_a_constant_give_the_constant_and_no_exponent():
    for auc, level in ((np.full(5, 0.7), 0.7), (np.array([0.8, 0.75, 0.7, 0.65, 0.6]), 0.7)):
        described = fit(auc).describe(target=0.75)
        assert described["a"]["value"] == pytest.approx(level)
        assert described["b"]["value"] == 0
        assert described["c"] == {"value": None, "ci_low": None, "ci_high": None}
        assert {round(point["auc"], 9) for point in described["fitted"]} == {level}
        assert described["labels_for"]["positives"] is None
        assert described["labels_for"]["reached"] == 0
        assert described["labels_for"]["text"] == (
            "not reached at any number of positives (95% interval not reached at any number); extrapolated from 1 to 50"
        )
        assert described["residual_rms"] == pytest.approx(np.sqrt(np.mean((auc - level) ** 2)))
        assert fit(auc).labels_for(0.51)["positives"] == 1


def test_rounding_errors_are_no_slope():
    noise = 1e-9 * np.random.default_rng(0).normal(size=(5, 50))
    np.testing.assert_array_equal(fit_power_law(SHOTS, 0.7 + noise, np.ones(5))[1], 0)


def test_a_shot_count_weighs_as_the_inverse_variance_of_its_resamples():
    rng = np.random.default_rng(0)
    draws = np.array([0.05, 0.03, 0.02, 0.01, 0.0])[:, None] * rng.normal(size=(5, 100))
    auc = np.array([0.55, 0.68, 0.69, 0.76, 0.77])
    variance = np.var(draws, axis=1, ddof=1)
    variance[-1] = 1e-6  # resamples that never differ are no certainty
    expected = fit_power_law(SHOTS, auc[:, None], 1 / variance)
    np.testing.assert_allclose(fit(auc, draws).parameters[:, :1], expected, rtol=1e-5)


def test_a_model_below_chance_is_not_expected_to_rise_above_it():
    described = fit(np.array([0.48, 0.44, 0.46, 0.47, 0.45])).describe(0.6)
    assert described["a"]["value"] == 0.5
    assert all(0.4 < point["auc"] <= 0.5 for point in described["fitted"])
    assert described["labels_for"]["reached"] == 0


def test_labels_for_a_target_invert_the_curve():
    auc = power_law(SHOTS, 0.8, 0.25, 0.5)
    within, beyond, far, never = (fit(auc).labels_for(target) for target in (0.75, 0.78, 0.7965, 0.81))
    assert [row["positives"] for row in (within, beyond, far, never)] == [25, 157, None, None]  # 156.25, 5102
    assert [row["extrapolated"] for row in (within, beyond, far, never)] == [False, True, True, True]
    assert [row["reached"] for row in (within, beyond, far, never)] == [1, 1, 1, 0]
    assert within["text"] == "25 positives (95% interval 25)"
    assert beyond["text"] == "157 positives (95% interval 157); extrapolated from 1 to 50"
    assert far["text"].startswith("more than 5,000 positives (")
    assert never["text"].startswith("not reached at any number of positives (")
    for target in (0.5, 1.0, 70.0, float("nan")):
        with pytest.raises(UserError, match=r"between 0\.5 and 1"):
            fit(auc).labels_for(target)


def test_resamples_that_never_reach_the_target_count_as_infinitely_many():
    auc = power_law(SHOTS, 0.8, 0.25, 0.5)
    lower = np.where(np.arange(40) < 4, -0.06, 0.0)  # a tenth of the curves level off at 0.74
    row = fit(auc, np.tile(lower, (5, 1))).labels_for(0.75)
    assert (row["positives"], row["ci_low"], row["ci_high"], row["reached"]) == (25, 25, None, 0.9)
    assert row["text"] == "25 positives (95% interval 25 to not reached at any number)"


def test_few_patients_widen_the_curve_towards_chance():
    """Six positives above all negatives at any number of shots: not certainly an AUC of 1 for ever."""
    sure, unsure = (fit(np.ones(5), kept=kept).describe(0.9) for kept in (1.0, 6 / 7 * 40 / 41))
    assert sure["fitted"][-1]["ci_low"] == 1
    assert unsure["fitted"][-1]["ci_low"] == pytest.approx(0.5 + 0.5 * 6 / 7 * 40 / 41)
    assert unsure["fitted"][-1]["ci_high"] == 1
    assert unsure["a"]["ci_low"] < 0.95
    assert (sure["labels_for"]["ci_high"], unsure["labels_for"]["ci_high"]) == (1, 1)
    assert fit(np.ones(5), kept=6 / 7 * 40 / 41).labels_for(0.95)["ci_high"] is None


@pytest.mark.parametrize(("a", "b", "c"), [(0.8, 0.25, 0.5), (0.95, 0.4, 0.3), (0.65, 0.0, 1.0)])
def test_intervals_of_curve_and_labels_cover_the_truth_about_as_often_as_they_say(a, b, c):
    """Errors of the shot counts are correlated, as those of the same held-out patients are."""
    rng = np.random.default_rng(0)
    deviation = np.array([0.03, 0.02, 0.015, 0.012, 0.01])
    root = np.linalg.cholesky((0.5 + 0.5 * np.eye(5)) * np.outer(deviation, deviation))
    n, target, simulations = np.array([1.0, 20, 50, 200]), 0.75, 150
    truth, needed = power_law(n, a, b, c), (b / (a - target)) ** (1 / c) if a > target else np.inf
    covered, labels = np.zeros(4), 0
    for _ in range(simulations):
        curve = fit(power_law(SHOTS, a, b, c) + root @ rng.normal(size=5), root @ rng.normal(size=(5, 200)))
        low, high = np.quantile(curve.at(n)[:, 1:], [0.025, 0.975], axis=1)
        covered += (low <= truth) & (truth <= high)
        row = curve.labels_for(target)
        low, high = row["ci_low"] or row["limit"], row["ci_high"] or np.inf
        labels += low <= np.ceil(needed - 1e-9) <= high
    assert (covered / simulations >= 0.88).all()
    assert (covered / simulations <= 0.995).all()
    assert labels / simulations >= 0.88


def growing_scores(rng, task, a, b, c):
    """Scores whose AUC at n shots is a − b n^(−c) in an endless population; seeds agree in part about the patients."""
    values = []
    for finding, shots in enumerate(task.shots):
        truth = task.truth(finding)
        separation = np.sqrt(2) * norm.ppf(power_law(np.array(shots, dtype=float), a, b, c))[:, None, None]
        shared, own = rng.normal(size=len(truth)), rng.normal(size=(len(shots), len(task.seeds), len(truth)))
        values.append(separation * truth + np.sqrt(0.7) * shared + np.sqrt(0.3) * own)
    return Scores(tuple(values))


def curve_of(task, scores, count=200):
    resamples = statistics.draw_resamples(task, count)
    draws = statistics.resampled_auc(task, scores, resamples)
    return learning_curve(task, scores, draws, resamples, 0.95), draws, statistics.evidence(task, resamples)


@pytest.fixture(scope="module")
def task():
    return make_task(np.random.default_rng(0), findings=3, shots=(1, 4, 10, 25), seeds=6, positives=25, negatives=60)


def test_a_curve_is_the_mean_over_findings_with_the_intervals_of_that_mean(task):
    scores = growing_scores(np.random.default_rng(1), task, 0.9, 0.35, 0.5)
    curve, draws, (_, kept) = curve_of(task, scores)
    described = curve.describe(0.8)
    json.dumps(described, allow_nan=False)
    assert described["findings"] == list(task.findings)
    assert described["left_out"] == []
    for place, point in enumerate(described["observed"]):
        mean = statistics.mean_over_cells(draws[place::4])
        assert point["shots"] == (1, 4, 10, 25)[place]
        assert (point["ci_low"], point["ci_high"]) == statistics.auc_interval(mean, kept, 0.95)
        assert point["ci_low"] < point["auc"] < point["ci_high"]
    fitted = {point["shots"]: point for point in described["fitted"]}
    assert fitted.keys() >= {1, 4, 10, 25, 100}
    assert [n for n, point in fitted.items() if point["extrapolated"]] == [n for n in fitted if n > 25]
    residuals = [point["auc"] - fitted[point["shots"]]["auc"] for point in described["observed"]]
    assert described["residual_rms"] == pytest.approx(np.sqrt(np.mean(np.square(residuals))))
    assert described["residual_rms"] < 0.02
    for n in (1, 10, 25, 100):
        assert fitted[n]["ci_low"] <= power_law(n, 0.9, 0.35, 0.5) <= fitted[n]["ci_high"]


def without_last_shots(task, scores, finding):
    able = tuple(shots[:-1] if place == finding else shots for place, shots in enumerate(task.shots))
    values = tuple(values[:-1] if place == finding else values for place, values in enumerate(scores.values))
    return replace(task, shots=able), Scores(values)


def test_a_finding_that_runs_out_of_positives_does_not_bend_the_curve(task):
    scores = growing_scores(np.random.default_rng(1), task, 0.9, 0.35, 0.5)
    easy = Scores((scores.values[0] + 3 * task.truth(0), *scores.values[1:]))
    (curve, _, _), (whole, _, _) = curve_of(*without_last_shots(task, easy, 0)), curve_of(task, easy)
    described = curve.describe()
    assert described["findings"] == ["finding 1", "finding 2"]
    assert described["left_out"] == ["finding 0"]
    alone = replace(task, findings=task.findings[1:], shots=task.shots[1:], evaluated=task.evaluated[1:])
    alone = replace(alone, labels=task.labels[:, 1:])
    (expected, _, _) = curve_of(alone, Scores(scores.values[1:]))
    np.testing.assert_array_equal(curve.parameters[:, 0], expected.parameters[:, 0])
    assert whole.auc[-1, 0] > curve.auc[-1, 0] + 0.02


def test_too_few_shot_counts_or_no_complete_finding_are_reasons(task):
    scores = growing_scores(np.random.default_rng(1), task, 0.9, 0.35, 0.5)
    two = replace(task, shots=((1, 4),) * 3)
    reason, _, _ = curve_of(two, Scores(tuple(values[:2] for values in scores.values)))
    assert reason == "a learning curve needs at least 3 different shot counts, got 1, 4"
    scattered = replace(task, shots=((1, 4, 10), (1, 4, 25), (4, 10, 25)))
    reason, _, _ = curve_of(scattered, Scores(tuple(values[:3] for values in scores.values)))
    assert reason == "no finding has enough positives for all of 1, 4, 10, 25 shots"


def test_resamples_without_a_positive_patient_are_at_chance_or_left_out():
    task = make_task(np.random.default_rng(0), findings=1, shots=(1, 4, 10), positives=2, negatives=30)
    scores = growing_scores(np.random.default_rng(1), task, 0.9, 0.35, 0.5)
    curve, draws, (kept, _) = curve_of(task, scores)
    lacking = np.isnan(draws[0])
    assert lacking.any()
    np.testing.assert_array_equal(np.isnan(curve.parameters[:, 1:]).all(axis=0), lacking)
    described = curve.describe(0.8)
    json.dumps(described, allow_nan=False)
    assert described["observed"][0]["ci_low"] == statistics.auc_interval(draws[0], kept[0], 0.95)[0]
    assert described["fitted"][0]["ci_low"] < 0.5
    assert described["labels_for"]["ci_high"] is None
