"""The sweep: Ray Tune with Optuna over trials, from two hospitals to a chosen model. Read `run_sweep` from the top."""

import time
from dataclasses import asdict
from pathlib import Path

import ray

from scarce.audit_run import audit_run
from scarce.backbones import load_backbone
from scarce.budget.hook import BudgetHook
from scarce.budget.limits import open_budget
from scarce.budget.prices import read_nodes
from scarce.budget.spending import Spending
from scarce.cluster.connect import cluster_nodes, local_cluster
from scarce.cluster.notice import sigterm_is_notice
from scarce.config import SweepConfig, run_folder
from scarce.data.hospitals import open_hospital
from scarce.errors import UserError
from scarce.fewshot.imagenet import DOWNLOAD, load_imagenet
from scarce.fewshot.task import build_task
from scarce.files import write_json, write_text
from scarce.final import evaluate_chosen
from scarce.mirror import BOARDS, open_mirror
from scarce.pairing import Hospitals
from scarce.report.cost import cost_line, cost_summary
from scarce.report.plots import plot_learning_curves, plot_pareto
from scarce.report.run_page import write_report
from scarce.report.summary import summary_markdown
from scarce.resources import check_disk, plan_resources
from scarce.run_files import SUMMARY_NAME, check_folder, prepare_folder
from scarce.search import TUNE_NAME, prepare_ray, search
from scarce.settings import default_settings, override, parse_fixed, values_of
from scarce.space import Dimension
from scarce.study.outlook import look_ahead
from scarce.study.pareto import choose_trial
from scarce.study.warm_start import WARM_START_NAME, open_warm_start
from scarce.trial import TrialContext, worker_device
from scarce.trials.records import read_sampled, read_trials, write_trials_table
from scarce.watching.projector import project
from scarce.watching.trackers import check_trackers


