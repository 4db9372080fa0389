"""The sweep: Ray Tune with Optuna over trials, from two hospitals to a chosen model. Read `run_sweep` from the top."""

import json
import os
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from scarce.cluster import local_cluster
from scarce.config import SweepConfig, run_folder
from scarce.data.feed import Feed, load_feed, reduce_images
from scarce.data.hospitals import open_hospital
from scarce.data.splits import assert_no_leak, held_out_patients, patients_of
from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.fewshot.task import Task, build_task
from scarce.files import write_json, write_text
from scarce.final import evaluate_chosen
from scarce.provenance import describe_environment
from scarce.pruner import Pruner
from scarce.report.console import TrialLines
from scarce.report.summary import summary_markdown
from scarce.resources import Plan, check_disk, plan_resources
from scarce.searcher import METRIC, Searcher, make_sampler, to_distributions
from scarce.settings import default_settings, override, parse_fixed, values_of
from scarce.space import Dimension
from scarce.trial import TrialContext, run_trial
from scarce.trials import read_trials, write_trials_table

CONFIG_NAME = "config.json"
SUMMARY_NAME = "summary.json"
TUNE_NAME = "tune"
VIEW_MARGIN = 2  # images are held at no more than this times the view's size: crops need no more


def run_sweep(config: SweepConfig, space: dict[str, Dimension]) -> Path:
    """Search `space`, evaluate the best trial on test beside the baselines, and write everything to the run's folder.

    Returns:
        The run's folder: config.json, trials.parquet, summary.json, summary.md, best/, tensorboard/,
        trials/, rungs.json and tune/ (what a resume needs).

    Raises:
        UserError: what was asked for cannot be done.
        KeyboardInterrupt: stopped by Ctrl-C; the same command with `--resume` goes on from there.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # trials write their own TensorBoard files, while they run
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints a banner even where verbose=0
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune would return as if the search had ended
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"  # seconds between Tune's snapshots; by default 10 are lost to kill -9
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # also paces the reports of worker groups
    folder = run_folder(config, "ssl_aug")
    hospitals = Hospitals(open_hospital(config.data.pretrain), open_hospital(config.data.target))
    held_out = hospitals.patients_to_leave_out(config)
    base = default_settings(config.pretrain, hospitals.count_images(held_out))
    fixed = parse_fixed(base, config.search.fix)
    base = override(base, fixed)
    space = {key: dimension for key, dimension in space.items() if key not in fixed}
    print(check_disk(folder, base.recipe, config.search.trials))
    val_task = make_task(hospitals.target, config, "val")
    digests = (hospitals.pretraining.manifest.digest, hospitals.target.manifest.digest)
    prepare_folder(folder, config, digests)

    with local_cluster(address=config.run.address or None) as dashboard:
        print(f"Ray dashboard: {dashboard}")
        print(f"TensorBoard:   tensorboard --logdir {folder / 'tensorboard'}")
        plan = plan_resources(config.search, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        feed = load_feed(
            hospitals.pretraining, without_patients=held_out, largest_size=VIEW_MARGIN * config.pretrain.image_size
        )
        leak_check = hospitals.check_leak(config, held_out, feed)
        print(f"{feed.images} images to pretrain on, {plan.concurrent} trial(s) at a time")
        print(f"{len(val_task.findings)} findings: {', '.join(val_task.findings)}", flush=True)
        context = TrialContext(config, base, digests, folder, plan.cpus, plan.gpus)
        started = time.time()
        failed = search(context, space, plan, feed, val_task)
        seconds = time.time() - started

    records = read_trials(folder)
    if not records:
        raise UserError(f"no trial made a report: the reasons are in the error.txt files below {folder / TUNE_NAME}")
    trials = write_trials_table(folder / "trials.parquet", records, failed, config.pretrain.epochs)
    chosen = max(records, key=lambda record: (record.best[METRIC], record.identity))
    print(f"search ended after {seconds:.0f} s; evaluating trial {chosen.identity} on test", flush=True)
    test_task = make_task(hospitals.target, config, "test")
    summary = {
        **evaluate_chosen(context, chosen, hospitals.target, val_task, test_task),
        "search": {
            "trials": trials["status"].value_counts().to_dict(),
            "failed": failed,
            "seconds": seconds,
            "chosen_trial": chosen.identity,
            "chosen_settings": chosen.sampled,
            "val_auc": chosen.best[METRIC],
            "val_auc_se": chosen.best["val_auc_se"],
        },
        "leak_check": leak_check,
        "confidence": config.protocol.confidence,
    }
    write_json(folder / SUMMARY_NAME, summary)
    text = summary_markdown(summary, trials)
    write_text(folder / "summary.md", text)
    print(f"\n{text}\nWritten to {folder}")
    return folder


def search(context: TrialContext, space: dict[str, Dimension], plan: Plan, feed: Feed, task: Task) -> dict[str, str]:
    """Run the trials, going on where an interrupted search in the same folder stopped.

    Returns:
        The trials that failed for good, by identity, with the last line of their errors.
    """
    config = context.config
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, context=context, feed=feed, task=task), plan.trial_resources
    )
    path = str(context.folder / TUNE_NAME)
    if config.run.resume and tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, restart_errored=False)
    else:
        searcher = Searcher(
            to_distributions(space),
            make_sampler(config.search.sampler, config.pretrain.seed, config.search.trials),
            start=values_of(context.base, space),
            epochs=config.pretrain.epochs,
            folder=context.folder,
        )
        pruner = Pruner(context.folder, config.pretrain.epochs, config.search.reduction, METRIC)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=searcher,
                scheduler=pruner,
                num_samples=config.search.trials,
                max_concurrent_trials=plan.concurrent,
                time_budget_s=config.search.budget_hours * 3600 or None,
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=TUNE_NAME,
                storage_path=str(context.folder),
                callbacks=[TrialLines(config.pretrain.epochs)],
                failure_config=tune.FailureConfig(max_failures=2),
                verbose=0,
            ),
        )
    results = tuner.fit()
    return {
        context.trial_folder(context.settings(result.config or {})).name: str(result.error).strip().rpartition("\n")[2]
        for result in map(results.__getitem__, range(len(results)))
        if result.error
    }


@dataclass(frozen=True)
class Hospitals:
    """Where the unlabelled images come from and whom the classifier is for; possibly the same hospital."""

    pretraining: Dataset
    target: Dataset

    def patients_to_leave_out(self, config: SweepConfig) -> frozenset[str]:
        """Ids of the pretraining hospital's patients that validation or test will score."""
        held_out = held_out_patients(self.target.metadata(), config.protocol.fractions)
        here = self.pretraining.manifest.hospital
        return frozenset(patient for hospital, patient in held_out if hospital == here)

    def count_images(self, left_out: Collection[str]) -> int:
        """Images to pretrain on."""
        return int((~self.pretraining.metadata()["patient_id"].isin(sorted(left_out))).sum())

    def check_leak(self, config: SweepConfig, left_out: Collection[str], feed: Feed) -> dict[str, Any]:
        """Prove that no held-out patient is in the feed; what was checked, for summary.json."""
        metadata = self.pretraining.metadata()
        kept = metadata[~metadata["patient_id"].isin(sorted(left_out))]
        held_out = held_out_patients(self.target.metadata(), config.protocol.fractions)
        assert_no_leak(patients_of(kept), held_out)
        if len(kept) != feed.images:
            raise RuntimeError(f"the feed holds {feed.images} images, {len(kept)} remain without held-out patients")
        return {
            "pretraining_patients": int(kept["patient_id"].nunique()),
            "held_out_patients": len(held_out),
            "shared_patients": 0,
            "images_left_out": len(metadata) - len(kept),
        }


