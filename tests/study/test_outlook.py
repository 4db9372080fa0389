from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scarce.budget.prices import Node
from scarce.budget.spending import Spending
from scarce.config import PretrainConfig, SearchConfig, SweepConfig
from scarce.space import Choice, Float
from scarce.study.expected_improvement import Improvement
from scarce.study.outlook import Outlook, look_ahead, whole_values
from scarce.trials.records import TrialRecord

SPACE = {"views.noise": Float(0.0, 0.1), "method.temperature": Float(0.05, 0.5, log=True), "views.flip": Choice((0, 1))}
CONFIG = SweepConfig(pretrain=PretrainConfig(epochs=8), search=SearchConfig(trials=20))


def record(name: str, reports: dict[float, float], collapsed: bool = False, **sampled: float) -> TrialRecord:
    """A trial with a validation AUC by epoch."""
    common = {"val_auc_se": 0.003, "collapsed": float(collapsed)}
    history = [{"epoch": epoch, "step": 10 * epoch, "val_auc": auc, **common} for epoch, auc in reports.items()]
    return TrialRecord(name, sampled, {}, history)


def tried(count: int) -> list[TrialRecord]:
    """Trials whose AUC grows with the noise."""
    generator = np.random.default_rng(0)
    records = []
    for number in range(count):
        noise, temperature = generator.uniform(0, 0.07), float(np.exp(generator.uniform(np.log(0.05), np.log(0.5))))
        settings: dict[str, Any] = {"views.noise": noise, "method.temperature": temperature, "views.flip": number % 2}
        auc = 0.6 + noise + 0.002 * generator.normal()
        records.append(record(str(number), {4: auc - 0.01, 8: auc}, **settings))
    return records


def spent(folder: Path, trials: int, seconds: float, price: float | None = 0.36) -> Spending:
    """Two trials at a time, so many in all, each of so many seconds, on one node."""
    spending = Spending(folder, "CPU")
    now = 0.0
    for number in range(0, trials, 2):
        pair = {str(number): None, str(number + 1): None}
        spending.tick("search", [Node("head", "1", 2.0, price)], pair, 1.0, now=now)
        now += seconds
        spending.tick("search", [Node("head", "1", 2.0, price)], {}, 1.0, now=now)
    for trial in spending.trials.values():
        trial["status"] = "ended"
    return spending


def test_the_next_hour_holds_as_many_trials_as_the_last_and_costs_as_much(tmp_path):
    outlook = look_ahead(tried(10), SPACE, CONFIG, spent(tmp_path, 10, 600.0))
    assert (outlook.trials, outlook.hours, outlook.observations) == (12, 1, 10)
    assert outlook.device_hours == pytest.approx(2)
    assert outlook.usd == pytest.approx(0.36)
    assert outlook.improvement is not None
    assert 0.002 < outlook.improvement.mean < 0.04  # the trend goes on for another 0.03
    assert outlook == look_ahead(tried(10), SPACE, CONFIG, spent(tmp_path / "again", 10, 600.0))
    assert "next hour (about 12 trials) is expected to raise the validation AUC by 0.0" in outlook.sentence
    assert outlook.sentence.endswith("and to cost $0.36.")
    assert outlook.to_json()["improvement"]["mean"] == outlook.improvement.mean


def test_a_trial_of_more_than_an_hour_is_looked_at_alone(tmp_path):
    outlook = look_ahead(tried(6), SPACE, CONFIG, spent(tmp_path, 6, 9000.0, price=None))
    assert (outlook.trials, outlook.hours) == (2, 2.5)  # two at a time
    assert outlook.usd is None
    assert "next trials (2 in 2.5 hours)" in outlook.sentence
    assert outlook.sentence.endswith("and to cost 5 CPU-hours.")


def test_three_trials_tell_nothing(tmp_path):
    outlook = look_ahead(tried(3), SPACE, CONFIG, spent(tmp_path, 4, 600.0))
    assert outlook.improvement is None
    assert "what that would bring cannot be told from 3 trials" in outlook.sentence
    assert look_ahead([], SPACE, CONFIG, Spending(tmp_path / "none", "CPU")).observations == 0


def test_two_objectives_look_at_the_auc(tmp_path):
    records = [replace(one, history=[{**report, "val_shortcut": 0.1} for report in one.history]) for one in tried(8)]
    config = replace(CONFIG, search=SearchConfig(trials=20, objective="auc,shortcut"))
    outlook = look_ahead(records, SPACE, config, spent(tmp_path, 8, 600.0))
    assert outlook.improvement is not None


def test_a_stopped_trial_is_taken_to_gain_what_whole_ones_did():
    records = [
        record("a", {2: 0.50, 4: 0.55, 8: 0.60}),
        record("b", {2: 0.52, 4: 0.55, 8: 0.58}),
        record("c", {2: 0.51}),
        record("d", {2: 0.50, 4: 0.53}),
        record("e", {2: 0.50}, collapsed=True),
    ]
    values, errors = whole_values(records, 8)
    np.testing.assert_allclose(values, [0.60, 0.58, 0.51 + 0.08, 0.53 + 0.04, 0.50])
    spreads = [0, 0, np.std([0.10, 0.06], ddof=1), np.std([0.05, 0.03], ddof=1), 0]
    np.testing.assert_allclose(errors, np.hypot(0.003, spreads))
    alone, error = whole_values(records[2:4], 8)  # no whole one to learn from
    np.testing.assert_allclose(alone, [0.51, 0.53])
    np.testing.assert_allclose(error, 0.003)


def test_a_sentence_has_its_singular():
    one = Outlook(1, 1.0, 0.5, None, "GPU", 7, Improvement(0.004, 0.0, 0.013))
    assert one.sentence == (
        "The next hour (about 1 trial) is expected to raise the validation AUC by 0.004 (90% interval 0.000 to 0.013) "
        "and to cost 0.5 GPU-hours."
    )
