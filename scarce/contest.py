"""The methods against each other at equal cost: calibrate, search each a little, repeat with fresh seeds, rank.

Read `run_contest` from the top. Every method's runs get the same number of device-seconds, measured on the machine at
hand beforehand, so a method that is slower a step makes fewer steps. Methods are chosen settings for on val, by their
search; test is scored once, for runs with pretraining seeds that no search used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from scarce.audit_run import audit_run
from scarce.backbones import create_backbone
from scarce.cluster.connect import cluster_nodes, local_cluster
from scarce.cluster.notice import sigterm_is_notice
from scarce.config import MethodsConfig, PretrainConfig, SweepConfig, run_folder
from scarce.data.feed import Feed
from scarce.data.hospitals import open_hospital
from scarce.errors import UserError
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.features import extract_features
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.ranking import rank_models
from scarce.fewshot.task import Scores, Task, build_task
from scarce.files import write_json, write_text
from scarce.final import export_chosen, load_trained_backbone
from scarce.methods import REGISTRY, find_method
from scarce.mirror import Mirror, open_mirror
from scarce.packing.packed_trials import step_ends
from scarce.pairing import Hospitals
from scarce.pretrain import Recipe, build_method, count_held_out, steps_an_epoch
from scarce.report.audit import audit_markdown
from scarce.report.plots import plot_ranking
from scarce.report.ranking import ranking_markdown
from scarce.resources import Plan, plan_resources
from scarce.run_files import check_folder, prepare_folder
from scarce.search import prepare_ray, search
from scarce.settings import Value, default_settings, override, search_space, values_of
from scarce.space import Choice, Dimension, Float
from scarce.trial import TrialContext, worker_device
from scarce.trials.records import METRIC, TrialRecord, read_trials
from scarce.watching.trackers import check_trackers

WARM_UP_STEPS, TIMED_STEPS = 3, 9
SHORT_RUN_RATE = 6.0  # the second point of a search: the default learning rate times this
METHOD_NAME = "method.json"


@dataclass(frozen=True)
class Outcome:
    """What a method came to."""

    status: str  # done, failed or collapsed
    reason: str  # where it is not done
    epochs: float  # of one run
    seconds: float  # of training, all its runs together
    chosen: dict[str, Value]  # settings found by its search
    seeds: tuple[int, ...]  # pretraining seeds that are ranked; none of the search's


def run_contest(config: MethodsConfig) -> Path:
    """Rank the methods, and write everything to the run's folder.

    Returns:
        The run's folder: config.json, budget.json, ranking.json, ranking.md, ranking.png, best/ (the leader's backbone
        of its first pretraining seed) and audit/ of it, and a folder a method with its search and its repetitions.

    Raises:
        UserError: what was asked for cannot be done.
        KeyboardInterrupt: stopped by Ctrl-C; the same command with `--resume` goes on from there.
    """
    prepare_ray()
    check_trackers(config.run)
    run = open_mirror(run_folder(config.data, config.run, "methods"))
    folder = run.folder
    names = tuple(config.methods or REGISTRY)
    hospitals = Hospitals.open(config.data)
    fractions, size = config.protocol.fractions, config.image_size
    images = hospitals.count_images(hospitals.patients_to_leave_out(fractions))
    for name in names:
        build_method(default_settings(pretrain_config(config, name), images).recipe)  # what cannot work is refused now
    if config.audits.other:
        open_hospital(config.audits.other)  # one that is not there is refused before hours of training
    val_task = build_task(hospitals.target, config.protocol, held_out="val", largest_size=size)
    check_folder(run, config, hospitals.digests)

    with sigterm_is_notice() as listen, local_cluster(address=config.run.address or None) as dashboard, run.pushing():
        listen()
        print(f"Ray dashboard: {dashboard}")
        print(f"TensorBoard:   tensorboard --logdir {run}")
        plan = plan_resources(config.resources, cluster_nodes(config.run.autoscale))
        prepare_folder(run, config, hospitals.digests)
        feed, _ = hospitals.load_feed(fractions, size, plan.holds_worker)
        epochs = calibrate(config, names, folder, plan, feed)
        outcomes = {}
        for name in names:
            outcomes[name] = run_method(config, name, epochs[name], run / name, hospitals, plan, feed, val_task)
            print(f"{name}: {outcomes[name].status} after {outcomes[name].seconds:.0f} s of training", flush=True)

    test_task = build_task(hospitals.target, config.protocol, held_out="test", largest_size=size)
    ranking = rank(config, outcomes, run, hospitals, images, plan, test_task)
    write_json(folder / "ranking.json", ranking)
    plot_ranking(folder / "ranking.png", ranking)
    export_leader(config, ranking, outcomes, run, hospitals, images, plan)
    text = ranking_markdown(ranking, {name: asdict(outcome) for name, outcome in outcomes.items()})
    if config.audits.audit:
        print("auditing the leader: anatomy or shortcut?", flush=True)
        text += f"\n{audit_markdown(audit_run(folder, config.audits))}"
    write_text(folder / "ranking.md", text)
    run.push()
    print(f"\n{text}\nWritten to {run}")
    return folder


def pretrain_config(config: MethodsConfig, method: str, epochs: float = 1.0) -> PretrainConfig:
    """One run of a method for so many epochs, with four reports."""
    return PretrainConfig(
        method=method,
        backbone=config.backbone,
        image_size=config.image_size,
        epochs=epochs,
        batch_size=config.batch_size,
        report_epochs=epochs / 4,
        precision=config.precision,
        seed=config.seed,
    )


def method_space(config: PretrainConfig) -> dict[str, Dimension]:
    """What a method's small search is over: its own settings and the learning rate. Views and probe are everyone's."""
    rate = find_method(config.method).OPTIMISER.lr
    own = {key: dimension for key, dimension in search_space(config).items() if key.startswith("method.")}
    return {**own, "optimiser.lr": Float(rate / 3, rate * 20, log=True)}


def calibrate(config: MethodsConfig, names: Sequence[str], folder: Path, plan: Plan, feed: Feed) -> dict[str, float]:
    """How many epochs of each method take `device_seconds`, by timing a few steps, as many at a time as trials run.

    What was measured is kept in budget.json, so that a resumed run trains as long as it began to.
    """
    path = folder / "budget.json"
    if path.exists():
        budget: dict[str, dict[str, float]] = json.loads(path.read_text())
        return {name: budget[name]["epochs"] for name in names}
    # max_calls: the process ends with the call, and with it the memory it holds on a GPU.
    measure = ray.remote(num_cpus=plan.cpus, num_gpus=plan.gpus, max_calls=1)(time_steps)
    recipes = [default_settings(pretrain_config(config, name), feed.images).recipe for name in names]
    seconds = ray.get([measure.remote(recipe, feed, plan.gpus, max(1, int(plan.cpus))) for recipe in recipes])
    steps = steps_an_epoch(pretrain_config(config, names[0]), feed.images - count_held_out(feed.images))
    budget = {
        name: {"seconds_per_step": cost, "epochs": max(1, round(config.device_seconds / cost)) / steps}
        for name, cost in zip(names, seconds, strict=True)
    }
    write_json(path, budget)
    for name, entry in budget.items():
        print(f"{name}: {entry['seconds_per_step']:.3f} s a step, {entry['epochs']:.2f} epochs a run", flush=True)
    return {name: entry["epochs"] for name, entry in budget.items()}


def time_steps(recipe: Recipe, feed: Feed, gpus: float, threads: int) -> float:
    """Seconds of one training step, views included: the median of a few, after some to warm up."""
    torch.set_num_threads(threads)
    ends = list(islice(step_ends(recipe, feed.open(), worker_device(gpus)), WARM_UP_STEPS + TIMED_STEPS))
    return float(np.median(np.diff(ends)[WARM_UP_STEPS - 1 :]))


def run_method(
    config: MethodsConfig,
    name: str,
    epochs: float,
    run: Mirror,
    hospitals: Hospitals,
    plan: Plan,
    feed: Feed,
    val_task: Task,
) -> Outcome:
    """Search a method's settings, then train with the best ones from fresh seeds. What failed is said, not raised."""
    path = run.folder / METHOD_NAME
    if path.exists():
        return Outcome(**json.loads(path.read_text()))
    pretrain = pretrain_config(config, name, epochs)
    space = method_space(pretrain)
    context = _context(config, pretrain, run / "search", hospitals, feed.images, plan)
    defaults = values_of(context.base, space)
    quicker = {**defaults, "optimiser.lr": context.base.recipe.optimiser.lr * SHORT_RUN_RATE}
    points = [defaults, quicker][: config.trials]
    errors = search(context, space, plan, feed, val_task, points=points, trials=config.trials)
    searched = read_trials(context.folder)
    alive = [record for record in searched if record.collapse is None]
    spent = sum(training_seconds(record, config.batch_size) for record in searched)
    if not alive:
        status, reason = (
            ("collapsed", str(searched[0].collapse)) if searched else ("failed", next(iter(errors.values())))
        )
        outcome = Outcome(status, reason, epochs, spent, {}, ())
    else:
        best = max(alive, key=lambda record: (record.best[METRIC], record.identity))
        seeds = tuple(range(config.seed + 1, config.seed + 1 + config.seeds))
        repeated = repeat(config, pretrain, best.sampled, seeds, run / "seeds", hospitals, plan, feed, val_task)
        spent += sum(training_seconds(record, config.batch_size) for record in repeated)
        kept = tuple(sorted(record.settings["recipe"]["pretrain"]["seed"] for record in repeated))
        status, reason = "done", ""
        if len(kept) < 2:
            status, reason = "failed", f"{len(kept)} of {len(seeds)} repetitions ended"
        outcome = Outcome(status, reason, epochs, spent, best.sampled, kept)
    write_json(path, asdict(outcome))
    return outcome


