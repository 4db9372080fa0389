"""Search the probe on one finished backbone: which classifier, how strongly regularised, on features scaled how.

    python sweeps/probe.py --checkpoint runs/ssl_aug-phantom-a-phantom-b/best
    python sweeps/probe.py --checkpoint runs/nih-padchest/best --target data/padchest --trials 100

Features are extracted once. Each trial trains its probe on the few labelled images of every episode and scores it on
the target hospital's validation patients, averaged over few-shot seeds; Optuna's TPE goes by that AUC. The best
probe is then scored once on the test patients with fresh seeds, beside the default probe on the same episodes.
"""

import sys
from functools import cache

import tyro

from scarce.command_line import refusals_in_one_line
from scarce.errors import EXITS, run_or_exit
from scarce.frozen_config import FrozenConfig


def main() -> None:
    """Search, evaluate, write runs/<name>/."""
    with refusals_in_one_line():
        config = tyro.cli(
            FrozenConfig, args=sys.argv[1:], description=f"{__doc__}\n{EXITS}", config=(tyro.conf.OmitArgPrefixes,)
        )

    # Imported here, so that --help does not wait for torch.
    import numpy as np

    from scarce.audit.subject import FrozenPipeline
    from scarce.fewshot.evaluate import one_thread, score_task, validation
    from scarce.fewshot.features import extract_features
    from scarce.fewshot.probe import SEARCH_SPACE, ProbeConfig
    from scarce.fewshot.task import Scores, Task
    from scarce.frozen_sweep import Trial, best_trial, open_sweep, search, trials_table
    from scarce.report.frozen import settings_table

    sweep = open_sweep(config, "probe")
    tasks = {"val": sweep.task("val")}
    print(f"{len(tasks['val'].findings)} findings: {', '.join(tasks['val'].findings)}", flush=True)

    @cache
    def features(held_out: str, positions: bool) -> np.ndarray:
        images = tasks[held_out].images
        return extract_features(sweep.backbone, images, sweep.image_size, sweep.device, positions=positions)

    def score(task: Task, probe: ProbeConfig) -> Scores:
        known = features(task.held_out, probe.uses_positions)
        with one_thread():
            return score_task(task, known, probe, sweep.device)

    def objective(values: dict) -> dict[str, float]:
        return validation(tasks["val"], score(tasks["val"], ProbeConfig(**values)))

    # The defaults first, then every other kind with the defaults, so that each has its chance.
    defaults = {name: getattr(ProbeConfig(), name) for name in SEARCH_SPACE}
    kinds = SEARCH_SPACE["kind"].values
    starts = [{**defaults, "kind": kind} for kind in sorted(kinds, key=lambda kind: kind != defaults["kind"])]
    trials = search(SEARCH_SPACE, starts, objective, config)

    def best_of(kind: str) -> list[Trial]:
        done = [trial for trial in trials if trial.values["kind"] == kind and not trial.error]
        return [best_trial(done)] if done else []

    chosen = ProbeConfig(**best_trial(trials).values)
    tasks["test"] = sweep.task("test")
    sweep.write(
        trials,
        tasks["test"],
        {"chosen": score(tasks["test"], chosen), "default_probe": score(tasks["test"], ProbeConfig())},
        FrozenPipeline(sweep.backbone, sweep.image_size, chosen, sweep.device),
        sections=[
            "## The best of each kind, on val",
            settings_table(trials_table([trial for kind in kinds for trial in best_of(kind)])),
            *(["The search chose the default probe itself."] if chosen == ProbeConfig() else []),
        ],
    )


if __name__ == "__main__":
    run_or_exit(main)
