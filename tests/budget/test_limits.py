"""The decisions, without a clock; a sweep that ends within its budget is in test_budget_sweep.py."""

import math

import pytest

from scarce.budget.limits import (
    END_EVALUATIONS,
    END_SECONDS,
    Budget,
    end_reserve,
    expected_trial,
    has_room,
    open_budget,
    overruns,
)
from scarce.config import SearchConfig
from scarce.errors import UserError


def test_the_tighter_of_two_limits_counts():
    both = Budget(hours=2, usd=3)
    assert both.seconds_left(3600, 0.5, usd_per_hour=1.0) == 3600
    assert both.seconds_left(3600, 2.5, usd_per_hour=1.0) == 1800
    assert both.seconds_left(3600, 2.5, usd_per_hour=2.0) == 900  # more nodes, less time
    assert both.seconds_left(9000, 0, usd_per_hour=0) < 0
    assert Budget(usd=3).seconds_left(1e9, 0, usd_per_hour=0) == math.inf
    assert Budget().seconds_left(1e9, 1e9, 1e9) == math.inf
    assert not Budget().is_limited


def test_the_end_has_a_share_until_an_evaluation_was_timed():
    assert end_reserve(3600, None) == pytest.approx(540)
    assert end_reserve(36000, 2.0) == END_SECONDS + END_EVALUATIONS * 2
    assert end_reserve(100, 1e6) == 50  # the search gets half at least


def test_a_trial_is_expected_to_take_what_most_took():
    assert expected_trial([], []) == 0
    assert expected_trial([], [80.0]) == 80
    assert expected_trial([25.0] * 4 + [100.0] * 4, [500.0]) == 100
    assert expected_trial([25.0] * 9 + [100.0], [500.0]) == 25


def test_room_is_what_the_reserve_leaves():
    assert has_room(left=200, reserve=50, trial=100)
    assert not has_room(left=140, reserve=50, trial=100)
    assert has_room(left=1, reserve=0.5, trial=0)  # nothing is known: the first one begins
    assert not has_room(left=40, reserve=50, trial=0)
    assert overruns(left=80, reserve=50, interval=31)
    assert not overruns(left=80, reserve=50, interval=30)
    assert has_room(math.inf, 0, 1e9)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (SearchConfig(budget_usd=5), r"--budget-usd 5 needs to know"),
        (SearchConfig(budget_usd=5, price_per_hour=("0",)), r"--budget-usd 5 needs to know"),
        (SearchConfig(price_per_hour=("l4:0.3",)), r"--price-per-hour l4:0\.3"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(search, words):
    with pytest.raises(UserError, match=words):
        open_budget(search)


def test_the_flags_of_a_budget():
    budget, prices = open_budget(SearchConfig(budget_hours=2, budget_usd=5, price_per_hour=("l4=0.34",)))
    assert (budget, prices.of(["l4"])) == (Budget(2, 5), 0.34)
