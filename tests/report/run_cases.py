"""A finished run in seconds: made-up trials, and a comparison that `compare` really made, on two phantom hospitals."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from audit_cases import make_report
from phantom_hospitals import small_sweep

from scarce.audit.audits import report_json
from scarce.backbones import create_backbone, export_backbone
from scarce.config import SweepConfig
from scarce.data.store import open_dataset
from scarce.fewshot.compare import compare
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.task import Scores, Task, build_task
from scarce.files import write_json
from scarce.kept_scores import SCORES_NAME, write_scores
from scarce.provenance import describe_environment
from scarce.report.audit_page import write_audit_page
from scarce.report.audit_plots import plot_audit_overview
from scarce.settings import default_settings, override, search_space
from scarce.space import Choice
from scarce.study.pareto import choose_trial
from scarce.trials.records import read_trials, write_trials_table

EPOCHS = 4
MISSING = "not available: no ImageNet weights were given (--imagenet PATH or --imagenet download)"


def write_finished_run(folder: Path, name: str, trials: int = 14, seed: int = 0, audited: bool = True) -> Path:
    """A run of this name below `folder`/runs, over the hospitals that `write_hospitals` put in `folder`.

    One trial in five collapsed, every other one was pruned, one failed without a report. The larger the seed, the
    better its chosen model.
    """
    run, config = folder / "runs" / name, small_sweep(folder, name)
    datasets = [open_dataset(folder / hospital) for hospital in ("a", "b")]
    values = asdict(config)
    values.pop("run")
    write_json(
        run / "config.json",
        {
            "config": values,
            "datasets": [dataset.manifest.digest for dataset in datasets],
            "environment": describe_environment(),
        },
    )
    write_trials(run, config, trials, np.random.default_rng(seed))
    records = read_trials(run)
    failed = {"f" * 12: "FloatingPointError: the loss is nan"}
    table = write_trials_table(run / "trials.parquet", records, failed, EPOCHS, sampled={"f" * 12: records[0].sampled})
    chosen, choice = choose_trial(records, "auc")
    task = build_task(datasets[1], config.protocol, held_out="test", largest_size=32)
    scores = {"chosen": make_scores(task, 1.0 + seed), "pixels_16": make_scores(task, 0.5), "imagenet": MISSING}
    write_scores(run / SCORES_NAME, task, scores["chosen"])
    summary = {
        **compare(task, scores, config.protocol),
        "search": {"trials": table["status"].value_counts().to_dict(), "failed": failed, "seconds": 90.0, **choice},
        "leak_check": {
            "pretraining_images": 88,
            "pretraining_patients": 60,
            "shared_patients": 0,
            "images_left_out": 0,
        },
        "confidence": config.protocol.confidence,
    }
    card = {
        "settings": {"recipe": chosen.settings["recipe"], "probe": asdict(chosen.probe)},
        "data": {"pretrain": "phantom-a", "target": "phantom-b", "fractions": list(config.protocol.fractions)},
    }
    export_backbone(create_backbone("resnet_small", 0), "resnet_small", run / "best", card)
    if audited:
        summary["audit"] = report_json(make_report())
        write_audit_page(run / "audit" / "index.html", make_report(), {"Run": name})
        plot_audit_overview(run / "audit" / "overview.png", summary["audit"])
    write_json(run / "summary.json", summary)
    return run


def write_trials(run: Path, config: SweepConfig, count: int, rng: np.random.Generator) -> None:
    """Trials whose AUC goes with `views.noise` alone."""
    space = search_space(config.pretrain)
    for number in range(count):
        sampled = {
            key: dimension.values[number % len(dimension.values)]
            if isinstance(dimension, Choice)
            else float(rng.uniform(dimension.low, dimension.high))
            for key, dimension in space.items()
        }
        settings = override(default_settings(config.pretrain, 88), sampled)
        identity, dead, whole = f"{number:012x}", number % 5 == 4, number % 2 == 0
        epochs = range(1, EPOCHS + 1 if whole and not dead else 3)
        auc = 0.7 - 2 * sampled["views.noise"] + 0.005 * rng.normal()
        probe = {f"probe.{key}": value for key, value in asdict(ProbeConfig()).items()}
        history = [
            {
                "epoch": float(epoch),
                "step": 10.0 * epoch,
                "loss": 1.0,
                "images_per_s": 9.0,
                "micro_batch": 32.0,
                "embedding_std": 0.01 if dead else 0.8,
                "mean_cosine": 0.1,
                "alignment": 0.3,
                "uniformity": -2.0,
                "effective_rank": 1.1 if dead else 5.0 + epoch,
                "collapsed": float(dead),
                **probe,
                "val_auc": auc - 0.01 * (EPOCHS - epoch),
                "val_auc_se": 0.01,
            }
            for epoch in epochs
        ]
        folder, began = run / "trials" / identity, 1e9 + 100 * number
        write_json(folder / "trial.json", {"sampled": sampled, "settings": asdict(settings)})
        write_json(folder / "history.json", history)
        attempt = {"worker": 0, "node": "n", "gpus": [], "started": began, "ended": began + 30 * len(history)}
        write_json(folder / "attempts" / "0-0.json", attempt)


def make_scores(task: Task, strength: float) -> Scores:
    """Of a probe on features that tell the labels as well as `strength` says."""
    features = np.random.default_rng(0).normal(size=(len(task.images), 12)).astype(np.float32)
    features[:, : len(task.findings)] += strength * task.labels
    return score_task(task, features, ProbeConfig())


def change(run: Path, keys: Sequence[str], value: object) -> None:
    """Set one entry of a run's config.json, by its keys."""
    config = json.loads((run / "config.json").read_text())
    part = config
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    write_json(run / "config.json", config)
