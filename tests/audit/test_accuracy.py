"""Accuracies against scipy's exact tests, slow searches over every number of images, and published examples."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from scarce.audit.accuracy import compare_paired, judge_accuracy


def test_55_percent_is_no_result_on_120_images_and_one_on_600() -> None:
    few, many = judge_accuracy(66, 120), judge_accuracy(330, 600)
    assert few.accuracy == many.accuracy == 0.55
    assert few.p_value == pytest.approx(0.315, abs=5e-4)
    assert many.p_value == pytest.approx(0.016, abs=5e-4)
    assert (few.distinguishable, many.distinguishable) == (False, True)
    assert (few.images_to_tell, few.images_for_power) == (many.images_to_tell, many.images_for_power)
    assert "66 of 120 held-out images" in few.in_words()
    assert "not distinguishable from chance (50%, p = 0.315)" in few.in_words()
    assert f"needs {few.images_for_power} held-out images" in few.in_words()
    assert "better than chance (50%, p = 0.016)" in many.in_words()


def test_the_needed_images_are_those_of_the_textbook() -> None:
    """n = ((z_a sqrt(c(1-c)) + z_b sqrt(a(1-a))) / (a - c))^2, and the exact test needs a few more."""
    power, confidence = norm.ppf([0.8, 0.975])
    ballpark = ((confidence * 0.5 + power * np.sqrt(0.55 * 0.45)) / 0.05) ** 2
    assert 780 < ballpark < 785
    needed = judge_accuracy(66, 120).images_for_power
    assert needed is not None
    assert ballpark < needed < 1.06 * ballpark


def slow_needed(correct: int, total: int, chance: float, confidence: float, power: float, most: int) -> tuple[int, int]:
    """Try every number of images up to `most` by sums of binomial terms."""
    accuracy, tail = correct / total, (1 - confidence) / 2
    not_significant, not_powered = 0, 0
    for images in range(1, most + 1):
        ways = np.array([float(comb(images, successes)) for successes in range(images + 1)])
        successes = np.arange(images + 1)
        by_chance = np.cumsum((ways * chance**successes * (1 - chance) ** (images - successes))[::-1])[::-1]
        by_skill = np.cumsum((ways * accuracy**successes * (1 - accuracy) ** (images - successes))[::-1])[::-1]
        if by_chance[int(np.floor(accuracy * images + 0.5 + 1e-9))] > tail:
            not_significant = images
        fewest = next((k for k in successes if by_chance[k] <= tail), None)
        if fewest is None or by_skill[fewest] < power:
            not_powered = images
    return not_significant + 1, not_powered + 1


@pytest.mark.parametrize(
    ("correct", "total", "chance", "confidence", "power"),
    [
        (33, 50, 0.5, 0.95, 0.8),
        (31, 50, 0.5, 0.95, 0.8),
        (3, 4, 0.5, 0.95, 0.8),
        (19, 20, 0.5, 0.95, 0.9),
        (7, 7, 0.5, 0.95, 0.8),
        (7, 7, 0.9, 0.95, 0.8),
        (33, 50, 0.5, 0.99, 0.5),
        (5, 20, 0.1, 0.95, 0.8),
        (9, 10, 0.75, 0.8, 0.95),
    ],
)
def test_the_needed_images_are_those_of_a_search_over_all_numbers(
    correct: int, total: int, chance: float, confidence: float, power: float
) -> None:
    judged = judge_accuracy(correct, total, chance, confidence, power)
    expected = slow_needed(correct, total, chance, confidence, power, most=400)
    assert max(expected) < 300  # so that the search has seen the end of it
    assert (judged.images_to_tell, judged.images_for_power) == expected


def test_the_needed_images_of_55_percent_by_scipys_test() -> None:
    judged = judge_accuracy(11, 20)
    p_values = [binomtest((2 * 11 * n + 20) // 40, n).pvalue for n in range(1, 1000)]
    assert judged.images_to_tell == 1 + max(n for n, p in enumerate(p_values, start=1) if p > 0.05)


def test_the_detectable_accuracy_has_the_power() -> None:
    judged = judge_accuracy(60, 120)
    assert judged.images_for_power is None
    assert judged.detectable == pytest.approx(0.63, abs=0.01)
    draws = np.random.default_rng(0).binomial(120, judged.detectable, 20_000)
    found = [judge_accuracy(int(k), 120).distinguishable for k in np.unique(draws)]
    power = np.array(found)[np.searchsorted(np.unique(draws), draws)].mean()
    assert power == pytest.approx(0.8, abs=0.015)
    assert "only if it is truly right 63" in judged.in_words()
    assert judge_accuracy(2, 5).detectable is None
    assert "not even a perfect classifier" in judge_accuracy(2, 5).in_words()
    assert judge_accuracy(5, 5).images_to_tell == judge_accuracy(5, 5).images_for_power == 6  # 2 / 2^6 < 0.05 < 2 / 2^5


@given(st.integers(1, 300).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
@settings(max_examples=60, deadline=None)
def test_the_test_and_the_interval_agree_with_scipy_and_each_other(counts: tuple[int, int]) -> None:
    judged, test = judge_accuracy(*counts), binomtest(*counts)
    assert judged.p_value == pytest.approx(test.pvalue)
    interval = test.proportion_ci(0.95, method="exact")
    assert (judged.ci_low, judged.ci_high) == (interval.low, interval.high)
    assert judged.distinguishable == (not judged.ci_low <= 0.5 <= judged.ci_high)
    above = judged.accuracy > 0.5
    assert (judged.images_to_tell is not None) == (judged.images_for_power is not None) == above
    if judged.images_to_tell is not None and counts[1] >= judged.images_to_tell:
        assert judged.distinguishable
    assert len(judged.in_words().split(". ")) == 2


@given(st.integers(1, 200), st.floats(0.05, 0.95), st.data())
@settings(max_examples=30, deadline=None)
def test_the_verdict_agrees_with_the_interval_at_any_chance(total: int, chance: float, data: st.DataObject) -> None:
    judged = judge_accuracy(data.draw(st.integers(0, total)), total, chance)
    assert judged.distinguishable == (not judged.ci_low <= chance <= judged.ci_high)


def test_the_false_alarms_are_rare() -> None:
    draws = np.random.default_rng(0).binomial(120, 0.5, 20_000)
    alarm = {int(k): judge_accuracy(int(k), 120).distinguishable for k in np.unique(draws)}
    assert 0.02 < np.mean([alarm[int(k)] for k in draws]) < 0.05


def test_close_to_chance_needs_too_many_images_to_tell() -> None:
    judged = judge_accuracy(50_010, 100_000)
    assert (judged.images_to_tell, judged.images_for_power) == (None, None)
    assert "more than 1,000,000 held-out images" in judged.in_words()
    close = judge_accuracy(301, 600)
    assert close.images_to_tell is not None
    assert close.images_for_power == pytest.approx((norm.ppf([0.8, 0.975]).sum() / 2 / (1 / 600)) ** 2, rel=0.005)


def test_worse_than_chance_is_told() -> None:
    judged = judge_accuracy(40, 120)
    assert judged.distinguishable
    assert "worse than chance" in judged.in_words()
    assert judged.images_for_power is None


@pytest.mark.parametrize(
    "arguments", [(5, 4), (-1, 4), (0, 0), (1, 2, 0.0), (1, 2, 1.0), (1, 2, 0.5, 1.0), (1, 2, 0.5, 0.95, 0.0)]
)
def test_impossible_counts_and_shares_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        judge_accuracy(*arguments)


def right(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("table", "difference", "interval"),
    # Examples of Fagerland, Lydersen & Laake (2013, BMC Medical Research Methodology 13:91, and 2017, Statistical
    # Analysis of Contingency Tables, chapter 8): bronchial hyper-responsiveness before and after stem cell
    # transplantation, complete response before and after consolidation therapy.
    [((1, 1, 7, 12), -0.286, (-0.507, -0.026)), ((59, 6, 16, 80), -0.0621, (-0.1186, -0.0046))],
)
def test_newcombes_interval_is_the_published_one(
    table: tuple[int, int, int, int], difference: float, interval: tuple[float, float]
) -> None:
    compared = compare_paired(*right(*table))
    assert compared.difference == pytest.approx(difference, abs=5e-4)
    assert (compared.ci_low, compared.ci_high) == pytest.approx(interval, abs=5e-4 if table[0] == 1 else 5e-5)
    smaller, discordant = min(table[1:3]), table[1] + table[2]
    tail = sum(comb(discordant, k) for k in range(smaller + 1)) / 2**discordant
    assert compared.p_value == pytest.approx(2 * tail)
    swapped = compare_paired(*reversed(right(*table)))
    assert (swapped.ci_low, swapped.ci_high) == pytest.approx((-compared.ci_high, -compared.ci_low))
    assert swapped.p_value == compared.p_value


def test_newcombes_interval_covers() -> None:
    rng = np.random.default_rng(0)
    shares = [0.5, 0.2, 0.1, 0.2]
    compared = [compare_paired(*right(*rng.multinomial(60, shares))) for _ in range(1000)]
    covered = np.mean([one.ci_low <= 0.1 <= one.ci_high for one in compared])
    assert 0.93 < covered < 0.985


def test_classifiers_that_are_right_on_the_same_images_do_not_differ() -> None:
    first, _ = right(5, 0, 0, 5)
    same = compare_paired(first, first)
    assert (same.difference, same.p_value, same.distinguishable) == (0, 1, False)
    assert same.ci_low < 0 < same.ci_high
    perfect = compare_paired(np.ones(30, dtype=bool), np.zeros(30, dtype=bool))
    assert perfect.distinguishable
    assert (perfect.difference, perfect.ci_high) == (1, pytest.approx(1))
    assert "The forest is better than brightness." in perfect.in_words("the forest", "brightness")
    worse = compare_paired(*right(5, 1, 12, 5))
    assert "The forest is worse than brightness." in worse.in_words("the forest", "brightness")
    assert "not distinguishable from brightness" in same.in_words("the forest", "brightness")


def test_other_images_and_odd_confidences_are_refused() -> None:
    for first, second in [(4, 5), (0, 0)]:
        with pytest.raises(ValueError, match="same images"):
            compare_paired(np.ones(first, dtype=bool), np.ones(second, dtype=bool))
    with pytest.raises(ValueError, match="confidence"):
        compare_paired(np.ones(3, dtype=bool), np.ones(3, dtype=bool), confidence=95)
