"""The meter and the budget at work in a search: one object that Ray Tune asks at every step and report."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import ray
import torch
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from scarce.budget.limits import Budget, end_reserve, expected_trial, has_room, overruns
from scarce.budget.prices import Prices, Unit, read_nodes
from scarce.budget.spending import Spending
from scarce.resources import Plan
from scarce.trial import TrialContext
from scarce.trials.endings import OUT_OF_BUDGET
from scarce.trials.records import FAILED

TICK_S = 1.0  # seconds between two looks at the nodes and the trials


_hooks: dict[str, "BudgetHook"] = {}  # this process's, by `TrialContext.run`


class BudgetHook(Callback, Stopper):
    """Charges nodes and trials for their time, and stops trials so that the run ends within its budget.

    It starts from what the run's folder says. Unpickled, it is the run's hook of this process: Tune keeps copies of its
    callbacks, its stopper and its searcher in different files, and restores each on its own.
    """

    def __init__(self, context: TrialContext, plan: Plan, budget: Budget, prices: Prices) -> None:
        self.context = context
        self.budget = budget
        self.prices = prices
        self.unit: Unit = "GPU" if plan.gpus else "CPU"
        self.trial_devices = plan.workers * (plan.gpus or context.config.search.cpus_per_trial)
        # The end runs in the driver's process. Where that has no GPU but trials do, their evaluation tells nothing.
        self.evaluates_alike = not plan.gpus or torch.cuda.is_available()
        self.one_worker = plan.workers == 1
        self.plan = plan
        self._spending: Spending | None = None
        self._ticked = 0.0
        self._trials: list[Trial] = []
        self._identities: dict[str, str] = {}  # by Tune's id
        self._ended: set[str] = set()  # Tune's ids; its own status comes after the call that tells of it
        self._reports: dict[str, tuple[float, float]] = {}  # by identity: when the last came, and its step
        self._projected: dict[str, float] = {}  # by identity: seconds of the whole trial at its present speed
        self._said = False
        _hooks[context.run] = self

    def __reduce__(self) -> Any:
        return _hook_of, (self.context, self.plan, self.budget, self.prices)

    @property
    def spending(self) -> Spending:
        """The run's meter."""
        if self._spending is None:
            self._spending = Spending(self.context.folder, self.unit)
        return self._spending

    @property
    def is_idle(self) -> bool:
        """Whether no trial ran or waited when this step began."""
        return all(trial.is_finished() for trial in self._trials)

    def has_room(self) -> bool:
        """Whether another trial may begin."""
        if not self.budget.is_limited:
            return True
        trials = self.spending.trials.values()
        if any(trial["status"] == "budget" for trial in trials):
            return False
        ended = [trial["seconds"] for trial in trials if trial["status"] == "ended"]
        left, reserve = self._left()
        trial = expected_trial(ended, self._projected.values())
        room = has_room(left, reserve, trial)
        if not room and not self._said:
            self._said = True
            print(
                f"no more trials begin: the budget holds {max(0.0, left):.0f} s more, {reserve:.0f} s of them are kept "
                f"for the end, and a trial takes {trial:.0f} s",
                flush=True,
            )
        return room

    def _left(self) -> tuple[float, float]:
        """Seconds left of the budget, and how many of them are kept for the end."""
        spending = self.spending
        left = self.budget.seconds_left(spending.seconds, spending.usd, spending.usd_per_hour)
        return left, end_reserve(spending.seconds + left, spending.evaluation_seconds)

    # What Tune calls, in the order of a run.

    def setup(self, *_: Any, **__: Any) -> None:
        """Begin to charge."""
        self._tick()

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Charge the time since the last step."""
        self._trials = trials
        if time.monotonic() - self._ticked >= TICK_S:
            self._tick()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Begin to charge a trial."""
        self._trials = trials
        self._tick()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial has to stop at a report; called before the pruner is."""
        if FAILED in result:  # it ends by itself
            return False
        identity, epochs = result["trial"], self.context.config.pretrain.epochs
        self._time(identity, result)
        if not self.budget.is_limited or result["epoch"] >= epochs or result.get("collapsed"):
            return False
        entry = self.spending.trial(identity)
        if entry["status"] != "budget":
            interval = result.get("time_this_iter_s", 0.0)
            if not overruns(*self._left(), interval):
                return False
            self._stopped(identity)
        result[OUT_OF_BUDGET] = True
        return True

    def stop_all(self) -> bool:
        """Whether time is up for all: a trial's next report would have come too late. One report there has to be."""
        if not self.budget.is_limited or not self._reports:
            return False
        left, reserve = self._left()
        running = [trial for trial in self._trials if trial.status == Trial.RUNNING]
        if left > reserve or not running:
            return False
        for trial in running:
            self._stopped(self._identity(trial))
            trial.last_result[OUT_OF_BUDGET] = True
        return True

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Stop charging it."""
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Stop charging it."""
        self._end(trial)

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """Charge what is left."""
        self._tick()
        self.spending.save()

    def _tick(self) -> None:
        self._ticked = time.monotonic()
        nodes = read_nodes(ray.nodes(), self.prices, self.unit)
        self.spending.tick("search", nodes, self._running(self._trials), self.trial_devices)

    def _running(self, trials: Iterable[Trial]) -> Mapping[str, str | None]:
        return {
            self._identity(trial): trial.node_ip if self.one_worker else None
            for trial in trials
            if trial.status == Trial.RUNNING and trial.trial_id not in self._ended
        }

    def _identity(self, trial: Trial) -> str:
        if trial.trial_id not in self._identities:
            settings = self.context.settings(trial.config)
            self._identities[trial.trial_id] = self.context.trial_folder(settings).name
        return self._identities[trial.trial_id]

    def _time(self, identity: str, result: Mapping[str, Any]) -> None:
        """Learn from a report how long a whole trial, and its evaluation, take."""
        now, step = time.monotonic(), float(result["step"])
        before = self._reports.get(identity)
        self._reports[identity] = (now, step)
        seconds = self.spending.trial(identity)["seconds"]
        self._projected[identity] = seconds * self.context.config.pretrain.epochs / max(result["epoch"], 1e-9)
        # The first report of a process has its start in it, and those that it made before a restart take no time.
        if self.evaluates_alike and before is not None and step > before[1]:
            train = (step - before[1]) * self.context.config.pretrain.batch_size / result["images_per_s"]
            if now - before[0] > train:
                self.spending.evaluation_seconds = now - before[0] - train

    def _stopped(self, identity: str) -> None:
        self.spending.trial(identity)["status"] = "budget"
        self.spending.save()
        print(f"trial {identity} stops here for the budget", flush=True)

    def _end(self, trial: Trial) -> None:
        self._ended.add(trial.trial_id)
        self._tick()
        identity = self._identity(trial)
        self._projected.pop(identity, None)
        entry = self.spending.trial(identity)
        if entry["status"] == "running":
            entry["status"] = "ended"
        self.spending.save()


def _hook_of(context: TrialContext, plan: Plan, budget: Budget, prices: Prices) -> BudgetHook:
    """The run's hook of this process, made if there is none."""
    return _hooks.get(context.run) or BudgetHook(context, plan, budget, prices)
