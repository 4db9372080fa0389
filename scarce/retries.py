"""How often Ray Tune tries a trial again: at most twice in a row without progress.

Tune counts a trial's failures for all of its life, and would give up a week-long trial at its third spot preemption.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from scarce.mirror import NOT_MIRRORED, Mirror
from scarce.trials.failures import mark_failed, progress
from scarce.trials.watchdog import HANG_NAME, hang_size

MAX_FAILURES = 2  # in a row
TUNE_MAX_FAILURES = MAX_FAILURES + 1  # Tune decides before `Retries` has looked whether there was progress


class Retries(Callback):
    """Sets a trial's count of failures back to none where its folder shows that the attempt got further.

    At one failure too many the trial is marked as failed, which its next process finds; where none can be started any
    more, Tune's own count ends it.
    """

    def __init__(self, folder_of: Callable[[dict[str, Any]], Path], mirror: Mirror = NOT_MIRRORED) -> None:
        """`folder_of` gives a trial's folder by what was sampled for it; `mirror` fetches it, if it was elsewhere."""
        self._folder_of = folder_of
        self._mirror = mirror
        self._hangs: dict[str, int] = {}  # by trial, what its hanging processes had written by its last failure
        self._progress: dict[str, tuple[int, ...]] = {}  # by trial, at its last failure

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Tune has counted a failure and is about to try again."""
        folder = self._folder_of(trial.config)
        self._mirror.pull_reports()
        now = progress(folder)
        if now != self._progress.get(trial.trial_id, (0,) * len(now)):
            trial.run_metadata.num_failures = 0
            trial.run_metadata.invalidate_cache()
        self._progress[trial.trial_id] = now
        reason = last_line(Path(trial.error_file).read_text())
        written = hang_size(folder)
        if written > self._hangs.get(trial.trial_id, 0):
            reason = f"it hung, see {folder / HANG_NAME}"
        self._hangs[trial.trial_id] = written
        if trial.num_failures > MAX_FAILURES:
            mark_failed(folder, f"{trial.num_failures} failures in a row without progress, the last one: {reason}")
            return
        print(
            f"trial {trial.trial_id[-5:]} {folder.name}  tried again, with its reports up to step {now[0]} (failure "
            f"{trial.num_failures} of {MAX_FAILURES} in a row without progress): {reason}",
            flush=True,
        )


def last_line(error: object) -> str:
    """What an error of Tune comes to."""
    line = str(error).strip().rpartition("\n")[2].strip()
    return "its process was killed, or its machine is gone" if line.startswith("The actor is dead") else line
