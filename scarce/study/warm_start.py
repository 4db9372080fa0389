"""Warm starts: what earlier runs found is tried first and, where their numbers mean the same here, told to the sampler.

Of an earlier run these are read: trials.parquet, config.json, and trial.json and history.json of its trials. All they
hold is of validation patients. Its test results (summary.json, best/, audit/) are never opened.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pandas.api.types import is_numeric_dtype

from scarce.config import SweepConfig
from scarce.errors import UserError
from scarce.run_files import CONFIG_NAME
from scarce.settings import Settings, Value, override, values_of
from scarce.space import Choice, Dimension
from scarce.storage import require_path
from scarce.trials.records import TrialRecord, read_trials

TABLE_NAME = "trials.parquet"
WARM_START_NAME = "warm_start.json"
Point = dict[str, Value]


@dataclass(frozen=True)
class WarmStart:
    """What earlier runs bring to a search."""

    points: list[Point] = field(default_factory=list)  # to try after the defaults, each with a value for all searched
    observations: list[TrialRecord] = field(default_factory=list)  # `sampled` as here; `history` is the last report
    runs: list[dict[str, Any]] = field(default_factory=list)  # one an earlier run, for summary.json and the console

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says of it; empty if there is none."""
        return {"warm_start": {"points": self.points, "runs": self.runs}} if self.runs else {}

    @property
    def lines(self) -> list[str]:
        """A line an earlier run for the console."""
        return [
            f"warm start from {run['run']}: {run['points']} of its {run['usable']} usable settings tried first, "
            f"{run['observations']} trials told to the sampler ({run['why']})"
            + (f"; {run['out_of_range']} outside this run's ranges" if run["out_of_range"] else "")
            for run in self.runs
        ]


@dataclass(frozen=True)
class EarlierRun:
    """One earlier run: its usable trials by their best validation AUC, best first, in this run's settings."""

    name: str  # as it was given
    digest: str  # SHA-256 of its trials.parquet
    tried: list[tuple[float, Point]]  # AUC and settings; not of failed or collapsed trials
    out_of_range: int
    observations: list[TrialRecord]
    comparable: bool  # whether its AUCs are on this run's scale
    why: str  # there are observations, or none


def open_warm_start(
    folder: Path,
    config: SweepConfig,
    base: Settings,
    space: Mapping[str, Dimension],
    digests: Sequence[str],
) -> WarmStart:
    """What a run's `config.search.warm_start` brings to it; if it is resumed, what it brought when the run began.

    Args:
        folder: of this run.
        config: of this run.
        base: the defaults, and what the user fixed.
        space: what is searched.
        digests: of this run's datasets, pretraining hospital first.

    Raises:
        UserError: an earlier run cannot be read, or has nothing to offer.
    """
    kept = folder / WARM_START_NAME
    if config.run.resume and kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        observations = [TrialRecord(**record) for record in before.pop("observations")]
        return WarmStart(observations=observations, **before)
    names = dict.fromkeys(config.search.warm_start)
    return combine([read_run(name, config, base, space, digests) for name in names], values_of(base, space), config)


def combine(runs: Sequence[EarlierRun], start: Point, config: SweepConfig) -> WarmStart:
    """Order the settings of earlier runs: best validation AUC first, at most a quarter of the trials.

    Runs on this run's scale are ranked together. The AUCs of the others compare with nothing outside their run, so that
    these take turns. What equals `start`, the defaults that are tried anyway, or came before is dropped; a trial that
    two runs share is observed once.
    """
    ranked = [[(auc, index, point) for auc, point in run.tried] for index, run in enumerate(runs)]
    joint = sorted(
        (trial for run, trials in zip(runs, ranked, strict=True) if run.comparable for trial in trials),
        key=lambda trial: -trial[0],
    )
    joint = [trial for place, trial in enumerate(joint) if trial[2] not in [before[2] for before in joint[:place]]]
    pools = [joint, *(trials for run, trials in zip(runs, ranked, strict=True) if not run.comparable)]
    points: list[Point] = []
    owners: list[int] = []
    for _, index, point in (trial for turn in zip_longest(*pools) for trial in turn if trial is not None):
        if point != start and point not in points:
            points.append(point)
            owners.append(index)
    most = config.search.trials // 4
    told: dict[str, tuple[int, TrialRecord]] = {}
    for index, run in enumerate(runs):
        for record in run.observations:
            told.setdefault(record.identity, (index, record))
    return WarmStart(
        points[:most],
        [record for _, record in told.values()],
        [
            {
                "run": run.name,
                "trials_sha256": run.digest,
                "usable": len(run.tried),
                "out_of_range": run.out_of_range,
                "points": owners[:most].count(index),
                "observations": [owner for owner, _ in told.values()].count(index),
                "why": run.why,
            }
            for index, run in enumerate(runs)
        ],
    )


