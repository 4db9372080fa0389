"""Searches in which chosen trials meet chosen faults, and the same trials undisturbed."""

import functools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from phantom_hospitals import small_sweep
from torch import Tensor

from scarce import pretrain
from scarce.cluster.notice import VARIABLE
from scarce.data.feed import Feed, load_feed
from scarce.data.pixels import Pixels
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.fewshot.probe_search import PROBE_GRID
from scarce.fewshot.task import Task, build_task
from scarce.resources import Plan
from scarce.search import prepare_ray, search
from scarce.settings import Settings, default_settings
from scarce.space import Float
from scarce.trial import TrialContext, train_worker

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not know where the tests lie

KEY = "views.noise"
TIMING = "images_per_s"
STEPS = 6  # of a whole trial
INTERVAL = 2  # steps between two reports


@dataclass(frozen=True)
class Fault:
    """What befalls one trial, by the number of steps that it has made before, repeated ones included."""

    at: dict[int, str]  # kill, nan, memory, mistake, hang or notice
    rank: int = 0  # of the worker that it befalls


def strike(what: str) -> None:
    """Have the fault happen in this process."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "memory":
        torch.empty(1 << 60, dtype=torch.uint8)
    elif what == "mistake":
        raise UserError("expected one thing, found another")
    elif what == "hang":
        time.sleep(3600)
    elif what == "notice":
        Path(os.environ[VARIABLE]).touch()


@dataclass(frozen=True, kw_only=True)
class FaultyContext(TrialContext):
    """A context whose training processes are struck by the faults of the trial that they work on."""

    faults: dict[float, Fault]  # by the trial's value of KEY
    driver: int  # the process that must stay as it is

    def settings(self, sampled: Any) -> Settings:
        """The settings, after the loop was made faulty: every training process asks for them first."""
        settings = super().settings(sampled)
        if os.getpid() != self.driver and KEY in sampled:
            folder = self.folder / "faults" / str(sampled[KEY])
            folder.mkdir(parents=True, exist_ok=True)
            step = pretrain.train_step
            real = step.keywords["real"] if isinstance(step, functools.partial) else step
            fault = self.faults.get(sampled[KEY])
            os.environ[VARIABLE] = str(folder / f"notice-{os.getpid()}")  # as if each process had its own machine
            pretrain.train_step = functools.partial(faulty_step, fault=fault, folder=folder, real=real)
        return settings


def faulty_step(
    wrapped: Any, method: Any, *rest: Any, fault: Fault | None, folder: Path, real: Callable[..., Tensor], **more: Any
) -> Tensor:
    """A training step, logged, with what befalls it."""
    from scarce.distributed import rank

    log = folder / f"steps-{rank()}.txt"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {method.progress}\n")
    loss = real(wrapped, method, *rest, **more)
    if fault is not None and rank() == fault.rank and done in fault.at:
        if fault.at[done] == "nan":
            return loss * torch.nan
        strike(fault.at[done])
    return loss


def noises(count: int) -> list[float]:
    """The values of KEY that tell the trials of a search apart."""
    return [round(0.01 * (number + 1), 2) for number in range(count)]


class Sweep:
    """A search of a few short trials over the hospitals that lie in `folder`."""

    def __init__(self, folder: Path, name: str, faults: dict[float, Fault], workers: int = 1, **options: Any) -> None:
        prepare_ray()
        config = small_sweep(folder, name, workers_per_trial=workers, **options.pop("search", {}))
        config = replace(config, pretrain=replace(config.pretrain, epochs=2.0, report_epochs=0.5, **options))
        dataset, target = open_dataset(folder / "a"), open_dataset(folder / "b")
        self.feed: Feed = load_feed(dataset, largest_size=32)
        self.task = build_task(target, config.protocol, held_out="val", largest_size=32)
        base = replace(default_settings(config.pretrain, self.feed.images), probes=PROBE_GRID[:1])
        digests = (dataset.manifest.digest, target.manifest.digest)
        run = folder / "runs" / name
        self.dataset = dataset
        cpus = 0.9 if workers > 1 else 1.0
        self.context = FaultyContext(config, base, digests, run, cpus, 0.0, faults=faults, driver=os.getpid())
        self.plain = TrialContext(config, base, digests, folder / "runs" / f"not-{name}", self.context.cpus, 0.0)

    def run(self, values: list[float], concurrent: int = 2) -> None:
        """Run a trial for each value of KEY; `failed` then has the reasons of those that failed for good."""
        plan = Plan(self.context.cpus, 0.0, self.context.config.search.workers_per_trial, concurrent)
        points = [{KEY: value} for value in values]
        space = {KEY: Float(0.0, 0.1)}
        failed = search(self.context, space, plan, self.feed, self.task, points=points, trials=len(points), prune=False)
        self.failed = {value: failed[self.trial(value).name] for value in values if self.trial(value).name in failed}
        assert len(self.failed) == len(failed)

    def trial(self, value: float) -> Path:
        """A trial's folder."""
        return self.context.trial_folder(self.context.settings({KEY: value}))

    def undisturbed(self, value: float) -> list[dict[str, Any]]:
        """The reports of that trial where nothing happens, from this process or from others without Ray."""
        workers, sampled = self.plain.config.search.workers_per_trial, {KEY: value}
        if workers == 1:
            train_worker(sampled, ignore, context=self.plain, feed=self.feed, task=self.task)
        else:
            feed = FromDisk(self.dataset.path, 32, self.feed.images)
            torch.multiprocessing.spawn(join, (workers, free_port(), sampled, self.plain, feed, self.task), workers)
        return history(self.plain.trial_folder(self.plain.settings({KEY: value})))

    def steps(self, value: float, rank: int = 0) -> list[tuple[str, int]]:
        """The training steps that were made for a trial, in order: process and number of each."""
        lines = (self.context.folder / "faults" / str(value) / f"steps-{rank}.txt").read_text().splitlines()
        return [(process, round(float(progress) * STEPS)) for process, progress in map(str.split, lines)]


def ignore(metrics: dict[str, Any]) -> None:
    """A report that nobody reads."""


class FromDisk(Feed):
    """The same images as a feed's, for processes without Ray; `source` is the dataset's folder."""

    def open(self) -> Pixels:
        """All of them."""
        return Pixels([open_dataset(self.source).pixels()])  # type: ignore[arg-type]


def join(rank: int, workers: int, port: int, sampled: Any, context: TrialContext, feed: Feed, task: Task) -> None:
    """One of several training workers in processes of their own."""
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=workers)
    train_worker(sampled, ignore, context=context, feed=feed, task=task)
    torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def history(folder: Path) -> list[dict[str, Any]]:
    """A trial's reports, timing apart."""
    reports = json.loads((folder / "history.json").read_text())
    return [{name: value for name, value in report.items() if name != TIMING} for report in reports]