def repeat(
    config: MethodsConfig,
    pretrain: PretrainConfig,
    chosen: Mapping[str, Value],
    seeds: Sequence[int],
    run: Mirror,
    hospitals: Hospitals,
    plan: Plan,
    feed: Feed,
    val_task: Task,
) -> list[TrialRecord]:
    """Train with the chosen settings from each pretraining seed; the runs that came to an end."""
    context = _context(config, pretrain, run, hospitals, feed.images, plan, chosen)
    points: list[dict[str, Value]] = [{"pretrain.seed": seed} for seed in seeds]
    space: dict[str, Dimension] = {"pretrain.seed": Choice(tuple(seeds))}
    search(context, space, plan, feed, val_task, points=points, trials=len(points), prune=False)
    return [record for record in read_trials(run.folder) if record.last["epoch"] >= pretrain.epochs]


def _context(
    config: MethodsConfig,
    pretrain: PretrainConfig,
    run: Mirror,
    hospitals: Hospitals,
    images: int,
    plan: Plan,
    chosen: Mapping[str, Value] | None = None,
) -> TrialContext:
    sweep = SweepConfig(config.data, pretrain, config.resources, config.protocol, run=config.run)
    base = replace(override(default_settings(pretrain, images), chosen or {}), probes=(ProbeConfig(),))
    return TrialContext(sweep, base, hospitals.digests, run.folder, plan.cpus, plan.gpus, run)


