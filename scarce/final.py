"""The one look at the test split: the chosen trial beside the baselines, with seeds the search never used."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarce.backbones import Backbone, create_backbone, export_backbone
from scarce.checkpoint import BEST_NAME, load_best_checkpoint
from scarce.fewshot.baselines import evaluate_baselines
from scarce.fewshot.compare import compare
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.features import extract_features
from scarce.fewshot.original import evaluate_original
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.task import Task
from scarce.kept_scores import SCORES_NAME, write_scores
from scarce.pairing import Hospitals
from scarce.pretrain import build_method
from scarce.provenance import describe_environment
from scarce.settings import Settings
from scarce.trial import TrialContext, worker_device
from scarce.trials.records import TrialRecord


def load_trained_backbone(context: TrialContext, settings: Settings) -> Backbone:
    """The backbone of a trial's best checkpoint, on the CPU, in eval mode."""
    method = build_method(settings.recipe)
    folder = context.trial_folder(settings)
    context.mirror.pull_file(folder / BEST_NAME)
    state = load_best_checkpoint(folder, torch.device("cpu"))
    method.load_state_dict(state["method"])
    return method.backbone.eval()


def evaluate_chosen(
    context: TrialContext, chosen: TrialRecord, hospitals: Hospitals, val_task: Task, test_task: Task
) -> dict[str, Any]:
    """Score the chosen trial and every baseline on test, export the chosen backbone to `best/`.

    The chosen one's scores are kept in test_scores.parquet, for paired comparisons with other runs.

    Returns:
        The statistics of `compare`: `chosen`, `baselines` and `protocol`; `original` where it was asked for.
    """
    settings, probe = context.settings(chosen.sampled), chosen.probe
    pretrain = settings.recipe.pretrain
    device = worker_device(context.gpus)
    trained = load_trained_backbone(context, settings).to(device)
    untrained = create_backbone(pretrain.backbone, pretrain.seed).to(device)

    def features_of(images: np.ndarray, positions: bool = False) -> np.ndarray:
        return extract_features(trained, images, pretrain.image_size, device, positions=positions)

    of_chosen = score_task(test_task, features_of(test_task.images, probe.uses_positions), probe)
    scores = {
        "chosen": of_chosen,
        **evaluate_baselines(
            val_task,
            test_task,
            untrained,
            pretrain.backbone,
            pretrain.image_size,
            device,
            context.config.baselines,
        ),
    }
    write_scores(context.folder / SCORES_NAME, test_task, of_chosen)
    result = compare(test_task, scores, context.config.protocol)
    if context.config.protocol.protocol == "original":
        result["original"] = evaluate_original(hospitals.target, features_of, context.config.protocol.findings)
    test = {key: result["chosen"][key] for key in ("auc", "ci_low", "ci_high")}
    export_chosen(context.folder, trained, settings, probe, hospitals, context, test)
    return result


def export_chosen(
    folder: Path,
    trained: Backbone,
    settings: Settings,
    probe: ProbeConfig,
    hospitals: Hospitals,
    context: TrialContext,
    test: dict[str, float],
) -> None:
    """Write the chosen backbone and its card to `best/` in the run's folder.

    Args:
        folder: of the run.
        trained: the backbone.
        settings: that it was trained with.
        probe: that was chosen for it.
        hospitals: of the run.
        context: of the trial.
        test: `auc`, `ci_low` and `ci_high` on test.
    """
    card = {
        "settings": {"recipe": asdict(settings.recipe), "probe": asdict(probe)},
        "trial": context.trial_folder(settings).name,
        "data": {
            "pretrain": hospitals.pretraining.manifest.hospital,
            "target": hospitals.target.manifest.hospital,
            "fractions": list(context.config.protocol.fractions),
        },
        "input": "float32 [N, 1, S, S], (intensity in [0, 1] - 0.5) / 0.25",
        "test": test,
        "environment": describe_environment(),
        "licence": "of the pretraining images",
        "use": "research only, not for clinical use",
    }
    export_backbone(trained, settings.recipe.pretrain.backbone, folder / "best", card)