def run_sweep(config: SweepConfig, space: dict[str, Dimension]) -> Path:
    """Search `space`, evaluate the chosen trial on test beside the baselines, and write everything to the run's folder.

    Returns:
        The run's folder: config.json, trials.parquet, summary.json, summary.md, report.html with results.csv and
        results.tex, test_scores.parquet, learning_curves.png (from three numbers of shots on), pareto.png (of two
        objectives), best/, audit/, tensorboard/, trials/, and rungs.jsonl and tune/ (what a resume needs),
        spending.json (what it cost so far). With a warm start also warm_start.json, what earlier
        runs brought.

    Raises:
        UserError: what was asked for cannot be done.
        KeyboardInterrupt: stopped by Ctrl-C; the same command with `--resume` goes on from there.
    """
    prepare_ray()
    check_trackers(config.run)
    started = time.monotonic()
    budget, prices = open_budget(config.search)
    mirror = open_mirror(run_folder(config.data, config.run, "ssl_aug"))
    folder = mirror.folder
    hospitals = Hospitals.open(config.data)
    fractions, image_size = config.protocol.fractions, config.pretrain.image_size
    held_out = hospitals.patients_to_leave_out(fractions)
    base = default_settings(config.pretrain, hospitals.count_images(held_out))
    fixed = parse_fixed(base, config.search.fix)
    base = override(base, fixed)
    space = {key: dimension for key, dimension in space.items() if key not in fixed}
    if config.baselines.imagenet not in ("", DOWNLOAD):
        load_imagenet(config.baselines.imagenet)  # a file that is none is refused before hours of training
    if config.audits.other:
        open_hospital(config.audits.other)  # one that is not there is refused before hours of training
    warm = open_warm_start(folder, config, base, space, hospitals.digests)
    print(check_disk(folder, base.recipe, config.search.trials))
    val_task = build_task(hospitals.target, config.protocol, held_out="val", largest_size=image_size)
    check_folder(mirror, config, hospitals.digests)

    with (
        sigterm_is_notice() as listen,
        local_cluster(address=config.run.address or None) as dashboard,
        mirror.pushing(),
    ):
        listen()
        print(f"Ray dashboard: {dashboard}")
        print(f"TensorBoard:   tensorboard --logdir {mirror.place(folder / BOARDS)}")
        plan = plan_resources(config.search, cluster_nodes(config.run.autoscale))
        prepare_folder(mirror, config, hospitals.digests)
        if warm.runs:
            write_json(folder / WARM_START_NAME, asdict(warm))
            print("\n".join(warm.lines))
        spending = Spending(folder, "GPU" if plan.gpus else "CPU")
        spending.tick("preparation", read_nodes(ray.nodes(), prices, spending.unit), now=started)
        feed, leak_check = hospitals.load_feed(fractions, image_size, plan.holds_worker)
        print(f"{feed.images} images to pretrain on, {plan.concurrent} trial(s) at a time")
        print(f"{len(val_task.findings)} findings: {', '.join(val_task.findings)}", flush=True)
        context = TrialContext(config, base, hospitals.digests, folder, plan.cpus, plan.gpus, mirror)
        spending.tick("preparation")
        spending.save()
        failed = search(
            context,
            space,
            plan,
            feed,
            val_task,
            points=[values_of(base, space), *warm.points],
            trials=config.search.trials,
            observations=warm.observations,
            budget=BudgetHook(context, plan, budget, prices),
        )
        spending = Spending(folder, spending.unit)
        spending.tick("final", read_nodes(ray.nodes(), prices, spending.unit))  # taken to be there until the end

    records = read_trials(folder)
    if not records:
        reasons = "; ".join(dict.fromkeys(failed.values())) or f"see the error.txt files below {folder / TUNE_NAME}"
        raise UserError(f"no trial made a report: {reasons}")
    table, costs, sampled = folder / "trials.parquet", spending.trials, read_sampled(folder)
    trials = write_trials_table(table, records, failed, config.pretrain.epochs, costs, spending.is_priced, sampled)
    chosen, choice = choose_trial(records, config.search.objective)
    seconds = spending.phases["search"]["seconds"]
    print(f"search ended after {seconds:.0f} s; evaluating trial {chosen.identity} on test", flush=True)
    test_task = build_task(hospitals.target, config.protocol, held_out="test", largest_size=image_size)
    summary = {
        **evaluate_chosen(context, chosen, hospitals, val_task, test_task),
        "search": {
            "trials": trials["status"].value_counts().to_dict(),
            "failed": failed,
            "seconds": seconds,
            **choice,
            **warm.summary,
        },
        "leak_check": leak_check,
        "confidence": config.protocol.confidence,
    }
    write_json(folder / SUMMARY_NAME, summary)
    device = worker_device(plan.gpus)
    backbone = load_backbone(folder / "best")[0].to(device)
    project(mirror, backbone, hospitals, (val_task, test_task), image_size, device)
    spending.tick("final")
    audits = config.audits.audit
    if audits and budget.seconds_left(spending.seconds, spending.usd, spending.usd_per_hour) <= 0:
        print(f"the budget is spent before the audits: `scarce audit {mirror}` makes them", flush=True)
        audits = False
    if audits:
        print("auditing it: anatomy or shortcut?", flush=True)
        summary["audit"] = audit_run(folder, config.audits)
        write_json(folder / SUMMARY_NAME, summary)
    curves = {
        name: row["learning_curve"]
        for name, row in {"chosen": summary["chosen"], **summary["baselines"]}.items()
        if row.get("learning_curve", {}).get("available")
    }
    if curves:
        plot_learning_curves(folder / "learning_curves.png", curves)
    if "front" in choice:
        plot_pareto(folder / "pareto.png", trials.dropna(subset="val_auc"), choice)
    spending.tick("final")
    spending.save()
    summary["cost"] = cost_summary(spending, budget, prices, look_ahead(records, space, config, spending))
    write_json(folder / SUMMARY_NAME, summary)
    text = summary_markdown(summary, trials)
    write_text(folder / "summary.md", text)
    report = write_report(folder)
    mirror.push()
    print(f"\n{text}\nWritten to {mirror}; read {mirror.place(report)}\n{cost_line(summary['cost'])}")
    return folder
