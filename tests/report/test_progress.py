import pytest

from scarce.report.progress import Cost, Progress, Snapshot
from scarce.trials.endings import ending


def report(epoch: float, auc: float = 0.6, **more: object) -> dict[str, object]:
    numbers = {"epoch": epoch, "val_auc": auc, "val_auc_se": 0.02, "images_per_s": 100.0}
    return {**numbers, "loss": 3.2, "effective_rank": 20.0, **more}


def look(progress: Progress, seconds: float = 0.0, **cost: float) -> Snapshot:
    return progress.snapshot({"CPU": (1.0, 2.0)}, Cost(seconds, **cost))


@pytest.mark.parametrize(
    ("last", "how"),
    [
        (report(4), "done"),
        (report(2), "pruned"),
        (report(2, out_of_budget=True), "stopped for the budget"),
        (report(2, collapsed=1.0), "collapsed"),
        (report(4, collapsed=1.0), "collapsed"),
        ({"failed": "no", "epoch": 0.0}, "failed"),
        ({}, "pruned"),
    ],
)
def test_how_a_trial_ended(last: dict[str, object], how: str):
    assert ending(last, epochs=4) == how


def test_trials_are_counted_whatever_becomes_of_them():
    progress = Progress(trials=6, epochs=4)
    assert look(progress).waiting == 6
    for trial in "abcd":
        progress.began(trial)
    progress.ended("a", "done")
    progress.ended("b", "pruned")
    progress.waits("c")  # its process is gone
    now = look(progress)
    assert [row.trial for row in now.running] == ["d"]
    assert now.ended == {"done": 1, "pruned": 1}
    assert now.waiting == 3
    progress.began("a")  # Tune marks a trial only after it tells of its end
    assert look(progress) == now


def test_the_best_report_is_of_any_trial_and_any_time():
    progress = Progress(trials=3, epochs=4)
    for trial, epoch, auc in (("a", 1, 0.6), ("b", 1, 0.7), ("b", 2, 0.65), ("a", 2, 0.68)):
        progress.began(trial)
        progress.reported(trial, report(epoch, auc))
    progress.reported("c", {"failed": "no", "val_auc": float("nan"), "epoch": 0.0})
    best = look(progress).best
    assert best is not None
    assert (best.trial, best.report["val_auc"]) == ("b", 0.7)
    assert [row.report["val_auc"] for row in look(progress).running] == [0.68, 0.65]
    assert look(progress).images_per_s == 200


def test_time_left_is_of_the_work_that_this_process_did():
    progress = Progress(trials=4, epochs=4)
    progress.ended("a", "done")  # before a resume
    assert look(progress, seconds=1000).seconds_left is None
    progress.began("b")
    progress.reported("b", report(2))
    assert look(progress, seconds=1010).seconds_left == pytest.approx(10 / 0.125 * 0.625)
    progress.ended("b", "pruned")
    assert look(progress, seconds=1010).seconds_left == pytest.approx(10 / 0.25 * 0.5)
    assert look(progress, seconds=1010, budget_seconds=12.0).seconds_left == 12


def test_what_is_left_is_priced_by_the_nodes_that_are_alive():
    progress = Progress(trials=2, epochs=4)
    look(progress)
    progress.ended("a", "done")
    assert look(progress, seconds=1800, usd=1.0, usd_per_hour=3.0).usd_left == pytest.approx(1.5)
    assert look(progress, seconds=1800).usd_left is None
