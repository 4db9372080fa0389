"""What the report needs of a finished run, read from its files alone; what is not there comes with the reason."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scarce.backbones import CARD_NAME
from scarce.config import DataConfig, PretrainConfig
from scarce.errors import UserError
from scarce.pairing import Hospitals
from scarce.run_files import CONFIG_NAME, SUMMARY_NAME, read_run_file
from scarce.settings import search_space
from scarce.space import Float
from scarce.trials.attempts import read_attempts
from scarce.trials.records import TRIALS, TrialRecord, read_trials
from scarce.views import NO_AUGMENTATION, ViewConfig
from scarce.watching.view_samples import sample_views

AUDITS = "audit/audit.json"
FILMS, VIEWS = 4, 5  # shown: so many images, and so many views of each


@dataclass(frozen=True, eq=False)
class RunData:
    """A finished run of sweeps/ssl_aug.py."""

    folder: Path
    config: Mapping[str, Any]  # content of config.json
    summary: Mapping[str, Any]  # content of summary.json
    trials: pd.DataFrame  # trials.parquet
    records: list[TrialRecord]
    ended: Mapping[str, float]  # seconds after the first trial began, by trial, of those whose end is known

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.name

    @property
    def chosen(self) -> str:
        """Identity of the chosen trial."""
        return str(self.summary["search"]["chosen_trial"])

    @property
    def settings(self) -> list[str]:
        """What was searched."""
        return list(self.summary["search"]["chosen_settings"])

    @property
    def logarithmic(self) -> set[str]:
        """Those of the settings that the views and the method declare on a logarithmic scale."""
        space = search_space(PretrainConfig(**self.config["config"]["pretrain"]))
        return {key for key, dimension in space.items() if isinstance(dimension, Float) and dimension.log}

    @property
    def hospitals(self) -> tuple[str, str]:
        """Names of the pretraining and the target hospital, from the card of the exported backbone."""
        data = _card(self.folder)["data"]
        return str(data["pretrain"]), str(data["target"])


def read_run(folder: Path) -> RunData:
    """Read a run's folder.

    Raises:
        UserError: it is no finished run of sweeps/ssl_aug.py, or one of its files is damaged.
    """
    config, summary = (read_run_file(folder, name) for name in (CONFIG_NAME, SUMMARY_NAME))
    try:
        if (folder / AUDITS).is_file():  # newer than the sweep's own where `scarce audit` made them again
            summary["audit"] = read_run_file(folder, AUDITS)
        trials = pd.read_parquet(folder / "trials.parquet")
        data = RunData(folder, config, summary, trials, read_trials(folder), _ended(folder))
        if not isinstance(data.summary["leak_check"], dict) or not data.settings or not data.hospitals:
            raise KeyError("leak_check")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder} is no run that a report can be made of ({error!r}): expected the folder of a finished run of "
            "sweeps/ssl_aug.py by this version of scarce"
        ) from error
    return data


def example_views(data: RunData) -> np.ndarray | str:
    """Pretraining images with random views as the chosen trial had them, or why there are none.

    Returns:
        uint8 [FILMS, 1 + VIEWS, S, S], the image itself first.
    """
    config = data.config["config"]
    try:
        hospitals = Hospitals.open(DataConfig(**config["data"]))
    except (UserError, OSError) as error:
        return f"the dataset is not here any more ({error})"
    if list(hospitals.digests) != list(data.config["datasets"]):
        return "the dataset has changed since the run"
    recipe = _card(data.folder)["settings"]["recipe"]
    left_out = hospitals.patients_to_leave_out(tuple(config["protocol"]["fractions"]))
    kept = np.flatnonzero(~hospitals.pretraining.metadata()["patient_id"].isin(sorted(left_out)))
    rows = kept[np.linspace(0, len(kept) - 1, min(FILMS, len(kept))).astype(int)]
    images, size = hospitals.pretraining.pixels(rows), int(recipe["pretrain"]["image_size"])
    views = ViewConfig(**recipe["views"])
    films = sample_views(images, size, NO_AUGMENTATION, 1)
    return np.concatenate([films, sample_views(images, size, views, VIEWS)], axis=1)


def _ended(folder: Path) -> dict[str, float]:
    attempts = {path.name: read_attempts(path) for path in folder.glob(f"{TRIALS}/*")}
    began = min((one["started"] for tries in attempts.values() for one in tries), default=0.0)
    last = {name: tries[-1]["ended"] for name, tries in attempts.items() if tries}
    return {name: ended - began for name, ended in last.items() if ended is not None}


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "best" / CARD_NAME).read_text(encoding="utf-8"))
    return card
