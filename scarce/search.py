"""One search: trials under Ray Tune with Optuna over one method's settings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from scarce.budget.hook import BudgetHook
from scarce.data.feed import Feed
from scarce.fewshot.task import Task
from scarce.report.console import TrialLines
from scarce.report.live_trials import watch_trials
from scarce.resources import Plan
from scarce.retries import TUNE_MAX_FAILURES, Retries, last_line
from scarce.settings import Value
from scarce.space import Dimension
from scarce.study.journal import StudyJournal
from scarce.study.optuna_space import make_sampler, to_distributions
from scarce.study.pruner import RUNGS_NAME, Pruner
from scarce.study.searcher import Searcher
from scarce.trial import TrialContext, run_trial
from scarce.trials.records import FAILED, METRIC, TrialRecord
from scarce.watching.trackers import Tracking, open_trackers

TUNE_NAME = "tune"


def prepare_ray() -> None:
    """What Tune and Train read from the environment; before Ray starts."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # trials write their own TensorBoard files, while they run
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints a banner even where verbose=0
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # no tracebacks of trials that are tried again; they have files
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune would return as if the search had ended
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"  # seconds between Tune's snapshots; by default 10 are lost to kill -9
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # a process trains one trial after the other, each in a new thread
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # also paces the reports of worker groups


def search(
    context: TrialContext,
    space: Mapping[str, Dimension],
    plan: Plan,
    feed: Feed,
    task: Task,
    *,
    points: Sequence[Mapping[str, Value]],
    trials: int,
    prune: bool = True,
    observations: Sequence[TrialRecord] = (),
    budget: BudgetHook | None = None,
) -> dict[str, str]:
    """Run the trials, going on where an interrupted search in the same folder stopped.

    Args:
        context: what the trials share; `context.folder` is the search's own.
        space: what is searched.
        plan: how trials are placed.
        feed: the images to pretrain on.
        task: the val task.
        points: settings to try first, in order, each with a value for all of `space`.
        trials: how many to run, those of `points` included.
        prune: whether trials that fall behind are stopped early.
        observations: trials of earlier runs for the sampler, with a value for all of `space` in `sampled`.
        budget: meters the run and ends the search in time.

    Returns:
        The trials that failed for good, by identity, with the reason in a line.
    """
    config, context = context.config, replace(context, space=dict(space))

    def folder_of(sampled: dict[str, Value]) -> Path:
        return context.trial_folder(context.settings(sampled))

    trainable = tune.with_resources(
        tune.with_parameters(run_trial, context=context, feed=feed, task=task), plan.trial_resources
    )
    path = str(context.folder / TUNE_NAME)
    if config.run.resume and tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, restart_errored=False)
        # Ray has no public way to what was pickled with the run's folder of then.
        restored = _inside(tuner)._tune_config
        restored.search_alg.folder = context.folder
        if isinstance(restored.scheduler, Pruner):
            restored.scheduler.path = context.folder / RUNGS_NAME
    else:
        searcher = Searcher(
            to_distributions(space),
            make_sampler(config.search.sampler, config.pretrain.seed, trials),
            points=[dict(point) for point in points],
            epochs=config.pretrain.epochs,
            folder=context.folder,
            objectives=config.search.objectives,
            observations=observations,
            budget=budget,
        )
        pruner = Pruner(context.folder, config.pretrain.epochs, config.search.reduction, METRIC) if prune else None
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=searcher,
                scheduler=pruner,
                num_samples=trials,
                max_concurrent_trials=plan.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=TUNE_NAME,
                storage_path=str(context.folder),
                callbacks=[
                    *([budget] if budget else []),
                    TrialLines(config.pretrain.epochs),
                    Retries(folder_of, context.mirror),
                ],
                stop=budget,
                failure_config=tune.FailureConfig(max_failures=TUNE_MAX_FAILURES),
                verbose=0,
            ),
        )
    callbacks, search_alg = _inside(tuner).get_run_config().callbacks, _inside(tuner)._tune_config.search_alg
    # Now that the tuner was pickled: a terminal and an open file can't be.
    callbacks.append(StudyJournal(context.folder, lambda: search_alg.study, lambda sampled: folder_of(sampled).name))
    name = f"{context.folder.parent.name}/{context.folder.name}"
    callbacks.append(Tracking(open_trackers(config.run, name), config.pretrain.epochs))
    with watch_trials(context, trials, budget) as shown:
        callbacks[:] = [shown if isinstance(callback, TrialLines) else callback for callback in callbacks]
        results = tuner.fit()
    context.mirror.pull_reports()
    return {
        folder_of(result.config or {}).name: (result.metrics or {}).get(FAILED) or last_line(result.error)
        for result in map(results.__getitem__, range(len(results)))
        if result.error or FAILED in (result.metrics or {})
    }


def _inside(tuner: tune.Tuner) -> Any:
    return vars(tuner)["_local_tuner"]
