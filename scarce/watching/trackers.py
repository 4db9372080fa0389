"""The trials of a search as runs of MLflow or Weights & Biases: a call a report, from the driver.

Both are optional: `pip install 'scarce[mlflow]'`, `pip install 'scarce[wandb]'`. A run is found again by its trial's
identity, so that a resumed search goes on with it. That a tracker fails while the search runs is said once, and it is
told no more.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import AUTO_RESULT_KEYS

from scarce.config import RunConfig
from scarce.errors import UserError, one_line
from scarce.files import stable_hash
from scarce.settings import Value
from scarce.trials.endings import ending
from scarce.trials.records import FAILED

TRIAL_TAG, ENDING_TAG = "trial", "ending"


class Tracker(Protocol):
    """Where trials are told of."""

    name: str

    def report(self, trial: str, sampled: Mapping[str, Value], metrics: Mapping[str, float], step: int) -> None:
        """Tell of a report; one that was told of before is left out."""

    def end(self, trial: str, how: str) -> None:
        """Tell how a trial ended that made a report."""


class MlflowTracker:
    """An MLflow run a trial, in an experiment of the search's name."""

    name = "mlflow"

    def __init__(self, uri: str, experiment: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        self._runs: dict[str, str] = {}  # MLflow's id by trial
        self._steps: dict[str, int] = {}  # the last one told, by trial

    def report(self, trial: str, sampled: Mapping[str, Value], metrics: Mapping[str, float], step: int) -> None:
        """Make the run at the first report."""
        from mlflow.entities import Metric, Param

        if trial not in self._runs:
            self._begin(trial, [Param(key, str(value)) for key, value in sampled.items()])
        if step > self._steps[trial]:
            now = round(1000 * time.time())
            self._client.log_batch(self._runs[trial], [Metric(key, value, now, step) for key, value in metrics.items()])
            self._steps[trial] = step

    def _begin(self, trial: str, params: Sequence[Any]) -> None:
        earlier = self._client.search_runs([self._experiment], f"tags.{TRIAL_TAG} = '{trial}'", max_results=1)
        if earlier:
            run = earlier[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = self._client.create_run(self._experiment, run_name=trial, tags={TRIAL_TAG: trial})
            self._client.log_batch(run.info.run_id, params=params)
        self._runs[trial] = run.info.run_id
        self._steps[trial] = int(run.data.metrics.get("step", 0))

    def end(self, trial: str, how: str) -> None:
        """Pruned and collapsed trials are finished ones with a tag."""
        if trial in self._runs:
            self._client.set_tag(self._runs[trial], ENDING_TAG, how)
            self._client.set_terminated(self._runs[trial], "FAILED" if how == "failed" else "FINISHED")


class WandbTracker:
    """A Weights & Biases run a trial, in a group of the search's name. WANDB_MODE, WANDB_DIR and the like hold."""

    name = "wandb"

    def __init__(self, project: str, group: str) -> None:
        self._project = project
        self._group = group
        self._runs: dict[str, Any] = {}

    def report(self, trial: str, sampled: Mapping[str, Value], metrics: Mapping[str, float], step: int) -> None:
        """Make the run at the first report, or go on with it. Steps that are there already W&B itself ignores."""
        import wandb

        if trial not in self._runs:
            self._runs[trial] = wandb.init(
                project=self._project,
                group=self._group,
                name=trial,
                id=stable_hash([self._group, trial])[:16],
                config=dict(sampled),
                resume="allow" if _is_online() else None,
                reinit="create_new",  # several trials run at a time
                settings=wandb.Settings(console="off", silent=True),
            )
        self._runs[trial].log(dict(metrics), step=step)

    def end(self, trial: str, how: str) -> None:
        """Close the run."""
        if trial in self._runs:
            run = self._runs.pop(trial)
            run.summary[ENDING_TAG] = how
            run.finish(exit_code=int(how == "failed"))


def _is_online() -> bool:
    return os.environ.get("WANDB_MODE", "online") == "online"


def check_trackers(run: RunConfig) -> None:
    """Whether the trackers can be told, before anything is computed.

    Raises:
        UserError: a package is missing, or MLflow or Weights & Biases refuses.
    """
    for name, value in (("mlflow", run.mlflow), ("wandb", run.wandb)):
        if value and find_spec(name) is None:
            raise UserError(f"--{name} {value} needs a package that is not installed: pip install 'scarce[{name}]'")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # which would tell others than the user's own store
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        if run.mlflow:
            from mlflow import MlflowClient

            MlflowClient(run.mlflow).search_experiments(max_results=1)
        if run.wandb:
            import wandb

            if _is_online():
                wandb.login()  # asks on a terminal, now and not in the middle of the search
    except Exception as error:  # each store has errors of its own
        name, value = (
            ("wandb", run.wandb) if run.wandb and "wandb" in type(error).__module__ else ("mlflow", run.mlflow)
        )
        raise UserError(
            f"--{name} {value} can't be used ({one_line(error)}): mend it, or leave the flag out"
        ) from error


def open_trackers(run: RunConfig, name: str) -> list[Tracker]:
    """Those that were asked for; `name` is the search's."""
    trackers: list[Tracker] = []
    if run.mlflow:
        trackers.append(MlflowTracker(run.mlflow, name))
    if run.wandb:
        trackers.append(WandbTracker(run.wandb, name))
    return trackers


class Tracking(Callback):
    """Tells trackers what Tune tells of trials."""

    def __init__(self, trackers: list[Tracker], epochs: float) -> None:
        self._trackers = trackers
        self._epochs = epochs

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Tell of a report: its numbers, but for Tune's own."""
        if FAILED not in result:
            numbers = {
                key: float(value)
                for key, value in result.items()
                if isinstance(value, int | float) and not isinstance(value, bool) and key not in AUTO_RESULT_KEYS
            }
            self._each(lambda tracker: tracker.report(result["trial"], trial.config, numbers, int(result["step"])))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Tell how it ended."""
        if "trial" in trial.last_result:
            how = ending(trial.last_result, self._epochs)
            self._each(lambda tracker: tracker.end(trial.last_result["trial"], how))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Tell that it failed."""
        if "trial" in trial.last_result:
            self._each(lambda tracker: tracker.end(trial.last_result["trial"], "failed"))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                tell(tracker)
            except Exception as error:  # the search is worth more than its protocol
                print(f"{tracker.name} can't be told ({one_line(error)}): the search goes on without it", flush=True)
                self._trackers.remove(tracker)
