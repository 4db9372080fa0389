"""Asynchronous successive halving for Ray Tune, with a memory that survives the driver.

The stopping rule is that of Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", as Ray's
`ASHAScheduler` has it. Ray's forgets its rungs when a run is restored: trials that come after a resume would be
compared with nothing, and a trial that it had just stopped would be let go on.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

RUNGS_NAME = "rungs.jsonl"


class Pruner(FIFOScheduler):
    """Stops a trial that reaches a rung below the best 1/reduction of those that reached it before.

    Rungs lie at `epochs` / reduction², / reduction and so on, in epochs, none below 1. A file of the run's folder has a
    line for every arrival at a rung, in their order, so that a decision can be repeated after a restart. It is read
    once and appended to: the thousandth trial costs what the first one did.
    """

    def __init__(self, folder: Path, epochs: float, reduction: int, metric: str) -> None:
        super().__init__()
        self.path = folder / RUNGS_NAME
        self.score = metric  # `metric` is taken by the base class
        self.epochs = epochs
        self.reduction = reduction
        self.rungs = [max(1.0, epochs / reduction**2), max(1.0, epochs / reduction)]
        self._is_read = False
        self._scores: dict[float, list[float]] = {}  # by rung, in the order of arrival
        self._too_low: dict[tuple[float, str], bool] = {}  # by rung and trial

    def __getstate__(self) -> dict[str, Any]:
        """Without what the file says, which may say more once the copy is used."""
        return self.__dict__ | {"_is_read": False}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide about a report, which names its `trial`, `epoch` and the metric."""
        reached = [rung for rung in self.rungs if result["epoch"] >= rung]
        if not reached:
            return str(TrialScheduler.CONTINUE)
        too_low = self.is_too_low(reached[-1], result["trial"], result[self.score])
        ends_anyway = result["epoch"] >= self.epochs
        return str(TrialScheduler.STOP if too_low and not ends_anyway else TrialScheduler.CONTINUE)

    def is_too_low(self, rung: float, identity: str, value: float) -> bool:
        """Whether a trial falls short at a rung; the same answer however often it is asked.

        A value that is no number is none to compare with.
        """
        if not math.isfinite(value):
            return False
        if not self._is_read:
            self._read()
        if (rung, identity) not in self._too_low:
            line = json.dumps({"rung": rung, "trial": identity, "score": value})
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._arrive(rung, identity, value)
        return self._too_low[rung, identity]

    def _read(self) -> None:
        """Take in the arrivals before this process; a line that a crash has cut short is dropped."""
        self._is_read, self._scores, self._too_low = True, {}, {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            lines, newline, _ = self.path.read_bytes().rpartition(b"\n")
            os.truncate(self.path, len(lines + newline))
            for line in lines.splitlines():
                arrival = json.loads(line)
                self._arrive(arrival["rung"], arrival["trial"], arrival["score"])

    def _arrive(self, rung: float, identity: str, value: float) -> None:
        earlier = self._scores.setdefault(rung, [])
        share = 100 * (1 - 1 / self.reduction)
        self._too_low[rung, identity] = bool(earlier) and value < float(np.percentile(earlier, share))
        earlier.append(value)