def training_seconds(record: TrialRecord, batch_size: int) -> float:
    """What a trial's steps took, evaluation and start-up apart."""
    steps = [0.0, *(metrics["step"] for metrics in record.history)]
    return sum(
        (metrics["step"] - before) * batch_size / metrics["images_per_s"]
        for before, metrics in zip(steps, record.history, strict=False)
    )


def rank(
    config: MethodsConfig,
    outcomes: Mapping[str, Outcome],
    run: Mirror,
    hospitals: Hospitals,
    images: int,
    plan: Plan,
    test_task: Task,
) -> dict[str, Any]:
    """The one look at test: every repetition of every method, and the same backbones before pretraining."""
    device = worker_device(plan.gpus)
    probe = ProbeConfig()
    untrained: dict[int, Scores] = {}
    scores: dict[str, list[Scores]] = {}
    reference: dict[str, list[Scores]] = {}
    for name, outcome in outcomes.items():
        if outcome.status != "done":
            continue
        pretrain = pretrain_config(config, name, outcome.epochs)
        context = _context(config, pretrain, run / name / "seeds", hospitals, images, plan, outcome.chosen)
        scores[name], reference[name] = [], []
        for seed in outcome.seeds:
            trained = load_trained_backbone(context, context.settings({"pretrain.seed": seed})).to(device)
            features = extract_features(trained, test_task.images, config.image_size, device)
            scores[name].append(score_task(test_task, features, probe))
            if seed not in untrained:
                fresh = create_backbone(config.backbone, seed).to(device)
                features = extract_features(fresh, test_task.images, config.image_size, device)
                untrained[seed] = score_task(test_task, features, probe)
            reference[name].append(untrained[seed])
    if not scores:
        raise UserError(
            "no method came to an end: "
            + "; ".join(f"{name} {outcome.status} ({outcome.reason})" for name, outcome in outcomes.items())
        )
    return rank_models(test_task, scores, reference, config.protocol)


def export_leader(
    config: MethodsConfig,
    ranking: Mapping[str, Any],
    outcomes: Mapping[str, Outcome],
    run: Mirror,
    hospitals: Hospitals,
    images: int,
    plan: Plan,
) -> None:
    """Export the leader's backbone to `best/`: that of its first pretraining seed, not of its best one on test."""
    leader = ranking["methods"][0]
    name, outcome = leader["method"], outcomes[leader["method"]]
    pretrain = pretrain_config(config, name, outcome.epochs)
    context = _context(config, pretrain, run / name / "seeds", hospitals, images, plan, outcome.chosen)
    settings = context.settings({"pretrain.seed": outcome.seeds[0]})
    test = {key: leader[key] for key in ("auc", "ci_low", "ci_high")}
    trained = load_trained_backbone(context, settings)
    export_chosen(run.folder, trained, settings, ProbeConfig(), hospitals, context, test)
