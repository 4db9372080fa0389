"""Search gradient fine-tuning of one finished backbone: which stages are trained, and how fast.

    python sweeps/finetune.py --checkpoint runs/ssl_aug-phantom-a-phantom-b/best
    python sweeps/finetune.py --checkpoint runs/nih-padchest/best --target data/padchest --trials 40

Every episode is fine-tuned from the same backbone, with a head that starts as the nearest-prototype classifier. Each
trial's AUC on the target hospital's validation patients guides Optuna's TPE. The best setting is then scored once on
the test patients with fresh seeds, beside probes on the frozen backbone and a network trained from random weights, all
on the same episodes.
"""

import sys
from dataclasses import fields

import tyro

from scarce.command_line import refusals_in_one_line
from scarce.errors import EXITS, run_or_exit
from scarce.frozen_config import FinetuneSweepConfig


def main() -> None:
    """Search, evaluate, write runs/<name>/."""
    with refusals_in_one_line():
        config = tyro.cli(
            FinetuneSweepConfig,
            args=sys.argv[1:],
            description=f"{__doc__}\n{EXITS}",
            config=(tyro.conf.OmitArgPrefixes,),
        )

    # Imported here, so that --help does not wait for torch.
    import numpy as np

    from scarce.backbones import create_backbone
    from scarce.fewshot.baselines import from_scratch
    from scarce.fewshot.evaluate import score_task, validation
    from scarce.fewshot.features import extract_features
    from scarce.fewshot.finetune import SEARCH_SPACE, FinetuneConfig, finetune_task
    from scarce.fewshot.probe import ProbeConfig
    from scarce.fewshot.probe_search import search_probe
    from scarce.fewshot.task import Scores, Task
    from scarce.frozen_sweep import best_trial, open_sweep, search

    sweep = open_sweep(config, "finetune")
    val = sweep.task("val")
    print(f"{len(val.findings)} findings: {', '.join(val.findings)}", flush=True)

    def finetune(task: Task, values: dict, seeds: int | None = None) -> Scores:
        return finetune_task(sweep.backbone, task, FinetuneConfig(**values), sweep.image_size, sweep.device, seeds)

    def objective(values: dict) -> dict[str, float]:
        return validation(val, finetune(val, values, config.val_seeds))

    defaults = {field.name: getattr(FinetuneConfig(), field.name) for field in fields(FinetuneConfig)}
    start = {name: defaults[name] for name in SEARCH_SPACE}
    starts = [
        start,
        {**start, "unfreeze_from": 4},  # how much of the gain is the head's
        # Nearly everything, fast, but only where there are enough films for it.
        {
            **start,
            "unfreeze_from": 1,
            "backbone_from": 20,
            "backbone_lr": 3e-3,
            "batch_norm": "batch",
            "validation_from": 0,
        },
    ]
    trials = search(SEARCH_SPACE, starts, objective, config)

    def features(task: Task) -> np.ndarray:
        return extract_features(sweep.backbone, task.images, sweep.image_size, sweep.device)

    test = sweep.task("test")
    known = {task.held_out: features(task) for task in (val, test)}
    scores: dict[str, Scores | str] = {
        "chosen": finetune(test, best_trial(trials).values),
        "linear_probe": score_task(test, known["test"], search_probe(val, known["val"])[0]),
        "prototypes": score_task(test, known["test"], ProbeConfig(kind="prototype")),
        "from_scratch": "not asked for (--scratch-seeds 0)",
    }
    if config.scratch_seeds:
        untrained = create_backbone(sweep.card["backbone"], config.seed).to(sweep.device)
        seeds = min(config.scratch_seeds, len(test.seeds))
        scores["from_scratch"] = from_scratch(val, test, untrained, sweep.image_size, sweep.device, seeds)
    sweep.write(trials, test, scores, lambda task: finetune(task, best_trial(trials).values))


if __name__ == "__main__":
    run_or_exit(main)
