"""Importances are claimed where there is something to find, and only there."""

import numpy as np
import pytest

from scarce.report.importance import FEWEST, importance_text, importances
from scarce.trials.records import TrialRecord

NAMES = ("views.noise", "views.blur", "method.temperature", "optimiser.name")


def records_of(count: int, effect: float, seed: int = 0) -> list[TrialRecord]:
    """Trials whose AUC goes with `views.noise` as strongly as `effect` says."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        sampled = {name: float(rng.uniform()) for name in NAMES[:-1]} | {NAMES[-1]: ("sgd", "adamw")[number % 2]}
        auc = 0.6 + effect * sampled["views.noise"] + 0.01 * rng.normal()
        report = {"epoch": 4.0, "step": 4.0, "val_auc": auc, "val_auc_se": 0.01, "collapsed": 0.0}
        records.append(TrialRecord(f"{number:012x}", sampled, {}, [report]))
    return records


def test_what_matters_is_found_first_with_its_interval():
    found = importances(records_of(30, 0.1), 4, 0.95)
    assert {one.setting for one in found} == set(NAMES)
    assert sum(one.share for one in found) == pytest.approx(1)
    first, *others = found
    assert first.setting == "views.noise"
    assert first.p < 0.05 < min(one.p for one in others)
    assert first.ci_low > max(one.by_chance for one in found)
    assert importance_text(found, 30, 0.95).startswith("More than chance explains: views.noise (")


def test_of_noise_nothing_is_claimed():
    found = importances(records_of(30, 0.0), 4, 0.95)
    assert min(one.p for one in found) > 0.05
    assert "it cannot be told which of the 4 settings mattered" in importance_text(found, 30, 0.95)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (records_of(FEWEST - 1, 0.1), f"{FEWEST - 1} trials made a report, and 4 settings were searched: too few"),
        ([], "0 setting"),
        ([TrialRecord("a", {"views.noise": 0.1}, {}, [])] * 20, "1 setting was searched"),
    ],
)
def test_too_little_to_tell_is_said_with_the_reason(records: list[TrialRecord], words: str):
    found = importances(records, 4, 0.95)
    assert isinstance(found, str)
    assert words in found
    assert importance_text(found, len(records), 0.95).startswith("Which settings mattered cannot be told: ")
