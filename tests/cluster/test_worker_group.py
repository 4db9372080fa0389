"""Training workers that stay, driven from a process of its own as Tune's trials are."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig

from scarce.cluster.worker_group import WorkerGroup
from scarce.distributed import rank, sum_over_workers

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes do not know where the tests lie

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.long]

SUMMED = 1.0 + 2.0  # over two workers


def work(job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """`steps` reports; a worker whose rank is `fails` raises, one whose rank is `dies` is killed."""
    for step in range(job["steps"]):
        total = float(sum_over_workers(torch.tensor([rank() + 1.0])))
        report({"step": step, "total": total, "pid": os.getpid(), "job": job["name"]})
        if rank() == job.get("fails"):
            raise FloatingPointError("the loss is nan")
        if rank() == job.get("dies"):
            os.kill(os.getpid(), 9)


@ray.remote(num_cpus=0, max_restarts=0)
class Driver:
    """The process that Tune would reuse."""

    def __init__(self, folder: str) -> None:
        scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.9})
        storage = RunConfig(name="group", storage_path=folder)
        self.group = WorkerGroup(work, scaling, TorchConfig(backend="gloo"), storage)

    def do(self, job: dict[str, Any], stop_at: int | None = None) -> list[dict[str, Any]]:
        """The reports of a job, which is stopped at one of them as Tune stops a trial: by an exit out of `report`."""
        reports: list[dict[str, Any]] = []

        def report(metrics: dict[str, Any]) -> None:
            reports.append(metrics)
            if metrics["step"] == stop_at:
                raise SystemExit(0)

        try:
            self.group.do(job, report)
        except SystemExit:
            reports.append({"stopped": True})
        return reports

    def alive(self) -> bool:
        """Whether the group takes another job."""
        return self.group.alive


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_jobs_share_workers_a_stopped_one_leaves_them_ready_and_nothing_stays_behind(tmp_path: Path):
    free = ray.available_resources()["CPU"]
    driver = Driver.remote(str(tmp_path))  # type: ignore[attr-defined]
    first = ray.get(driver.do.remote({"name": "first", "steps": 3}))
    assert [report["step"] for report in first] == [0, 1, 2]
    assert {report["total"] for report in first} == {SUMMED}
    stopped = ray.get(driver.do.remote({"name": "stopped", "steps": 1000}, stop_at=1))
    assert [report.get("step") for report in stopped] == [0, 1, None]
    third = ray.get(driver.do.remote({"name": "third", "steps": 2}))
    assert [(report["job"], report["step"]) for report in third] == [("third", 0), ("third", 1)]
    pids = {report["pid"] for report in [*first, *stopped[:-1], *third]}
    assert len(pids) == 1  # the first worker's, for all jobs
    ray.kill(driver)
    (pid,) = pids
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    wait_for(lambda: ray.available_resources().get("CPU", 0) == free)


@pytest.mark.parametrize("trouble", ["fails", "dies"])
def test_trouble_of_one_worker_ends_the_job_with_its_reason(tmp_path: Path, trouble: str):
    free = ray.available_resources()["CPU"]
    driver = Driver.remote(str(tmp_path))  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="the loss is nan" if trouble == "fails" else "died|dead|unhealthy|crash"):
        ray.get(driver.do.remote({"name": "job", "steps": 5, trouble: 1}), timeout=120)
    assert not ray.get(driver.alive.remote())
    ray.kill(driver)
    wait_for(lambda: ray.available_resources().get("CPU", 0) == free)
