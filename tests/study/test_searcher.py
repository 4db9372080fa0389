import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from scarce.config import SearchConfig
from scarce.files import write_json
from scarce.space import Choice, Float
from scarce.study.optuna_space import make_sampler, to_distributions
from scarce.study.searcher import Searcher
from scarce.trials.records import TrialRecord

SPACE = {"views.noise": Float(0.0, 0.1), "probe.C": Float(1e-3, 1e2, log=True), "views.flip": Choice((0.0, 0.5))}
START = {"views.noise": 0.03, "probe.C": 1.0, "views.flip": 0.0}


AUC, BOTH = (SearchConfig(objective=objective).objectives for objective in ("auc", "auc,shortcut"))


def searcher(
    tmp_path,
    sampler: str = "tpe",
    seed: int = 0,
    objectives: dict[str, str] = AUC,
    points: Sequence[dict[str, float]] = (START,),
    observations: Sequence[TrialRecord] = (),
) -> Searcher:
    return Searcher(
        to_distributions(SPACE),
        make_sampler(sampler, seed, 20),
        list(points),
        epochs=8,
        folder=tmp_path,
        objectives=objectives,
        observations=observations,
    )


def result(value: float, epoch: float, **more: float) -> dict[str, float]:
    return {"val_auc": value, "epoch": epoch, "step": 10 * epoch, "training_iteration": 1, **more}


def states(searcher: Searcher) -> list[TrialState]:
    return [trial.state for trial in searcher._ot_study.trials]


def test_the_first_trial_takes_the_defaults_under_dotted_keys(tmp_path):
    assert searcher(tmp_path).suggest("a") == START


def test_settings_are_suggested_once_and_a_space_without_others_ends_the_search(tmp_path, capsys):
    space = {"views.flip": Choice((0.0, 0.5)), "method.dim": Choice((8, 16, 32))}
    one = Searcher(
        to_distributions(space),
        make_sampler("tpe", 0, 20),
        [{"views.flip": 0.5, "method.dim": 16}] * 2,
        epochs=8,
        folder=tmp_path,
        objectives=AUC,
    )
    suggestions = []
    for number in range(6):
        suggestions.append(one.suggest(str(number)))
        one.on_trial_complete(str(number), result(0.5, 8))
    assert len({tuple(suggestion.items()) for suggestion in suggestions}) == 6
    assert states(one).count(TrialState.COMPLETE) == 6
    assert one.suggest("more") == Searcher.FINISHED
    assert "all 6 settings" in capsys.readouterr().out


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
    monkeypatch.setattr("scarce.study.searcher.read_trials", lambda folder: records)
    other = searcher(tmp_path)
    other.restore(str(tmp_path / "state.pkl"))
    known = other._ot_study.trials
    assert [(trial.params, trial.value) for trial in known] == [(START, 0.6), (late, 0.7)]
    assert optuna.trial.TrialState.RUNNING not in states(other)


def test_a_trial_that_left_its_machine_before_its_first_report_is_no_obstacle_to_a_restore(tmp_path):
    one = searcher(tmp_path)
    one.suggest("a")
    one.save(str(tmp_path / "state.pkl"))
    write_json(tmp_path / "trials" / "1" / "trial.json", {"sampled": START, "settings": {}})
    write_json(tmp_path / "trials" / "1" / "history.json", [])
    other = searcher(tmp_path)
    other.restore(str(tmp_path / "state.pkl"))
    assert len(other._ot_study.trials) == 1


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
        monkeypatch.setattr("scarce.study.searcher.read_trials", lambda folder: records)
        other = searcher(tmp_path, objectives=BOTH)
        other.restore(str(tmp_path / "state.pkl"))
        finished = [trial for trial in other._ot_study.trials if trial.state == TrialState.COMPLETE]
        assert [(trial.params, trial.values) for trial in finished] == [(START, [0.7, 0.1])]


def earlier(number: int, noise: float, last: dict[str, float]) -> TrialRecord:
    return TrialRecord(str(number), {"views.noise": noise, "probe.C": 1.0, "views.flip": 0.5}, {}, [last])