def make_task(target: Dataset, config: SweepConfig, held_out: Literal["val", "test"]) -> Task:
    """The target hospital's task at the size that backbones see."""
    task = build_task(target, config.protocol, held_out=held_out, seeds=config.protocol.seeds(held_out))
    if task.images.shape[1] <= config.pretrain.image_size:
        return task
    return replace(task, images=reduce_images(task.images, config.pretrain.image_size))


def prepare_folder(folder: Path, config: SweepConfig, digests: tuple[str, ...]) -> None:
    """Make the run's folder with its config.json, or check that a run to resume was started with the same settings."""
    path = folder / CONFIG_NAME
    settings = json.loads(json.dumps({"config": asdict(config), "datasets": digests}))
    settings["config"].pop("run")
    if not path.exists():
        if config.run.resume:
            raise UserError(f"nothing to resume in {folder}: start the run without --resume")
        write_json(path, {**settings, "environment": describe_environment()})
        return
    if not config.run.resume:
        raise UserError(f"{folder} holds a run already: go on with it by --resume, or choose another --name")
    before = json.loads(path.read_text(encoding="utf-8"))
    for part in ("config", "datasets"):
        if before[part] != settings[part]:
            raise UserError(
                f"{folder} was started with other settings ({_first_difference(before[part], settings[part])}): "
                "resume with the same ones, or choose another --name"
            )


def _first_difference(before: Any, now: Any, path: str = "") -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    return f"{path or 'datasets'} was {before}, now {now}"