def read_run(
    name: str, config: SweepConfig, base: Settings, space: Mapping[str, Dimension], digests: Sequence[str]
) -> EarlierRun:
    """Read one earlier run, the folder of a finished one or its trials.parquet; arguments as in `open_warm_start`."""
    require_path("--warm-start", name, "copy the run's folder here first")
    path = Path(name) / TABLE_NAME if Path(name).is_dir() else Path(name)
    if not path.exists():
        raise UserError(f"--warm-start {name}: no {path}; expected the folder of a finished run of sweeps/ssl_aug.py")
    table = _read_table(path)
    before = _read_config(path.parent)
    _check_patients(name, before, config, digests)
    difference = _difference(before, config, digests)

    defaults = values_of(base, space)
    # Failed trials teach nothing. Collapsed ones are told to the sampler, as they are when they collapse here.
    rows = table[(table["status"] != "failed") & table["val_auc"].notna()]
    records: list[Any] = rows.to_dict("records")
    settings = {row["trial"]: point_of(row, space, defaults) for row in records}
    alive = rows[rows["status"] != "collapsed"].sort_values(["val_auc", "trial"], ascending=[False, True])
    tried = [
        (float(auc), point)
        for auc, trial in zip(alive["val_auc"], alive["trial"], strict=True)
        if (point := settings[trial]) is not None
    ]
    out_of_range = len(alive) - len(tried)
    if not tried:
        raise UserError(
            f"--warm-start {name}: no usable trial, as {len(table) - len(alive)} failed, collapsed or have no "
            f"AUC and {out_of_range} lie outside this run's ranges; leave this run out"
        )
    observations, why = ([], difference) if difference else _observe(path.parent, settings, base, config)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return EarlierRun(name, digest, tried, out_of_range, observations, not difference, why)


def point_of(row: Mapping[str, Any], space: Mapping[str, Dimension], defaults: Point) -> Point | None:
    """An earlier trial's settings as a point of `space`: the default where it has none; None if one is out of range."""
    point: Point = {}
    for key, dimension in space.items():
        value = row.get(key)
        if value is None or value != value:  # NaN: no such setting in this trial
            point[key] = defaults[key]
        elif isinstance(dimension, Choice):
            if value not in dimension.values:
                return None
            point[key] = dimension.values[dimension.values.index(value)]  # of Python's type, not NumPy's
        elif isinstance(value, int | float) and dimension.low <= value <= dimension.high:
            point[key] = float(value)
        else:
            return None
    return point


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"--warm-start: {path} cannot be read as Parquet: {error}") from error
    missing = [column for column in ("trial", "status", "val_auc") if column not in table]
    if missing or not is_numeric_dtype(table["val_auc"]):
        raise UserError(
            f"--warm-start: {path} has no {', '.join(missing) or 'numbers as val_auc'}; expected the {TABLE_NAME} of a "
            "run of sweeps/ssl_aug.py"
        )
    return table


def _read_config(folder: Path) -> dict[str, Any] | None:
    """The config.json of a run; None without one, as beside a trials.parquet that was copied away."""
    path = folder / CONFIG_NAME
    if not path.exists():
        return None
    try:
        before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"datasets": before["datasets"], **{part: before["config"][part] for part in ("protocol", "pretrain")}}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--warm-start: {path} is not the config.json of a run of sweeps/ssl_aug.py") from error


def _check_patients(name: str, before: Mapping[str, Any] | None, config: SweepConfig, digests: Sequence[str]) -> None:
    """Refuse a run whose validation patients are test patients here: its AUCs would choose by them."""
    here = list(config.protocol.fractions)
    if before and before["datasets"][1:] == list(digests)[1:] and before["protocol"]["fractions"] != here:
        raise UserError(
            f"--warm-start {name}: the same patients were split there by --fractions {before['protocol']['fractions']},"
            f" here by {here}, so that its validation patients may be test patients here; give the same fractions"
        )


def _difference(before: Mapping[str, Any] | None, config: SweepConfig, digests: Sequence[str]) -> str:
    """Why a run's AUCs are not on this run's scale; empty if they are."""
    if before is None:
        return f"only their order counts: no {CONFIG_NAME} beside {TABLE_NAME}"
    if before["datasets"] != list(digests):
        return "only their order counts: other datasets"
    for part, now in {"protocol": _plain(config.protocol), "pretrain": _plain(config.pretrain)}.items():
        for key in sorted({*before[part], *now}):
            if before[part].get(key) != now.get(key):
                return f"only their order counts: {part}.{key} was {before[part].get(key)}, now {now.get(key)}"
    return ""


def _observe(
    folder: Path, settings: Mapping[str, Point | None], base: Settings, config: SweepConfig
) -> tuple[list[TrialRecord], str]:
    """The trials of a run on this run's scale as the sampler is told them, and in words why these and no others.

    A trial counts if these very settings would be trained here: whatever is not searched has to be equal too.
    """
    try:
        records = {record.identity: record for record in read_trials(folder)}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--warm-start: a trial below {folder / 'trials'} cannot be read: {error}") from error
    here = {
        trial: records[trial]
        for trial, point in settings.items()
        if point is not None and trial in records and _plain(override(base, point)) == records[trial].settings
    }
    missing = [name for name in config.search.objectives if any(name not in record.last for record in here.values())]
    if missing:
        return [], f"only their order counts: {', '.join(missing)} was no objective there"
    if not here:
        reason = "they have other values of what is not searched here" if records else "its trials/ folder is gone"
        return [], f"only their order counts: {reason}"
    observations = [
        replace(record, sampled=dict(settings[trial] or {}), history=[record.last]) for trial, record in here.items()
    ]
    return observations, "same datasets, protocol and pretraining"


def _plain(settings: Any) -> Any:
    """A dataclass as it comes back from a JSON file."""
    return json.loads(json.dumps(asdict(settings)))
