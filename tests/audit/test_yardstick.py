import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from subject_cases import make_task, noisy_scores, scores_of, truth_of

from scarce.audit.yardstick import Number, Yardstick, interval, p_above
from scarce.fewshot import statistics
from scarce.fewshot.task import Scores


def slow_auc(scores, truth, weights, strata):
    """Over all pairs of a positive and a negative image of one stratum, one after the other."""
    won, pairs = 0.0, 0.0
    for i in np.flatnonzero(truth):
        for j in np.flatnonzero(~truth):
            if strata[i] == strata[j] and strata[i] >= 0:
                won += weights[i] * weights[j] * (np.sign(scores[i] - scores[j]) + 1) / 2
                pairs += weights[i] * weights[j]
    return won / pairs if pairs else math.nan


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 4))
def test_auc_within_strata_is_that_over_the_pairs_of_the_same_stratum(seed, images_a_patient, kinds):
    rng = np.random.default_rng(seed)
    task = make_task(rng, 4, 6, ("mass", "hernia"), seeds=2, images_a_patient=images_a_patient)
    scores = noisy_scores(rng, task)
    strata = rng.integers(-1, kinds, len(task.images))  # of images: a patient may have films of several strata
    yardstick = Yardstick(task, count=6)
    matched = yardstick.matched_auc(scores, strata)
    for finding, values in enumerate(scores.values):
        rows, truth = task.evaluated[finding], task.truth(finding)
        ones = np.ones(len(rows))
        expected = np.mean([slow_auc(of_seed, truth, ones, strata[rows]) for of_seed in values[0]])
        np.testing.assert_allclose(matched.values[finding], expected, atol=1e-12)
        for draw, patients in enumerate(yardstick.resamples.patients):
            weights = patients[yardstick.resamples.codes[rows]].astype(float)
            by_seed = [slow_auc(of_seed, truth, weights, strata[rows]) for of_seed in values[0]]
            expected = np.dot(yardstick.resamples.seeds[finding, draw], by_seed)
            np.testing.assert_allclose(matched.draws[finding, draw], expected, atol=1e-12)


@pytest.mark.parametrize("images_a_patient", [1, 2])
def test_one_stratum_is_the_auc_itself_and_its_draws(images_a_patient):
    rng = np.random.default_rng(0)
    task = make_task(rng, 9, 25, ("mass", "hernia"), images_a_patient=images_a_patient)
    scores, yardstick = noisy_scores(rng, task), Yardstick(task, count=50)
    plain, matched = yardstick.auc(scores), yardstick.matched_auc(scores, np.zeros(len(task.images), dtype=int))
    np.testing.assert_allclose(matched.values, plain.values, atol=1e-12)
    np.testing.assert_allclose(matched.draws, plain.draws, atol=1e-12)
    for finding, values in enumerate(scores.values):
        by_seed = [roc_auc_score(task.truth(finding), of_seed) for of_seed in values[0]]
        assert plain.values[finding] == pytest.approx(np.mean(by_seed), abs=1e-12)


def test_strata_without_both_classes_give_no_auc():
    task = make_task(np.random.default_rng(0), 5, 8)
    matched = Yardstick(task, count=20).matched_auc(scores_of(task, truth_of(task)), truth_of(task).astype(int))
    assert np.isnan(matched.values).all()
    assert np.isnan(matched.draws).all()


def test_what_is_constant_within_strata_contributes_nothing():
    """A score that is the stratum and noise below it: 0.5 within, however well the stratum tells."""
    rng = np.random.default_rng(1)
    task = make_task(rng, 100, 200)
    stratum = (rng.random(len(task.images)) < np.where(truth_of(task) == 1, 0.9, 0.1)).astype(int)
    yardstick = Yardstick(task, count=200)
    scores = scores_of(task, stratum * 10 + rng.random(len(stratum)))
    assert yardstick.auc(scores).values[0] > 0.85
    assert abs(yardstick.matched_auc(scores, stratum).values[0] - 0.5) < 0.1
    assert yardstick.matched_auc(scores_of(task, stratum), stratum).values[0] == 0.5


