"""Optuna through Ray Tune: what the sampler is told about pruned, failed and finished trials."""

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from scarce.trials import read_trials

METRIC = "val_auc"


class Searcher(OptunaSearch):
    """Ray's OptunaSearch, mended where it tells Optuna less than is known.

    A trial that ASHA stops early reaches Optuna as PRUNED at its last step (Ray would call it COMPLETE), a trial that
    reports NaN as FAIL (Ray would leave it RUNNING), and after a restore the trials that finished since the last
    snapshot are added to the study.
    """

    def __init__(
        self,
        space: dict[str, BaseDistribution],
        sampler: optuna.samplers.BaseSampler,
        points: list[dict[str, Any]],
        epochs: float,
        folder: Path,
    ) -> None:
        """Search `space`, the given points first; trials of `epochs` live below the run's `folder`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(space=space, metric=METRIC, mode="max", sampler=sampler, points_to_evaluate=points)
        self.distributions = space
        self.epochs = epochs
        self.folder = folder

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an intermediate value under the training step; Ray's own count is wrong after a restore."""
        if trial_id not in self._completed_trials and math.isfinite(result[METRIC]):
            self._ot_trials[trial_id].report(result[METRIC], int(result["step"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        value = (result or {}).get(METRIC)
        if value is not None and not math.isfinite(value):
            result, error = None, True
        elif value is not None and result is not None and result["epoch"] < self.epochs:
            self.on_trial_result(trial_id, result)
            result = None
        super().on_trial_complete(trial_id, result, error)

    def restore(self, checkpoint_path: str) -> None:
        """Load a snapshot, then add the trials that have finished since it was taken."""
        super().restore(checkpoint_path)
        study: Any = self._ot_study
        known = [trial.params for trial in study.trials]
        for record in read_trials(self.folder):
            if record.last["epoch"] >= self.epochs and record.sampled not in known:
                finished = create_trial(
                    state=TrialState.COMPLETE,
                    value=record.last[METRIC],
                    params=record.sampled,
                    distributions=self.distributions,
                )
                study.add_trial(finished)
