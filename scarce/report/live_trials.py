"""A search as Ray Tune tells of it: one live view on a terminal, plain lines anywhere else."""

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import ray
from ray.tune.experiment import Trial
from rich.console import Console
from rich.live import Live

from scarce.cluster.connect import dashboard_url
from scarce.report.console import TrialLines
from scarce.report.live_view import LiveView
from scarce.report.progress import Cost, Progress
from scarce.trial import TrialContext
from scarce.trials.endings import ending
from scarce.trials.records import FAILED, read_trials

if TYPE_CHECKING:
    from scarce.budget.hook import BudgetHook

DRAW_S = 0.5  # seconds between two drawings


def is_live(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether what is drawn on `stream` can be drawn over: it is a terminal, not a dumb one nor a build's log."""
    return stream.isatty() and environment.get("TERM", "dumb") != "dumb" and not environment.get("CI")


def watch_trials(
    context: TrialContext, trials: int, budget: "BudgetHook | None" = None
) -> AbstractContextManager[TrialLines]:
    """Tune's callback that shows the search of so many trials while the block runs."""
    if is_live(sys.stdout, os.environ):
        return LiveTrials(context, trials, budget)
    return nullcontext(TrialLines(context.config.pretrain.epochs))


class LiveTrials(TrialLines):
    """Draws the search from Tune's own loop, without a thread, and prints a line above it where a trial fails.

    As a context manager it gives the terminal back however the block ends. What others print comes above the view.
    """

    def __init__(
        self, context: TrialContext, trials: int, budget: "BudgetHook | None" = None, console: Console | None = None
    ) -> None:
        super().__init__(context.config.pretrain.epochs)
        self.context = context
        self.budget = budget
        self.progress = Progress(trials, self.epochs)
        for record in read_trials(context.folder):  # of the search that is resumed
            for report in record.history:
                self.progress.reported(record.identity, report)
        self._names: dict[str, str] = {}  # by Tune's id
        self._started = self._drawn = time.monotonic()
        folder: Path = context.folder
        snapshot = self.progress.snapshot(_busy(), self._cost())
        self._view = LiveView(f"{folder.parent.name}/{folder.name}", self.epochs, dashboard_url(), snapshot)
        self._live = Live(self._view, console=console, auto_refresh=False)

    def __enter__(self) -> "LiveTrials":
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Draw how it stands, if it is time to."""
        if time.monotonic() - self._drawn >= DRAW_S:
            self._draw(trials)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Take note of the report."""
        self.progress.reported(result["trial"], result)
        if FAILED in result:
            super().on_trial_result(iteration, trials, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Nothing: the next drawing shows it."""

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """Draw how it ended."""
        self._draw(trials)

    def _draw(self, trials: list[Trial]) -> None:
        for trial in trials:
            if trial.status == Trial.RUNNING:
                self.progress.began(self._name(trial))
            elif trial.is_finished():
                failed = trial.status == Trial.ERROR
                self.progress.ended(self._name(trial), "failed" if failed else ending(trial.last_result, self.epochs))
            else:
                self.progress.waits(self._name(trial))
        self._view.snapshot = self.progress.snapshot(_busy(), self._cost())
        self._live.refresh()
        self._drawn = time.monotonic()

    def _name(self, trial: Trial) -> str:
        if trial.trial_id not in self._names:
            self._names[trial.trial_id] = self.context.trial_folder(self.context.settings(trial.config)).name
        return self._names[trial.trial_id]

    def _cost(self) -> Cost:
        if self.budget is None:
            return Cost(time.monotonic() - self._started)
        spending, budget = self.budget.spending, self.budget.budget
        seconds, usd, rate = spending.seconds, spending.usd, spending.usd_per_hour
        left = budget.seconds_left(seconds, usd, rate) if budget.is_limited else None
        return Cost(seconds, usd if spending.is_priced else None, rate, left)


def _busy() -> dict[str, tuple[float, float]]:
    """CPUs and GPUs that Ray has given away, of how many."""
    whole, free = ray.cluster_resources(), ray.available_resources()
    return {name: (whole[name] - free.get(name, 0.0), whole[name]) for name in ("GPU", "CPU") if name in whole}
