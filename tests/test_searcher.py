import math

import optuna
import pytest
from optuna.trial import TrialState

from scarce.config import SearchConfig
from scarce.optuna_space import make_sampler, to_distributions
from scarce.searcher import Searcher
from scarce.space import Choice, Float
from scarce.trials import TrialRecord

SPACE = {"views.noise": Float(0.0, 0.1), "probe.C": Float(1e-3, 1e2, log=True), "views.flip": Choice((0.0, 0.5))}
START = {"views.noise": 0.03, "probe.C": 1.0, "views.flip": 0.0}


AUC, BOTH = (SearchConfig(objective=objective).objectives for objective in ("auc", "auc,shortcut"))


def searcher(tmp_path, sampler: str = "tpe", seed: int = 0, objectives: dict[str, str] = AUC) -> Searcher:
    space = to_distributions(SPACE)
    return Searcher(space, make_sampler(sampler, seed, 20), [START], epochs=8, folder=tmp_path, objectives=objectives)


def result(value: float, epoch: float, **more: float) -> dict[str, float]:
    return {"val_auc": value, "epoch": epoch, "step": 10 * epoch, "training_iteration": 1, **more}


def states(searcher: Searcher) -> list[TrialState]:
    return [trial.state for trial in searcher._ot_study.trials]


def test_the_first_trial_takes_the_defaults_under_dotted_keys(tmp_path):
    assert searcher(tmp_path).suggest("a") == START


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_seed_repeats_the_suggestions(tmp_path, sampler):
    def run(seed: int) -> list[dict[str, float]]:
        one, suggestions = searcher(tmp_path, sampler, seed), []
        for number in range(12):
            suggestion = one.suggest(str(number))
            suggestions.append(suggestion)
            one.on_trial_complete(str(number), result(0.5 + suggestion["views.noise"], 8))
        return suggestions

    assert run(0) == run(0)
    assert run(0)[1:] != run(1)[1:]


def test_optuna_learns_how_a_trial_ended(tmp_path):
    one = searcher(tmp_path)
    for name in "abcd":
        one.suggest(name)
    one.on_trial_result("a", result(0.55, 4))
    one.on_trial_complete("a", result(0.6, 8))
    one.on_trial_result("b", result(0.45, 2))
    one.on_trial_complete("b", result(0.45, 2))
    one.on_trial_complete("c", result(math.nan, 8))
    one.on_trial_complete("d", None, error=True)
    assert states(one) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    complete, pruned = one._ot_study.trials[:2]
    assert complete.value == 0.6
    assert complete.intermediate_values == {40: 0.55}
    assert pruned.intermediate_values == {20: 0.45}


def test_tpe_finds_the_better_half(tmp_path):
    one = searcher(tmp_path)
    tried = []
    for number in range(30):
        suggestion = one.suggest(str(number))
        tried.append(suggestion["views.noise"])
        one.on_trial_complete(str(number), result(1 - abs(suggestion["views.noise"] - 0.08), 8))
    assert sum(abs(noise - 0.08) < 0.02 for noise in tried[-10:]) >= 6  # 4 of 10 by chance


def test_a_restored_sampler_goes_on_as_if_nothing_had_happened(tmp_path):
    one = searcher(tmp_path)
    for number in range(8):
        one.suggest(str(number))
        one.on_trial_complete(str(number), result(0.5 + number / 100, 8))
    one.save(str(tmp_path / "state.pkl"))
    other = searcher(tmp_path, seed=5)
    other.restore(str(tmp_path / "state.pkl"))
    assert other.suggest("next") == one.suggest("next")