def test_patients_are_counted_once_and_in_one_class():
    task = make_task(np.random.default_rng(0), 5, 7, images_a_patient=3)
    assert Yardstick(task).patients == [(5, 7)]
    labels = task.labels.copy()
    row = task.evaluated[0][task.truth(0)][0]
    labels[row] = False  # another film of that patient still shows it
    assert Yardstick(replace(task, labels=labels)).patients == [(5, 7)]


def test_the_intervals_are_those_of_the_final_evaluation():
    task = make_task(np.random.default_rng(3), 8, 20)
    scores = noisy_scores(np.random.default_rng(4), task)
    yardstick = Yardstick(task, count=300, confidence=0.9)
    resamples = statistics.draw_resamples(task, 300)
    draws = statistics.resampled_auc(task, scores, resamples)[0]
    low, high = statistics.auc_interval(draws, statistics.evidence(task, resamples)[0][0], 0.9)
    measured = yardstick.auc(scores)
    assert yardstick.number(measured, 0) == Number(float(measured.values[0]), low, high)


def test_differences_are_paired():
    """Two models that err alike differ for certain, by as much as one of them is unsure of its own AUC."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 20, 60)
    noise, truth = rng.normal(size=len(task.images)), truth_of(task)
    yardstick = Yardstick(task, count=400)
    better, worse, other = (
        yardstick.auc(scores_of(task, shift * truth + of_film))
        for shift, of_film in ((0.9, noise), (0.6, noise), (0.6, rng.permutation(noise)))
    )
    paired = yardstick.difference(better.minus(worse), 0)
    assert paired.scale == "difference"
    assert paired.value == pytest.approx(better.values[0] - worse.values[0])
    assert paired.low > 0
    np.testing.assert_array_equal(better.minus(worse).draws, better.draws - worse.draws)
    unpaired = yardstick.difference(better.minus(other), 0)
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2
    nothing = yardstick.difference(better.minus(better), 0)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert yardstick.p_difference(better.minus(better), 0, null=0.0) == 1
    assert yardstick.p_difference(better.minus(worse), 0, null=0.0) < 0.01
    assert yardstick.p_difference(better.minus(worse), 0, null=paired.value) == pytest.approx(0.5)


def test_an_interval_leaves_unknown_draws_out():
    draws = np.array([0.1, 0.2, 0.3, np.nan])
    assert interval(0.2, draws, 0.5, "share") == Number(0.2, pytest.approx(0.15), pytest.approx(0.25), "share")
    for value, unknown in ((math.nan, draws), (0.2, np.full(3, np.nan))):
        number = interval(value, unknown, 0.95)
        assert math.isnan(number.low)
        assert math.isnan(number.high)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.integers(8, 200))
def test_p_is_students_tail_of_the_distance_in_standard_errors(seed, positives, negatives):
    rng = np.random.default_rng(seed)
    draws = rng.normal(0.6, 0.05, 200)
    value, null = rng.normal(0.6, 0.1), rng.uniform(0.4, 0.6)
    freedom = min(positives, negatives) - 1
    expected = student.sf((value - null) / np.std(draws, ddof=1), freedom)
    luck = 1 / math.comb(positives + negatives, positives)
    actual = p_above(value, draws, null, (positives, negatives))
    assert actual == pytest.approx(max(expected, luck), rel=1e-9)
    assert p_above(value, np.append(draws, np.nan), null, (positives, negatives)) == actual


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (1, 9), (3, 5), (6, 40)])
def test_p_is_never_below_the_luck_of_perfect_separation(positives, negatives):
    draws = np.random.default_rng(0).normal(1, 1e-9, 100)
    luck = 1 / math.comb(positives + negatives, positives)
    assert p_above(1.0, draws, 0.5, (positives, negatives)) >= luck * (1 - 1e-9)
    assert p_above(1.0, np.ones(100), 0.5, (positives, negatives)) == pytest.approx(luck)


def test_p_of_draws_that_never_differ_is_certain_or_one():
    def p(value: float) -> float:
        return p_above(value, np.full(50, value), 0.5, (50, 50))

    assert p(0.75) == pytest.approx(1 / math.comb(100, 50))
    assert p(0.5) == 1
    assert p(0.25) == 1
    rounded = 0.5 + 1e-15 * np.arange(50)  # as sums of shares come out
    assert p_above(0.5 + 1e-16, rounded, 0.5, (50, 50)) == 1
    assert p_above(0.75, rounded + 0.25, 0.5, (50, 50)) == pytest.approx(1 / math.comb(100, 50))


def test_p_of_what_is_not_known_is_one():
    assert p_above(math.nan, np.linspace(0, 1, 9), 0.5, (20, 20)) == 1
    assert p_above(0.9, np.full(9, np.nan), 0.5, (20, 20)) == 1
    assert p_above(0.9, np.array([0.9, np.nan]), 0.5, (20, 20)) == 1


def test_perfect_separation_of_few_patients_is_no_proof():
    """Of 2 and 4 patients every fifteenth order separates them."""
    few, many = (make_task(np.random.default_rng(0), *counts) for counts in ((2, 4), (10, 30)))
    for task, p in ((few, 1 / 15), (many, 1 / math.comb(40, 10))):
        yardstick = Yardstick(task, count=200)
        assert yardstick.p_auc(yardstick.auc(scores_of(task, truth_of(task))), 0) == pytest.approx(p)


# The share of false alarms that 2,500 repetitions of an honest test at 5% exceed in one of 1,000 tries.
REPETITIONS = 2500
ALLOWED = binom.ppf(0.999, REPETITIONS, 0.05) / REPETITIONS


def score_at_chance(rng, task, agreement):
    """Scores that know nothing: a share of their variance is common to all episodes."""
    images = len(task.evaluated[0])
    common, own = rng.normal(size=(1, 1, images)), rng.normal(size=(1, len(task.seeds), images))
    return Scores((np.sqrt(agreement) * common + np.sqrt(1 - agreement) * own,))


@pytest.mark.parametrize(("positives", "negatives", "agreement"), [(6, 60, 1.0), (10, 200, 1.0), (10, 40, 0.5)])
def test_chance_is_seldom_called_better_than_chance(positives, negatives, agreement):
    rng = np.random.default_rng(0)
    task = make_task(rng, positives, negatives, seeds=2)
    yardstick = Yardstick(task, count=300)
    found = []
    for _ in range(REPETITIONS):
        found.append(yardstick.p_auc(yardstick.auc(score_at_chance(rng, task, agreement)), 0))
    assert np.mean(np.array(found) < 0.05) <= ALLOWED
    assert np.mean(np.array(found) < 0.05) > 0.01  # nor does it never speak


def test_a_real_effect_is_found():
    rng = np.random.default_rng(0)
    task = make_task(rng, 20, 60, seeds=2)
    yardstick = Yardstick(task, count=300)
    found = []
    for _ in range(100):
        scores = score_at_chance(rng, task, 0.8)
        found.append(yardstick.p_auc(yardstick.auc(Scores((scores.values[0] + 1.2 * task.truth(0),))), 0))
    assert np.mean(np.array(found) < 0.01) > 0.9


def test_a_gap_that_is_not_there_is_seldom_called_one():
    """Pooled minus matched, of scores that know the finding and not the view, which is tied to it."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 15, 45, seeds=2)
    found = []
    for _ in range(REPETITIONS // 5):
        view = (rng.random(len(task.images)) < np.where(truth_of(task) == 1, 0.6, 0.4)).astype(int)
        yardstick = Yardstick(task, count=200)
        scores = scores_of(task, rng.normal(size=len(view)) + truth_of(task))
        gap = yardstick.auc(scores).minus(yardstick.matched_auc(scores, view))
        found.append(yardstick.p_difference(gap, 0, null=0.0))
    assert np.mean(np.array(found) < 0.05) <= binom.ppf(0.999, len(found), 0.05) / len(found)
