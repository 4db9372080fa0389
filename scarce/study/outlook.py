"""What the next hour of a search is expected to bring, and to cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search.optuna import OptunaSearch

from scarce.budget.prices import Unit
from scarce.budget.spending import HOUR, Spending
from scarce.config import SweepConfig
from scarce.space import Dimension
from scarce.study.expected_improvement import FEWEST, Improvement, encode, expected_improvement
from scarce.study.optuna_space import make_sampler, to_distributions
from scarce.study.searcher import Searcher
from scarce.trials.records import TrialRecord

MOST_POINTS = 64  # further trials that are looked at; the sampler takes up to a second for each
SETS = 8  # of further trials, at most, as the sampler draws them at random


@dataclass(frozen=True)
class Outlook:
    """The next hour, or the next trial where one takes longer."""

    trials: int
    hours: float
    device_hours: float
    usd: float | None  # None: without a price
    unit: Unit
    observations: int  # trials so far that the expectation rests on
    improvement: Improvement | None  # of the validation AUC; None where it cannot be told

    @property
    def sentence(self) -> str:
        """In words."""
        cost = f"${self.usd:.2f}" if self.usd is not None else f"{self.device_hours:.2g} {self.unit}-hours"
        many = self.trials > 1
        what = f"The next hour (about {self.trials} trial{'s' if many else ''}) "
        if self.hours > 1:
            what = f"The next trial{'s' if many else ''} ({self.trials} in {self.hours:.1f} hours) "
        verb = "are" if many and self.hours > 1 else "is"
        if self.improvement is None:
            return f"{what}would cost {cost}; what that would bring cannot be told from {self.observations} trials."
        gain = self.improvement
        return (
            f"{what}{verb} expected to raise the validation AUC by {gain.mean:.3f} (90% interval {gain.low:.3f} to "
            f"{gain.high:.3f}) and to cost {cost}."
        )

    def to_json(self) -> dict[str, Any]:
        """For summary.json."""
        return {**asdict(self), "sentence": self.sentence}


def look_ahead(
    records: Sequence[TrialRecord], space: Mapping[str, Dimension], config: SweepConfig, spending: Spending
) -> Outlook:
    """What further trials would bring: as many as ended in an hour of the search, with settings that its sampler picks.

    They are picked at once from what is known now. A sampler that learns from each does no worse, so that the
    expectation is on the low side.
    """
    search = spending.phases["search"]
    spent = [trial for trial in spending.trials.values() if trial["seconds"] > 0]
    whole = [trial for trial in spent if trial["status"] == "ended"] or spent
    mean = sum(trial["seconds"] for trial in whole) / max(1, len(whole))
    at_once = sum(trial["seconds"] for trial in spent) / max(search["seconds"], 1e-9)
    hours = max(1.0, mean / HOUR)
    trials = max(1, round(hours * HOUR * at_once / mean)) if mean else 1
    share = hours * HOUR / max(search["seconds"], 1e-9)  # of what the search took and cost
    values, errors = whole_values(records, config.pretrain.epochs)
    known = [place for place, value in enumerate(values) if math.isfinite(value)]
    improvement = None
    if len(known) >= FEWEST:
        improvement = expected_improvement(
            encode([records[place].sampled for place in known], space),
            values[known],
            errors[known],
            _next_points(records, space, config, min(trials, MOST_POINTS), spending.path.parent),
            seed=config.pretrain.seed,
        )
    return Outlook(
        trials,
        hours,
        share * search["device_seconds"] / HOUR,
        share * search["usd"] if spending.is_priced else None,
        spending.unit,
        len(known),
        improvement,
    )


def whole_values(records: Sequence[TrialRecord], epochs: float) -> tuple[np.ndarray, np.ndarray]:
    """Each trial's best validation AUC as if none had been stopped early, and its standard error, float64 [N] each.

    What a trial had reached when it was pruned, or stopped for the budget, is less than it could have. It is taken to
    gain as much more as the whole trials did from the same epoch on, on average, and their spread adds to its error.
    Trials that were stopped are the worse ones and may gain less, or more: neither is known. A collapsed trial keeps
    its value.
    """
    whole = [record for record in records if record.last["epoch"] >= epochs]
    values, errors = [], []
    for record in records:
        value, error = record.best["val_auc"], record.best["val_auc_se"]
        if record.last["epoch"] < epochs and not record.last["collapsed"]:
            gains = [
                other.best["val_auc"] - max(before)
                for other in whole
                if (before := [m["val_auc"] for m in other.history if m["epoch"] <= record.last["epoch"] + 1e-6])
            ]
            if gains:
                spread = float(np.std(gains, ddof=1)) if len(gains) > 1 else abs(gains[0])
                value, error = value + float(np.mean(gains)), math.hypot(error, spread)
        values.append(value)
        errors.append(error)
    return np.array(values), np.array(errors)


def _next_points(
    records: Sequence[TrialRecord], space: Mapping[str, Dimension], config: SweepConfig, count: int, folder: Path
) -> list[np.ndarray]:
    """Sets of settings that the sampler would try next, one after the other, before it hears of any."""
    sets = []
    for number in range(max(1, min(SETS, MOST_POINTS // count))):
        sampler = make_sampler(config.search.sampler, config.pretrain.seed + 1 + number, config.search.trials)
        observations = [replace(record, history=[record.best | {"epoch": record.last["epoch"]}]) for record in records]
        searcher = Searcher(
            to_distributions(space),
            sampler,
            points=[],
            epochs=config.pretrain.epochs,
            folder=folder,
            objectives=config.search.objectives,
            observations=observations,
        )
        drawn: list[Any] = [OptunaSearch.suggest(searcher, str(place)) for place in range(count)]  # some may be equal
        sets.append(encode(drawn, space))
    return sets
