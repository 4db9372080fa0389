"""What a sweep's trials left in its folder: read back for the sampler, the results table and the final evaluation.

Trial folders are the truth about a run. Ray Tune's own records are older than they after a kill -9.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from scarce.checkpoint import HISTORY_NAME
from scarce.collapse import collapse_reason
from scarce.fewshot.probe import ProbeConfig
from scarce.files import atomic_path
from scarce.trials.attempts import describe_last, read_attempts

TRIALS = "trials"  # folder of a run that has one of each trial
SETTINGS_NAME = "trial.json"
METRIC = "val_auc"  # of a report: what prunes, and what the search is after
FAILED = "failed"  # of the last report of a trial that is not tried again: the reason
PROBE_PREFIX = "probe."  # of a report's entries that tell which probe it was measured with
LAST = (
    *("epoch", "loss", "images_per_s", "micro_batch"),
    *("embedding_std", "mean_cosine", "effective_rank", "alignment", "uniformity"),
)  # columns of the trials table that tell of the last report


@dataclass(frozen=True)
class TrialRecord:
    """One trial that made at least one report."""

    identity: str
    sampled: dict[str, Any]  # what the sampler chose, by key
    settings: dict[str, Any]  # everything, resolved
    history: list[dict[str, Any]]  # its reports in order
    attempts: list[dict[str, Any]] = field(default_factory=list)  # which workers were on it, see `read_attempts`

    @property
    def best(self) -> dict[str, Any]:
        """The report with the highest validation AUC (the latest among equals), whose weights are in best.pt."""
        return max(self.history, key=lambda metrics: (metrics["val_auc"], metrics["step"]))

    @property
    def probe(self) -> ProbeConfig:
        """The best probe on val, with the weights of best.pt."""
        return ProbeConfig(**{name.removeprefix(PROBE_PREFIX): value for name, value in _probe_of(self.best).items()})

    @property
    def collapse(self) -> str | None:
        """The number that called it dead by the time of its last report."""
        return collapse_reason(self.history) if self.last["collapsed"] else None

    @property
    def last(self) -> dict[str, Any]:
        """The last report."""
        return self.history[-1]


def read_trials(folder: Path) -> list[TrialRecord]:
    """The trials below a run's folder that made a report, by identity."""
    records = []
    for history_path in sorted(folder.glob(f"{TRIALS}/*/{HISTORY_NAME}")):
        trial = history_path.parent
        started = json.loads((trial / SETTINGS_NAME).read_text())
        if history := json.loads(history_path.read_text()):  # empty where it had to leave its machine before a report
            sampled, settings = started["sampled"], started["settings"]
            records.append(TrialRecord(trial.name, sampled, settings, history, read_attempts(trial)))
    return records


def read_sampled(folder: Path) -> dict[str, dict[str, Any]]:
    """What was sampled for every trial below a run's folder that was begun, by identity."""
    paths = sorted(folder.glob(f"{TRIALS}/*/{SETTINGS_NAME}"))
    return {path.parent.name: json.loads(path.read_text())["sampled"] for path in paths}


def write_trials_table(
    path: Path,
    records: list[TrialRecord],
    failed: Mapping[str, str],
    epochs: float,
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    priced: bool = False,
    sampled: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> pd.DataFrame:
    """Write and return `trials.parquet`: a row a trial, best validation AUC first; one column a searched setting.

    `val_auc` and, where it was an objective, `val_shortcut` are of the report with the best AUC, as is the probe.

    Args:
        path: of the file.
        records: the trials that made a report.
        failed: of those that ended with an error the reason, by identity.
        epochs: of a whole trial; one that ended earlier without an error was pruned, or stopped for the budget.
        costs: by identity, as in `scarce.budget.spending.Spending.trials`; not known of a trial that it does not name.
        priced: whether dollars are known.
        sampled: of all trials that were begun, by identity; those without a report have a row without numbers.
    """
    known = costs or {}

    def cost_of(identity: str) -> dict[str, float]:
        cost = known.get(identity, {})
        hours = cost.get("device_seconds", math.nan) / 3600
        return {"device_hours": hours, "usd": cost.get("usd", math.nan) if priced else math.nan}

    rows = [
        {
            "trial": record.identity,
            "status": _status(record, failed, epochs, known.get(record.identity, {}).get("status")),
            "reason": failed.get(record.identity),
            "val_auc": record.best["val_auc"],
            "val_auc_se": record.best["val_auc_se"],
            **{name: record.best[name] for name in ("val_shortcut", "val_shortcut_se") if name in record.best},
            "best_epoch": record.best["epoch"],
            **{name: record.last[name] for name in LAST},
            **cost_of(record.identity),
            "collapse": record.collapse,
            **describe_last(record.attempts),
            **record.sampled,
            **_probe_of(record.best),
        }
        for record in records
    ]
    silent = sampled.keys() - {record.identity for record in records}
    rows += [
        {
            "trial": name,
            "status": "failed" if name in failed else _stopped(known.get(name, {}).get("status")),
            "reason": failed.get(name),
            **cost_of(name),
            **sampled[name],
        }
        for name in sorted(silent)
    ]
    frame = pd.DataFrame(rows).sort_values(["val_auc", "trial"], ascending=[False, True], ignore_index=True)
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)
    return frame


def _probe_of(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name.startswith(PROBE_PREFIX)}


def _status(record: TrialRecord, failed: Mapping[str, str], epochs: float, charged: str | None) -> str:
    if record.identity in failed:
        return "failed"
    if record.collapse is not None:
        return "collapsed"
    if record.last["epoch"] >= epochs:
        return "done"
    return _stopped(charged)


def _stopped(charged: str | None) -> str:
    return "budget" if charged == "budget" else "pruned"
