"""What sweeps over one finished backbone share: no pretraining, so trials run one after the other in this process.

A script opens a `FrozenSweep`, scores settings on val in `search`, and hands the scores on test to `write`, once.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import pandas as pd
import torch

from scarce.audit.subject import FrozenPipeline, Pipeline
from scarce.audit_run import AUDIT_NAME, Model, make_subject, write_audits
from scarce.backbones import CARD_NAME, WEIGHTS_NAME, Backbone, load_backbone
from scarce.data.hospitals import open_hospital
from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.fewshot.compare import compare
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task
from scarce.files import whole_folder, write_json, write_text
from scarce.frozen_config import FrozenConfig
from scarce.provenance import describe_environment
from scarce.report.frozen import frozen_markdown
from scarce.space import Dimension
from scarce.study.optuna_space import make_sampler, to_distributions

METRIC = "val_auc"

Value = bool | int | float | str


@dataclass(frozen=True)
class Trial:
    """One setting that was tried on val."""

    number: int  # from 1
    values: dict[str, Value]
    metrics: dict[str, float]  # from `validation`; empty where it failed
    seconds: float
    error: str = ""


@dataclass(frozen=True, eq=False)
class FrozenSweep:
    """One finished backbone, the hospital that it is judged at, and the folder of the results."""

    config: FrozenConfig
    folder: Path
    checkpoint: Path
    backbone: Backbone  # on `device`, in eval mode
    card: dict[str, Any]
    image_size: int  # pixels a side that the backbone was pretrained on
    target: Dataset
    device: torch.device
    leak_check: str  # what is known of the patients that the backbone was pretrained on

    def task(self, held_out: Literal["val", "test"]) -> Task:
        """The target hospital's task at the size that the backbone sees."""
        return build_task(self.target, self.config.protocol, held_out=held_out, largest_size=self.image_size)

    def write(
        self,
        trials: Sequence[Trial],
        test: Task,
        scores: Mapping[str, Scores | str],
        pipeline: FrozenPipeline | Pipeline,
        *,
        sections: Sequence[str] = (),
        results: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Compare the scores on test and write the run's folder, whole or not at all.

        Args:
            trials: all that were tried; `best_trial` of them is the chosen one.
            test: the test task.
            scores: `chosen` and what it is compared with, as in `compare`.
            pipeline: how the chosen scores came about, to be audited.
            sections: Markdown to put between the answer and the tables of all findings and trials.
            results: what else summary.json is to hold.

        Returns:
            The content of summary.json.
        """
        if test.held_out != "test":
            raise ValueError("the final comparison is on the test task")
        chosen = best_trial(trials)
        summary = {
            **compare(test, scores, self.config.protocol),
            "search": {
                "trials": {
                    "done": sum(not trial.error for trial in trials),
                    "failed": sum(bool(trial.error) for trial in trials),
                },
                "failed": {str(trial.number): trial.error for trial in trials if trial.error},
                "seconds": sum(trial.seconds for trial in trials),
                "chosen_trial": chosen.number,
                "chosen_settings": chosen.values,
                METRIC: chosen.metrics[METRIC],
                "val_auc_se": chosen.metrics["val_auc_se"],
            },
            "checkpoint": str(self.checkpoint),
            "leak_check": self.leak_check,
            "confidence": self.config.protocol.confidence,
            **(results or {}),
        }
        table = trials_table(trials)
        with whole_folder(self.folder) as unfinished:
            if self.config.audits.audit:
                print("auditing it: anatomy or shortcut?", flush=True)
                name = f"{self.checkpoint}, as chosen by {self.folder.name}"
                model = Model(name, pipeline, self.image_size, self.target, None, self.config.protocol)
                summary["audit"] = write_audits(make_subject(model, self.config.audits), model, unfinished / AUDIT_NAME)
            text = frozen_markdown(summary, table, sections)
            write_json(
                unfinished / "config.json",
                {
                    "config": asdict(self.config),
                    "datasets": [self.target.manifest.digest],
                    "checkpoint_sha256": hashlib.sha256((self.checkpoint / WEIGHTS_NAME).read_bytes()).hexdigest(),
                    "environment": describe_environment(),
                },
            )
            table.to_parquet(unfinished / "trials.parquet", index=False)
            write_json(unfinished / "summary.json", summary)
            write_text(unfinished / "summary.md", text)
        print(f"\n{text}\nWritten to {self.folder}")
        return summary


def open_sweep(config: FrozenConfig, experiment: str) -> FrozenSweep:
    """Open the checkpoint and the target hospital.

    Raises:
        UserError: there is a run of this name, no checkpoint, no target, no hospital of --other, a checkpoint that does
            not say what size of images it was pretrained on or whose pretraining saw patients that would be scored, or
            no GPU though one was asked for.
    """
    folder = config.folder(experiment)
    if folder.exists():
        raise UserError(f"{folder} holds a run already: choose another --name")
    if config.protocol.protocol == "original":
        raise UserError("--protocol original has a probe of its own: expected scarce here, or sweeps/ssl_aug.py")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; use --device cpu")
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    given = Path(config.checkpoint).absolute()
    checkpoint = given / "best" if (given / "best" / CARD_NAME).is_file() else given
    backbone, card = load_backbone(checkpoint)
    image_size = _image_size(card, checkpoint)
    target = open_hospital(config.target)
    if config.audits.other:
        open_hospital(config.audits.other)  # one that is not there is refused now, not after the search
    try:
        leak_check = check_leak(card, target.manifest.hospital, config.protocol)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{checkpoint / CARD_NAME} is not what this version of scarce writes ({error!r}): run the sweep again"
        ) from error
    return FrozenSweep(config, folder, checkpoint, backbone.to(device), card, image_size, target, device, leak_check)


def _image_size(card: Mapping[str, Any], checkpoint: Path) -> int:
    try:
        size = int(card["settings"]["recipe"]["pretrain"]["image_size"])
        if size < 1:
            raise ValueError(size)
        return size
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{checkpoint / CARD_NAME} does not say what size of images the backbone was pretrained on: expected "
            'pixels a side under "settings", "recipe", "pretrain", "image_size", as sweeps/ssl_aug.py writes them'
        ) from error


def check_leak(card: Mapping[str, Any], hospital: str, protocol: ProtocolConfig) -> str:
    """What the card tells of the pretraining patients; `UserError` where held-out patients were among them.

    A patient's split depends on its hospital, its id and the fractions alone. So if pretraining left out all but the
    pool of this hospital, it has seen none of the patients held out from a pool that is at least as large.

    Args:
        card: may hold "data": the hospitals' names under "pretrain" and "target", and the protocol's "fractions".
        hospital: the target's.
        protocol: `fractions` is used.
    """
    data = card.get("data")
    if data is None:
        return (
            f"The checkpoint does not say at which hospital it was pretrained: if at {hospital}, held-out patients may "
            "have been among its unlabelled images."
        )
    if data["pretrain"] != hospital:
        return f"Pretrained at {data['pretrain']}, another hospital."
    if data["target"] != hospital:
        raise UserError(
            f"the checkpoint was pretrained on all patients of {hospital}, the held-out ones too: expected a --target "
            "of another hospital, or a checkpoint whose sweep had this --target"
        )
    if protocol.fractions[0] < data["fractions"][0]:
        raise UserError(
            f"the checkpoint was pretrained on the patients of {hospital} in a pool of {data['fractions'][0]:g}, and "
            f"--fractions {' '.join(f'{share:g}' for share in protocol.fractions)} would hold some of them out: "
            f"expected --fractions {' '.join(f'{share:g}' for share in data['fractions'])}"
        )
    return f"Pretrained at {hospital} too, without the patients held out here."


def search(
    space: Mapping[str, Dimension],
    starts: Sequence[Mapping[str, Value]],
    objective: Callable[[dict[str, Value]], dict[str, float]],
    config: FrozenConfig,
) -> list[Trial]:
    """Try settings, one after the other, to maximise the objective's `val_auc`.

    Args:
        space: what is searched.
        starts: points to try first, in this order.
        objective: settings to the metrics of `validation`. A `FloatingPointError` makes the trial a failed one.
        config: `trials`, `sampler` and `seed` are used.

    Raises:
        UserError: every trial failed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(config.sampler, config.seed, config.trials))
    for start in starts:
        study.enqueue_trial(dict(start))
    distributions = to_distributions(space)
    trials: list[Trial] = []
    for number in range(1, config.trials + 1):
        asked = study.ask(distributions)
        started = time.perf_counter()
        metrics, error = {}, ""
        try:
            metrics = objective(dict(asked.params))
        except FloatingPointError as diverged:
            error = str(diverged)
        trial = Trial(number, dict(asked.params), metrics, time.perf_counter() - started, error)
        if error:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, metrics[METRIC])
        trials.append(trial)
        print(_line(trial, config.trials), flush=True)
    if all(trial.error for trial in trials):
        raise UserError(f"every trial failed, the first with: {trials[0].error}")
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The one with the highest validation AUC; the first among equals."""
    return max((trial for trial in trials if not trial.error), key=lambda trial: (trial.metrics[METRIC], -trial.number))


def trials_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row a trial, best validation AUC first, failed ones last; one column a searched setting."""
    rows = [
        {
            "trial": trial.number,
            "status": "failed" if trial.error else "done",
            METRIC: trial.metrics.get(METRIC, math.nan),
            "val_auc_se": trial.metrics.get("val_auc_se", math.nan),
            "seconds": trial.seconds,
            **trial.values,
        }
        for trial in trials
    ]
    return pd.DataFrame(rows).sort_values([METRIC, "trial"], ascending=[False, True], ignore_index=True)


def _line(trial: Trial, trials: int) -> str:
    result = (
        f"failed: {trial.error}"
        if trial.error
        else f"val AUC {trial.metrics[METRIC]:.3f} ± {trial.metrics['val_auc_se']:.3f}"
    )
    settings = "  ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.values.items()
    )
    return f"trial {trial.number:3d}/{trials}  {result}  {settings}"
