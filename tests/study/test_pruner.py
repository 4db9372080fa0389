import pickle
from pathlib import Path

import pytest

from scarce.study.pruner import RUNGS_NAME, Pruner

CONTINUE, STOP = "CONTINUE", "STOP"


def report(pruner: Pruner, trial: str, epoch: float, value: float) -> str:
    return pruner.on_trial_result(None, None, {"trial": trial, "epoch": epoch, "val_auc": value})


def pruner(folder: Path, reduction: int = 2) -> Pruner:
    return Pruner(folder, epochs=8, reduction=reduction, metric="val_auc")


def test_rungs_lie_at_a_quarter_and_a_half(tmp_path):
    one = pruner(tmp_path)
    report(one, "a", 8, 0.9)
    assert report(one, "b", 1.9, 0.1) == CONTINUE  # below the first rung
    assert report(one, "b", 2.0, 0.1) == CONTINUE  # the first to reach it
    assert report(one, "c", 2.5, 0.05) == STOP
    assert report(one, "b", 4.0, 0.1) == STOP  # a was better at the second


@pytest.mark.parametrize(("reduction", "value", "decision"), [(2, 0.55, CONTINUE), (2, 0.45, STOP), (4, 0.55, STOP)])
def test_only_the_best_share_goes_on(tmp_path, reduction, value, decision):
    one = pruner(tmp_path, reduction)
    for number, score in enumerate([0.6, 0.5, 0.4, 0.5, 0.6]):
        report(one, str(number), 2, score)
    assert report(one, "new", 2, value) == decision


def test_a_decision_is_the_same_after_a_restart_and_a_replay(tmp_path):
    one = pruner(tmp_path)
    arrivals = [("a", 0.5), ("b", 0.4), ("c", 0.6), ("d", 0.45)]
    first = [report(one, trial, 2, value) for trial, value in arrivals]
    assert first == [CONTINUE, STOP, CONTINUE, STOP]
    again = pruner(tmp_path)
    assert [report(again, trial, 2, value) for trial, value in reversed(arrivals)] == first[::-1]
    assert report(again, "e", 2, 0.46) == STOP  # it remembers those before the restart


def test_a_copy_knows_what_was_decided_since_it_was_made(tmp_path):
    one = pruner(tmp_path)
    report(one, "a", 2, 0.5)
    snapshot = pickle.dumps(one)
    report(one, "b", 2, 0.6)
    assert report(pickle.loads(snapshot), "c", 2, 0.54) == STOP  # the median of both is 0.55


def test_a_line_cut_short_is_forgotten(tmp_path):
    one = pruner(tmp_path)
    report(one, "a", 2, 0.5)
    report(one, "b", 2, 0.6)
    path = tmp_path / RUNGS_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = pruner(tmp_path)
    assert report(again, "c", 2, 0.54) == CONTINUE  # as b never arrived
    assert [report(pruner(tmp_path), "c", 2, 0.9), report(pruner(tmp_path), "d", 2, 0.51)] == [CONTINUE, STOP]


def test_short_runs_are_never_judged_before_one_epoch(tmp_path):
    one = Pruner(tmp_path, epochs=2, reduction=3, metric="val_auc")
    report(one, "a", 0.5, 0.9)
    assert report(one, "b", 0.5, 0.1) == CONTINUE
