"""Several training workers that stay: one Ray Train run serves a process's trials, one after the other.

A Train run costs a controller and a process for every worker, each of which imports torch: 12 to 15 s on two cores,
against 1 s of training in a short trial. Tune reuses the process that drives a trial, so that process keeps its run.
Its workers wait for a job at a mailbox, work on it, and wait for the next one.

An error in any worker ends the Train run, as a worker that is gone leaves the others waiting for it. The trial fails
with it and is tried again by another process, with workers of its own. When the process ends, so do its workers.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from scarce.distributed import broadcast_from_first, rank

Report = Callable[[dict[str, Any]], None]
Work = Callable[[Any, Report], None]  # does one job, reporting as it goes; the same on every worker

_POLL_S = 5.0  # how often a driver that waits for a report looks whether there still are workers


class JobStopped(BaseException):
    """The trial was ended at a report. Like KeyboardInterrupt no `Exception`: nothing on the way should catch it."""


@ray.remote(num_cpus=0)
class Mailbox:
    """Where the driver leaves jobs for the workers, and the first worker its reports for the driver."""

    def __init__(self, workers: int) -> None:
        self.jobs: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(workers)]
        self.reports: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.answers: asyncio.Queue[bool] = asyncio.Queue()

    async def put_job(self, job: Any) -> None:
        """Leave a job for every worker."""
        for queue in self.jobs:
            queue.put_nowait(job)

    async def next_job(self, worker: int) -> Any:
        """A worker's next job; waits for it."""
        return await self.jobs[worker].get()

    async def report(self, metrics: dict[str, Any]) -> bool:
        """Leave a report, and wait to hear whether to go on."""
        self.reports.put_nowait(metrics)
        return await self.answers.get()

    async def finish(self) -> None:
        """Say that the job is done."""
        self.reports.put_nowait(None)

    async def next_report(self) -> dict[str, Any] | None:
        """The next report; waits for it. None: the job is done."""
        return await self.reports.get()

    async def answer(self, go_on: bool) -> None:
        """Answer a report."""
        self.answers.put_nowait(go_on)


class WorkerGroup:
    """A Ray Train run whose workers do one job after the other."""

    def __init__(self, work: Work, scaling: ScalingConfig, torch_config: TorchConfig, run_config: RunConfig) -> None:
        """Start the run; its first job may be given at once."""
        assert isinstance(scaling.num_workers, int)
        self.mailbox = Mailbox.remote(scaling.num_workers)  # type: ignore[attr-defined]
        self.error: Exception | None = None
        trainer = TorchTrainer(
            lambda arguments: _serve(**arguments),
            train_loop_config={"work": work, "mailbox": self.mailbox},
            torch_config=torch_config,
            scaling_config=scaling,
            run_config=run_config,
        )
        self._thread = threading.Thread(target=self._fit, args=[trainer], daemon=True)
        self._thread.start()

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:  # raised again by the job that is being worked on
            self.error = error

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._thread.is_alive()

    def do(self, job: Any, report: Report) -> None:
        """Have the workers do a job, passing their reports on. Where `report` does not return, they stop the job.

        Raises:
            Exception: a worker's error. The group is of no use after that.
        """
        ray.get(self.mailbox.put_job.remote(job))
        while (metrics := self._next_report()) is not None:
            go_on = False
            try:
                report(metrics)
                go_on = True
            finally:  # Tune ends a trial by SystemExit out of its report
                ray.get(self.mailbox.answer.remote(go_on))
                if not go_on:
                    self._next_report()  # the workers have left the job

    def _next_report(self) -> dict[str, Any] | None:
        waiting = self.mailbox.next_report.remote()
        while True:
            ready, _ = ray.wait([waiting], timeout=_POLL_S)
            if ready:
                metrics: dict[str, Any] | None = ray.get(waiting)
                return metrics
            if not self.alive:
                raise self.error or RuntimeError("the training workers ended without an error")


def _serve(work: Work, mailbox: Any) -> None:
    """What a worker of the Train run does, until its process ends."""
    while True:
        job = ray.get(mailbox.next_job.remote(rank()))

        def report(metrics: dict[str, Any]) -> None:
            """Every worker calls this at the same point; the first one's metrics count."""
            go_on = ray.get(mailbox.report.remote(metrics)) if rank() == 0 else False
            device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
            if not broadcast_from_first(torch.tensor(float(go_on), device=device)):
                raise JobStopped

        with suppress(JobStopped):
            work(job, report)
        if rank() == 0:
            ray.get(mailbox.finish.remote())
