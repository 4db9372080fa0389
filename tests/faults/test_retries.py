"""The count of a trial's failures."""

import json
from pathlib import Path

from ray.tune.experiment import Trial

from scarce.checkpoint import HISTORY_NAME
from scarce.retries import TUNE_MAX_FAILURES, Retries
from scarce.trials.failures import failure


class Failing:
    """What Tune does with a trial whose attempts fail, as `TuneController._process_trial_failure` does it."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder, self.trial = folder, Trial("trainable", stub=True)
        self.trial.max_failures = TUNE_MAX_FAILURES
        (folder / "error.txt").write_text("Failure # 1\nFloatingPointError: why\n")
        monkeypatch.setattr(Trial, "error_file", str(folder / "error.txt"))
        self.retries = Retries(lambda sampled: folder)

    def attempt(self, reaches: int | None = None) -> bool:
        """Fail once, after a report at that step; whether there is to be another attempt."""
        if reaches is not None:
            (self.folder / HISTORY_NAME).write_text(json.dumps([{"step": float(reaches)}]))
        self.trial.run_metadata.num_failures += 1
        assert self.trial.should_recover()
        self.retries.on_trial_recover(0, [self.trial], self.trial)
        return failure(self.folder) is None


def test_three_failures_in_a_row_without_progress_end_a_trial(tmp_path: Path, monkeypatch):
    failing = Failing(tmp_path, monkeypatch)
    assert [failing.attempt() for _ in range(3)] == [True, True, False]
    assert failure(tmp_path) == "3 failures in a row without progress, the last one: FloatingPointError: why"
    failing.trial.run_metadata.num_failures += 1  # no process can be started to find that
    assert not failing.trial.should_recover()


def test_failures_after_progress_do_not_count(tmp_path: Path, monkeypatch, capsys):
    failing = Failing(tmp_path, monkeypatch)
    assert all(failing.attempt(reaches=step) for step in range(1, 8))
    said = (
        "tried again, with its reports up to step 7 (failure 0 of 2 in a row without progress): FloatingPointError: why"
    )
    assert said in capsys.readouterr().out
    assert [failing.attempt(), failing.attempt(), failing.attempt(reaches=8), failing.attempt()] == [True] * 4
    assert [failing.attempt(), failing.attempt()] == [True, False]
