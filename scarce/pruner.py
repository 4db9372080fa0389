"""Asynchronous successive halving for Ray Tune, with a memory that survives the driver.

The stopping rule is that of Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", as Ray's
`ASHAScheduler` has it. Ray's forgets its rungs when a run is restored: trials that come after a resume would be
compared with nothing, and a trial that it had just stopped would be let go on.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from scarce.files import write_json

RUNGS_NAME = "rungs.json"


class Pruner(FIFOScheduler):
    """Stops a trial that reaches a rung below the best 1/reduction of those that reached it before.

    Rungs lie at `epochs` / reduction², / reduction and so on, in epochs, none below 1. The rungs are in a file of the
    run's folder, in the order in which trials reached them, so that a decision can be repeated after a restart.
    """

    def __init__(self, folder: Path, epochs: float, reduction: int, metric: str) -> None:
        super().__init__()
        self.path = folder / RUNGS_NAME
        self.score = metric  # `metric` is taken by the base class
        self.epochs = epochs
        self.reduction = reduction
        self.rungs = [max(1.0, epochs / reduction**2), max(1.0, epochs / reduction)]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide about a report, which names its `trial`, `epoch` and the metric."""
        reached = [rung for rung in self.rungs if result["epoch"] >= rung]
        if not reached:
            return str(TrialScheduler.CONTINUE)
        too_low = self.is_too_low(reached[-1], result["trial"], result[self.score])
        ends_anyway = result["epoch"] >= self.epochs
        return str(TrialScheduler.STOP if too_low and not ends_anyway else TrialScheduler.CONTINUE)

    def is_too_low(self, rung: float, identity: str, value: float) -> bool:
        """Whether a trial falls short at a rung; the same answer however often it is asked."""
        arrived: dict[str, list[tuple[str, float]]] = json.loads(self.path.read_text()) if self.path.exists() else {}
        here = arrived.setdefault(str(rung), [])
        if identity not in [name for name, _ in here]:
            here.append((identity, value))
            write_json(self.path, arrived)
        place = [name for name, _ in here].index(identity)
        earlier = [score for _, score in here[:place]]
        return bool(earlier) and here[place][1] < float(np.percentile(earlier, 100 * (1 - 1 / self.reduction)))