def test_trials_that_finished_after_the_snapshot_are_known_after_a_restore(tmp_path, monkeypatch):
    one = searcher(tmp_path)
    one.suggest("a")
    one.on_trial_complete("a", result(0.6, 8))
    one.save(str(tmp_path / "state.pkl"))
    late = {"views.noise": 0.05, "probe.C": 2.0, "views.flip": 0.5}
    half = {"views.noise": 0.06, "probe.C": 2.0, "views.flip": 0.5}
    records = [
        TrialRecord("1", START, {}, [result(0.6, 8)]),
        TrialRecord("2", late, {}, [result(0.7, 8)]),
        TrialRecord("3", half, {}, [result(0.7, 4)]),
    ]
    monkeypatch.setattr("scarce.searcher.read_trials", lambda folder: records)
    other = searcher(tmp_path)
    other.restore(str(tmp_path / "state.pkl"))
    known = other._ot_study.trials
    assert [(trial.params, trial.value) for trial in known] == [(START, 0.6), (late, 0.7)]
    assert optuna.trial.TrialState.RUNNING not in states(other)


class TestTwoObjectives:
    def test_optuna_learns_both_values_of_a_finished_trial_and_none_of_a_stopped_one(self, tmp_path, caplog):
        one = searcher(tmp_path, objectives=BOTH)
        for name in "abcdef":
            one.suggest(name)
        one.on_trial_result("a", result(0.7, 4, val_shortcut=0.3))
        one.on_trial_complete("a", result(0.6, 8, val_shortcut=0.2))
        one.on_trial_complete("b", result(0.45, 2, val_shortcut=0.0))
        one.on_trial_complete("c", result(0.6, 8, val_shortcut=math.nan))
        one.on_trial_complete("d", result(math.nan, 8, val_shortcut=0.1))
        one.on_trial_complete("e", None, error=True)
        one.on_trial_complete("f", {"trial_id": "f"}, error=True)
        assert states(one) == [TrialState.COMPLETE, TrialState.PRUNED, *[TrialState.FAIL] * 4]
        assert [direction.name for direction in one._ot_study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert one._ot_study.trials[0].values == [0.6, 0.2]
        assert one._ot_study.trials[1].values is None
        assert not caplog.records  # Ray would log what Optuna refused

    def test_tpe_finds_a_front_though_most_trials_are_pruned(self, tmp_path):
        """AUC grows with the noise up to 0.05, the shortcut score from there on: all below 0.05 is the front."""
        one = searcher(tmp_path, objectives=BOTH)
        tried = []
        for number in range(60):
            noise = one.suggest(str(number))["views.noise"]
            tried.append(noise)
            pair = {"value": 0.5 + min(noise, 0.05), "val_shortcut": noise + 10 * max(0, noise - 0.05)}
            one.on_trial_complete(str(number), result(epoch=8 if number % 3 == 0 else 2, **pair))
        assert len(one._ot_study.best_trials) >= 5
        assert sum(noise < 0.05 for noise in tried[-20:]) >= 15  # 10 of 20 by chance

    def test_a_restored_sampler_goes_on_as_if_nothing_had_happened(self, tmp_path):
        one = searcher(tmp_path, objectives=BOTH)
        for number in range(12):
            one.suggest(str(number))
            one.on_trial_complete(str(number), result(0.5 + number / 100, 8 - number % 2, val_shortcut=number / 50))
        one.save(str(tmp_path / "state.pkl"))
        other = searcher(tmp_path, seed=5, objectives=BOTH)
        other.restore(str(tmp_path / "state.pkl"))
        assert other.suggest("next") == one.suggest("next")

    def test_trials_that_finished_after_the_snapshot_are_known_with_both_values(self, tmp_path, monkeypatch):
        one = searcher(tmp_path, objectives=BOTH)
        one.save(str(tmp_path / "state.pkl"))
        early, late = result(0.8, 7, val_shortcut=0.05), result(0.7, 8, val_shortcut=0.1)
        records = [TrialRecord("1", START, {}, [early, late])]
        monkeypatch.setattr("scarce.searcher.read_trials", lambda folder: records)
        other = searcher(tmp_path, objectives=BOTH)
        other.restore(str(tmp_path / "state.pkl"))
        finished = [trial for trial in other._ot_study.trials if trial.state == TrialState.COMPLETE]
        assert [(trial.params, trial.values) for trial in finished] == [(START, [0.7, 0.1])]
