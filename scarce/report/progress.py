"""How a search stands: what happened to its trials so far, and a snapshot of it for a view to draw."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scarce.trials.records import FAILED


@dataclass(frozen=True)
class Cost:
    """What a run took, and may still take."""

    seconds: float  # since its start, over all restarts
    usd: float | None = None  # None: without a price
    usd_per_hour: float = 0.0  # of the nodes that are alive
    budget_seconds: float | None = None  # that the budget leaves; None: there is none


@dataclass(frozen=True)
class Row:
    """A trial, and its last report if it made one."""

    trial: str
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """How a search stands at one moment."""

    running: tuple[Row, ...]
    waiting: int  # trials that have not begun
    ended: Mapping[str, int]  # how many, by `ENDINGS`; those of none are left out
    best: Row | None  # the report with the highest validation AUC, of any trial
    images_per_s: float  # of all running trials together, by their last reports
    busy: Mapping[str, tuple[float, float]]  # CPUs and GPUs that are taken, of how many
    cost: Cost
    seconds_left: float | None  # until the search ends, at the speed so far; None: nothing is known yet

    @property
    def usd_left(self) -> float | None:
        """What the nodes that are alive will cost until then."""
        if self.cost.usd is None or self.seconds_left is None:
            return None
        return self.seconds_left / 3600 * self.cost.usd_per_hour


class Progress:
    """The state of a search of so many trials of so many epochs, kept up to date by what happens to them.

    Everything may be told twice, as it is when a search is resumed or a trial is tried again.
    """

    def __init__(self, trials: int, epochs: float) -> None:
        self.trials = trials
        self.epochs = epochs
        self._running: dict[str, None] = {}  # in the order in which they began
        self._ended: dict[str, str] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._best: Row | None = None
        self._since: tuple[float, float] | None = None  # seconds and share of the work, when this process began

    def began(self, trial: str) -> None:
        """A trial runs."""
        if trial not in self._ended:
            self._running[trial] = None

    def waits(self, trial: str) -> None:
        """A trial does not run any more, and will again."""
        self._running.pop(trial, None)

    def reported(self, trial: str, report: Mapping[str, Any]) -> None:
        """A trial made a report."""
        if FAILED in report:
            return
        self._last[trial] = report
        if self._best is None or report["val_auc"] > self._best.report["val_auc"]:
            self._best = Row(trial, report)

    def ended(self, trial: str, how: str) -> None:
        """A trial ended, in one of `ENDINGS`."""
        self._running.pop(trial, None)
        self._ended[trial] = how

    @property
    def share(self) -> float:
        """Of the work that is behind, in [0, 1]; a trial that was stopped early leaves none to do."""
        part = sum(min(1.0, self._last.get(trial, {}).get("epoch", 0.0) / self.epochs) for trial in self._running)
        return min(1.0, (len(self._ended) + part) / self.trials)

    def snapshot(self, busy: Mapping[str, tuple[float, float]], cost: Cost) -> Snapshot:
        """How it stands."""
        if self._since is None:
            self._since = cost.seconds, self.share
        seconds, share = cost.seconds - self._since[0], self.share - self._since[1]
        left = seconds * (1 - self.share) / share if share > 0 else None
        if cost.budget_seconds is not None and left is not None:
            left = min(left, max(0.0, cost.budget_seconds))
        rows = tuple(Row(trial, self._last.get(trial, {})) for trial in self._running)
        return Snapshot(
            running=rows,
            waiting=max(0, self.trials - len(self._ended) - len(rows)),
            ended=Counter(self._ended.values()),
            best=self._best,
            images_per_s=sum(row.report.get("images_per_s", 0.0) for row in rows),
            busy=busy,
            cost=cost,
            seconds_left=left,
        )
