"""When a run has to stop taking trials so that it ends within its budget: plain arithmetic, without a clock.

A budget in dollars is turned into one in time at what the living nodes cost by the hour, anew at every decision. Of the
time left, a reserve is kept for the end of the run, which is the final evaluation, the baselines and the audits.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from scarce.budget.prices import EXPECTED, Prices, parse_prices
from scarce.config import SearchConfig
from scarce.errors import UserError

FIRST_RESERVE = 0.15  # share of the budget that is kept for the end until a trial's evaluation has been timed
END_SECONDS, END_EVALUATIONS = 10.0, 150.0  # the end takes about so long, and so often an evaluation on val more
MOST_RESERVE = 0.5  # share of the budget that the reserve never exceeds
TRIAL_QUANTILE = 0.75  # of the durations of ended trials: so many of them would have fitted


@dataclass(frozen=True)
class Budget:
    """What a run may take, from its start to its end and over all restarts."""

    hours: float = 0.0  # 0: no limit
    usd: float = 0.0  # 0: no limit

    @property
    def is_limited(self) -> bool:
        """Whether there is one."""
        return self.hours > 0 or self.usd > 0

    def seconds_left(self, seconds: float, usd: float, usd_per_hour: float) -> float:
        """How long the run may go on after so many seconds and dollars, at such a price; infinite without a limit."""
        by_time = self.hours * 3600 - seconds if self.hours > 0 else math.inf
        by_price = (self.usd - usd) / usd_per_hour * 3600 if self.usd > 0 and usd_per_hour > 0 else math.inf
        return min(by_time, by_price)


def open_budget(search: SearchConfig) -> tuple[Budget, Prices]:
    """The budget and the prices on the command line.

    Raises:
        UserError: prices that cannot be read, or dollars without prices.
    """
    prices = parse_prices(search.price_per_hour)
    if search.budget_usd > 0 and not prices.dearest:
        raise UserError(f"--budget-usd {search.budget_usd:g} needs to know what a node costs: {EXPECTED}")
    return Budget(search.budget_hours, search.budget_usd), prices


def end_reserve(total: float, evaluation: float | None) -> float:
    """Seconds to keep for the end of a run of `total` seconds, if evaluating a trial takes `evaluation` seconds."""
    if evaluation is None:
        return FIRST_RESERVE * total
    return min(END_SECONDS + END_EVALUATIONS * evaluation, MOST_RESERVE * total)


def expected_trial(ended: Collection[float], projected: Collection[float]) -> float:
    """Seconds that the next trial is expected to take.

    Args:
        ended: of each trial that has ended by itself, was pruned or collapsed.
        projected: of each running trial at its present speed, if it went through; of use only before any has ended.

    Returns:
        A quantile of the first, else of the second; 0 if nothing is known, so that the first trials begin.
    """
    known = list(ended) or list(projected)
    return float(np.quantile(known, TRIAL_QUANTILE)) if known else 0.0


def has_room(left: float, reserve: float, trial: float) -> bool:
    """Whether a trial of so many seconds may begin."""
    return left - reserve > trial


def overruns(left: float, reserve: float, interval: float) -> bool:
    """Whether a trial has to stop at its report, as its next one, `interval` seconds later, would come too late."""
    return left - reserve < interval
