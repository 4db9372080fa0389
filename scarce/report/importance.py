"""Which settings mattered to a search, and whether its trials are enough to tell.

A setting's importance is its share of the decrease of variance in a random forest that predicts the trials' validation
AUC from their settings (mean decrease of impurity: Breiman 2001, Machine Learning 45:5; as in Optuna's
`MeanDecreaseImpurityImportanceEvaluator`). Such shares sum to 1 whatever there is to find, and a forest divides pure
noise as readily as a signal. So each one is held against what it comes to when the AUCs are shuffled among the trials;
the p-value is that of the largest excess over all settings (Westfall & Young 1993, Resampling-Based Multiple Testing),
which is corrected for their number. Intervals are percentiles over bootstrap resamples of the trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from scarce.study.outlook import whole_values
from scarce.trials.records import TrialRecord

FEWEST = 12  # trials that reported: with fewer, a forest has nothing to split
TREES = 32
BOOTSTRAP = 50  # resamples of the trials
SHUFFLES = 99  # of the AUCs


@dataclass(frozen=True)
class Importance:
    """One setting's share of what a forest explains, in [0, 1], with its interval and its p-value."""

    setting: str
    share: float
    ci_low: float
    ci_high: float
    by_chance: float  # the mean share when the AUCs are shuffled
    p: float  # corrected for the number of settings


def importances(records: Sequence[TrialRecord], epochs: float, confidence: float) -> list[Importance] | str:
    """Importances of the searched settings, largest first, or why there are none.

    Args:
        records: the trials that made a report; one that was stopped early counts with what it could have reached, see
            `whole_values`.
        epochs: of a whole trial.
        confidence: of the intervals, in (0, 1).
    """
    settings = list(records[0].sampled) if records else []
    if len(settings) < 2:
        return f"{len(settings)} setting was searched: there is nothing to compare it with"
    if len(records) < FEWEST:
        return (
            f"{len(records)} trials made a report, and {len(settings)} settings were searched: too few to tell which "
            f"of them mattered; at least {FEWEST} are needed, and several times the number of settings to be sure"
        )
    x = np.column_stack([_coded([record.sampled[name] for record in records]) for name in settings])
    y = whole_values(records, epochs)[0]
    if np.ptp(y) == 0:
        return "all trials came to the same AUC"
    rng = np.random.default_rng(0)
    shares = _shares(x, y, rng)
    rows = rng.integers(len(y), size=(BOOTSTRAP, len(y)))
    draws = np.stack([_shares(x[row], y[row], rng) for row in rows])
    shuffled = np.stack([_shares(x, rng.permutation(y), rng) for _ in range(SHUFFLES)])
    by_chance = shuffled.mean(axis=0)
    largest = (shuffled - by_chance).max(axis=1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    found = [
        Importance(
            setting=name,
            share=float(shares[index]),
            ci_low=float(low[index]),
            ci_high=float(high[index]),
            by_chance=float(by_chance[index]),
            p=float((1 + (largest >= shares[index] - by_chance[index]).sum()) / (1 + SHUFFLES)),
        )
        for index, name in enumerate(settings)
    ]
    return sorted(found, key=lambda importance: -importance.share)


def importance_text(found: Sequence[Importance] | str, trials: int, confidence: float) -> str:
    """What the importances say, in plain words."""
    if isinstance(found, str):
        return f"Which settings mattered cannot be told: {found}."
    known = [importance for importance in found if importance.p < 1 - confidence]
    if not known:
        return (
            f"From {trials} trials it cannot be told which of the {len(found)} settings mattered: none explains more "
            f"of the trials' AUC than chance does (smallest corrected p {min(one.p for one in found):.2f}). The shares "
            "below are what a forest makes of noise as well."
        )
    names = ", ".join(f"{one.setting} ({one.share:.0%}, {one.ci_low:.0%} to {one.ci_high:.0%})" for one in known)
    return f"More than chance explains: {names}. The other settings cannot be told from chance with {trials} trials."


def _coded(values: Sequence[object]) -> np.ndarray:
    """Numbers as they are, everything else by category; a forest asks for no more than an order."""
    if all(isinstance(value, (int, float)) for value in values):
        return np.array(values, dtype=float)
    return pd.Series(list(map(str, values))).factorize(sort=True)[0].astype(float)


def _shares(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    seed = int(rng.integers(2**31))
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed).fit(x, y)
    shares: np.ndarray = forest.feature_importances_
    return shares
