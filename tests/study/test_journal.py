"""The study's file as optuna and optuna-dashboard open it."""

import math
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from test_searcher import BOTH, SPACE, START, earlier, result, searcher

from scarce.study.journal import JOURNAL_NAME, StudyJournal
from scarce.study.optuna_space import to_distributions
from scarce.study.searcher import Searcher


def journal(folder: Path, one: Searcher) -> StudyJournal:
    return StudyJournal(folder, lambda: one.study, lambda sampled: f"named-{sampled['views.noise']:g}")


def load(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL_NAME)))
    return optuna.load_study(study_name=None, storage=storage)


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in load(folder).trials]


def test_it_follows_the_search(tmp_path: Path):
    one = searcher(tmp_path, points=[START, {**START, "views.noise": 0.02}])
    follower = journal(tmp_path, one)
    follower.follow()
    assert states(tmp_path) == []  # the points wait
    for name in "abc":
        one.suggest(name)
    one.on_trial_result("a", result(0.55, 4))
    follower.follow()
    first = load(tmp_path).trials[0]
    assert (first.state, first.params, first.intermediate_values) == (TrialState.RUNNING, START, {40: 0.55})
    one.on_trial_result("a", result(0.58, 6))
    one.on_trial_complete("a", result(0.6, 8))
    one.on_trial_complete("b", result(0.45, 2))
    one.on_trial_complete("c", result(math.nan, 8))
    one.suggest("d")
    follower.on_experiment_end([])
    study = load(tmp_path)
    assert states(tmp_path) == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    complete, pruned = study.trials[:2]
    assert study.best_trial.number == complete.number
    assert (complete.value, complete.intermediate_values) == (0.6, {40: 0.55, 60: 0.58})
    assert pruned.intermediate_values == {20: 0.45}
    assert complete.distributions == to_distributions(SPACE)
    assert [trial.user_attrs["trial"] for trial in study.trials[:2]] == ["named-0.03", "named-0.02"]


def test_a_resumed_search_doubles_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = searcher(tmp_path)
    before = journal(tmp_path, one)
    one.suggest("a")
    one.on_trial_result("a", result(0.5, 4))
    one.suggest("b")
    one.save(str(tmp_path / "state.pkl"))
    one.on_trial_complete("a", result(0.6, 8))  # Tune's snapshot does not have this
    before.follow()
    (tmp_path / f"{JOURNAL_NAME}.lock").symlink_to(tmp_path / JOURNAL_NAME)  # killed while it wrote
    other = searcher(tmp_path, seed=5)
    other.restore(str(tmp_path / "state.pkl"))
    after = journal(tmp_path, other)
    after.follow()
    assert states(tmp_path) == ["RUNNING", "RUNNING"]
    other.on_trial_result("a", result(0.5, 4))
    other.on_trial_complete("a", result(0.6, 8))
    other.on_trial_complete("b", result(0.3, 2))
    after.follow()
    assert states(tmp_path) == ["COMPLETE", "PRUNED"]
    assert load(tmp_path).trials[0].intermediate_values == {40: 0.5}


def test_settings_drawn_twice_are_there_once(tmp_path: Path):
    one = searcher(tmp_path, points=[START, START])
    follower = journal(tmp_path, one)
    for name in "ab":
        one.suggest(name)
    follower.follow()
    assert len(one.study.trials) == 3
    assert states(tmp_path) == ["RUNNING", "RUNNING"]


def test_two_objectives_and_trials_of_an_earlier_run(tmp_path: Path):
    kept = [earlier(1, 0.01, result(0.7, 8, val_shortcut=0.2)), earlier(2, 0.02, result(0.6, 4, val_shortcut=0.1))]
    one = searcher(tmp_path, objectives=BOTH, observations=kept)
    one.suggest("a")
    one.on_trial_complete("a", result(0.65, 8, val_shortcut=0.05))
    journal(tmp_path, one).follow()
    study = load(tmp_path)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    told = {tuple(trial.values or ()): trial for trial in study.trials}
    assert told.keys() == {(0.7, 0.2), (), (0.65, 0.05)}
    assert told[0.7, 0.2].user_attrs == {"earlier": True}
    assert told[0.65, 0.05].user_attrs == {"trial": "named-0.03"}


def test_a_file_that_can_t_be_written_is_begun_anew_once_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "run"
    one = searcher(tmp_path)
    follower = journal(folder, one)
    one.suggest("a")
    follower.follow()
    follower.follow()
    assert capsys.readouterr().out.count("can't be written") == 1
    folder.mkdir()
    one.on_trial_complete("a", result(0.6, 8))
    follower.follow()
    assert states(folder) == ["COMPLETE"]