def hill(trials: int = 20) -> list[TrialRecord]:
    """Finished trials of an earlier run whose AUC is highest at a noise of 0.08."""
    noises = np.random.default_rng(0).uniform(0, 0.1, trials)
    return [earlier(number, noise, result(1 - abs(noise - 0.08), 8)) for number, noise in enumerate(noises)]


class TestTrialsOfAnEarlierRun:
    def test_they_are_known_as_live_ones_would_be(self, tmp_path):
        kept = [earlier(1, 0.01, result(0.7, 8)), earlier(2, 0.02, result(0.6, 4))]
        one = searcher(tmp_path, observations=kept)
        for record, state in zip(kept, (TrialState.COMPLETE, TrialState.PRUNED), strict=True):
            told = next(trial for trial in one._ot_study.trials if trial.params == record.sampled)
            assert told.state == state
        live = searcher(tmp_path, points=[record.sampled for record in kept])
        for record in kept:
            assert live.suggest(record.identity) == record.sampled
            live.on_trial_complete(record.identity, record.last)
        fields = ("state", "values", "params", "distributions", "intermediate_values")
        told, lived = (
            [[getattr(trial, name) for name in fields] for trial in each._ot_study.trials if trial.params]
            for each in (one, live)
        )
        assert told == lived

    def test_the_given_points_still_come_first_and_in_order(self, tmp_path):
        points = [START, *(record.sampled for record in hill(3))]
        one = searcher(tmp_path, points=points, observations=hill())
        assert [one.suggest(str(number)) for number in range(4)] == points

    def test_tpe_begins_with_what_they_say_and_not_at_random(self, tmp_path):
        def suggestions(observations: Sequence[TrialRecord], seed: int) -> list[float]:
            one = searcher(tmp_path, seed=seed, points=[], observations=observations)
            return [one.suggest(str(number))["views.noise"] for number in range(4)]  # side by side, nothing told yet

        informed, blind = ([suggestions(known, seed) for seed in range(10)] for known in (hill(), ()))
        near = [sum(abs(noise - 0.08) < 0.02 for run in runs for noise in run) for runs in (informed, blind)]
        assert near[0] >= 30  # of 40, 16 by chance
        assert near[1] <= 22

    def test_random_search_does_not_mind_them(self, tmp_path):
        informed, blind = (searcher(tmp_path, "random", observations=known) for known in (hill(), ()))
        assert [informed.suggest(str(n)) for n in range(5)] == [blind.suggest(str(n)) for n in range(5)]

    def test_a_resumed_search_has_them_once(self, tmp_path):
        one = searcher(tmp_path, observations=hill())
        one.suggest("a")
        one.on_trial_complete("a", result(0.6, 8))
        one.save(str(tmp_path / "state.pkl"))
        other = searcher(tmp_path, seed=5, observations=hill())
        other.restore(str(tmp_path / "state.pkl"))
        assert len(other._ot_study.trials) == 21
        assert other.suggest("next") == one.suggest("next")

    def test_one_that_was_tried_again_after_the_snapshot_is_known_as_this_runs_too(self, tmp_path, monkeypatch):
        one = searcher(tmp_path, observations=hill(2))
        one.save(str(tmp_path / "state.pkl"))
        again = TrialRecord("again", hill(1)[0].sampled, {}, [result(0.9, 8)])
        monkeypatch.setattr("scarce.study.searcher.read_trials", lambda folder: [again])
        one.restore(str(tmp_path / "state.pkl"))
        assert [trial.value for trial in one._ot_study.trials if trial.params == again.sampled] == [
            hill(1)[0].last["val_auc"],
            0.9,
        ]

    def test_with_two_objectives_both_values_are_told(self, tmp_path):
        kept = [
            earlier(1, 0.01, result(0.7, 8, val_shortcut=0.2)),
            earlier(2, 0.02, result(0.6, 4, val_shortcut=0.1)),
        ]
        one = searcher(tmp_path, objectives=BOTH, points=[], observations=kept)
        assert states(one) == [TrialState.COMPLETE, TrialState.PRUNED]
        assert [trial.values for trial in one._ot_study.trials] == [[0.7, 0.2], None]
        one.suggest("next")
