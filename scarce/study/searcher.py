"""Optuna through Ray Tune: what the sampler is told about pruned, failed and finished trials."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from scarce.trials.records import TrialRecord, read_trials

if TYPE_CHECKING:
    from scarce.budget.hook import BudgetHook

SAME_AGAIN = 100  # settings in a row that were all tried before: the space holds no others
EARLIER = "earlier"  # marks a trial of an earlier run in the study


class Searcher(OptunaSearch):
    """Ray's OptunaSearch, mended where it tells Optuna less than is known.

    A trial that ASHA stops early reaches Optuna as PRUNED at its last step (Ray would call it COMPLETE), a trial that
    reports NaN, as failed ones do, as FAIL (Ray would leave it RUNNING), and after a restore the trials that finished
    since the last snapshot are added to the study.

    With several objectives Optuna takes no intermediate values. A trial that was stopped is PRUNED without any then,
    which TPE counts as worse than every finished one.
    """

    def __init__(
        self,
        space: dict[str, BaseDistribution],
        sampler: optuna.samplers.BaseSampler,
        points: list[dict[str, Any]],
        epochs: float,
        folder: Path,
        objectives: Mapping[str, str],
        observations: Sequence[TrialRecord] = (),
        budget: "BudgetHook | None" = None,
    ) -> None:
        """Search `space`, the given points first; trials of `epochs` live below the run's `folder`.

        `objectives` are metrics of a report, each with max or min. `observations` are trials of earlier runs that are
        known as if they had ended here, with a value of all of `space` in `sampled`; TPE counts them among those that
        it waits for before it begins. `budget` says whether another trial may begin.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        metric, mode = list(objectives), list(objectives.values())
        super().__init__(
            space=space,
            metric=metric if len(metric) > 1 else metric[0],
            mode=mode if len(mode) > 1 else mode[0],
            sampler=sampler,
            points_to_evaluate=points,
        )
        self.objectives = tuple(metric)
        self.distributions = space
        self.epochs = epochs
        self.folder = folder
        self.budget = budget
        self.suggested: list[dict[str, Any]] = []
        self._told: dict[str, int] = {}  # the last step with a value, by trial
        for record in observations:
            self._add(record, EARLIER)

    def suggest(self, trial_id: str) -> Any:
        """Settings to try. Without room in the budget: none now, and none ever once no trial runs any more.

        While trials run, room may yet come, as they may be quicker than thought and nodes may cost less.

        No settings are tried twice: two trials with the same ones would share a folder. Where the sampler insists on
        known ones, others are drawn at random. Where the space holds no others the search ends with fewer trials than
        it was asked for, and says so.
        """
        if self.budget is not None and not self.budget.has_room():
            return OptunaSearch.FINISHED if self.budget.is_idle else None
        sampler = self.study.sampler
        for _ in range(SAME_AGAIN):
            settings: Any = super().suggest(trial_id)
            self.study.sampler = sampler
            if settings not in self.suggested:
                self.suggested.append(settings)
                return settings
            self.study.tell(self._ot_trials.pop(trial_id), state=TrialState.FAIL)
            self.study.sampler = optuna.samplers.RandomSampler(len(self.study.trials))
        self.study.sampler = sampler
        print(
            f"no more trials begin: all {len(self.suggested)} settings of the search space have been tried", flush=True
        )
        return OptunaSearch.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an intermediate value under the training step; Ray's own count is wrong after a restore."""
        if len(self.objectives) > 1 or trial_id in self._completed_trials:
            return
        value = result[self.objectives[0]]
        step = int(result["step"])
        if math.isfinite(value) and step > self._told.get(trial_id, 0):  # a trial that is tried again repeats reports
            self._ot_trials[trial_id].report(value, step)
            self._told[trial_id] = step

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        if result is None or not all(name in result for name in self.objectives):
            result = None  # it never reported
        elif not all(math.isfinite(result[name]) for name in self.objectives):
            result, error = None, True
        elif result["epoch"] < self.epochs:
            self.on_trial_result(trial_id, result)
            result = None
        super().on_trial_complete(trial_id, result, error)

    def restore(self, checkpoint_path: str) -> None:
        """Load a snapshot, then add the trials that have finished since it was taken."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # of this process; the snapshot is another's
        folder = self.folder  # may have moved since then
        super().restore(checkpoint_path)
        self.folder = folder
        known = [trial.params for trial in self.study.trials if EARLIER not in trial.user_attrs]
        for record in read_trials(self.folder):
            if record.last["epoch"] >= self.epochs and record.sampled not in known:
                self._add(record)

    @property
    def study(self) -> optuna.Study:
        """What the sampler knows; another one after a restore."""
        study: Any = self._ot_study
        return study

    def _add(self, record: TrialRecord, *marks: str) -> None:
        """Tell Optuna of a trial that it did not suggest: finished, or stopped at its last step."""
        values = [record.last[name] for name in self.objectives]
        finished = record.last["epoch"] >= self.epochs
        trial = create_trial(
            state=TrialState.COMPLETE if finished else TrialState.PRUNED,
            values=values if finished or len(values) == 1 else None,  # as Optuna keeps what it is told of live ones
            intermediate_values={int(record.last["step"]): values[0]} if not finished and len(values) == 1 else {},
            params=record.sampled,
            distributions=self.distributions,
            user_attrs=dict.fromkeys(marks, True),
        )
        self.study.add_trial(trial)
