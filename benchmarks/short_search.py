"""What the benchmarks of searches share: a search between two hospitals whose every trial has to do its work."""

from pathlib import Path
from typing import Any

import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scarce.config import SweepConfig
from scarce.data.feed import Feed
from scarce.fewshot.task import Task
from scarce.pairing import Hospitals
from scarce.resources import Plan, plan_resources
from scarce.search import search
from scarce.settings import default_settings
from scarce.trial import TrialContext


def make_context(folder: Path, config: SweepConfig, hospitals: Hospitals, feed: Feed) -> tuple[TrialContext, Plan]:
    """A search's context in a new folder, and how the present cluster places its trials."""
    folder.mkdir(parents=True)
    plan = plan_resources(config.search, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    base = default_settings(config.pretrain, feed.images)
    return TrialContext(config, base, hospitals.digests, folder, plan.cpus, plan.gpus), plan


def run_search(context: TrialContext, plan: Plan, feed: Feed, task: Task, **more: Any) -> None:
    """`scarce.search.search`, with `more` of its arguments; a failed trial is an error, as its time would not count."""
    failed = search(context, plan=plan, feed=feed, task=task, trials=context.config.search.trials, **more)
    if failed:
        raise RuntimeError(f"a trial failed, so the search did not do its work: {failed}")


def read_reports(folder: Path, identity: str, name: str) -> list[tuple[float, float]]:
    """When a trial of the search in `folder` reported a number, in seconds of the clock, and the number."""
    events = EventAccumulator(str(folder / "tensorboard" / identity))
    events.Reload()
    return [(event.wall_time, event.value) for event in events.Scalars(name)]
