"""A trial of two workers on nodes that have room for one each."""

import os
import socket
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from drivers import UNPRUNED, Driver, undisturbed, untimed
from simulated import SimulatedCluster


def work(number: int, port: int, shared: Path, run: Path, identity: str, out: Path) -> None:
    """One of the same trial's two workers on one machine, without Ray."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=number, world_size=2)
    try:
        undisturbed(shared, run, identity, out)
    finally:
        dist.destroy_process_group()


def test_two_workers_span_two_nodes(cluster: SimulatedCluster, shared: Path, tmp_path: Path):
    flags = [*UNPRUNED, "--trials", "1", "--workers-per-trial", "2", "--gpus-per-trial", "1"]
    driver = Driver(cluster, shared, "spanning", *flags)
    driver.finish()
    [(identity, attempts)] = driver.attempts.items()
    assert {attempt["worker"] for attempt in attempts} == {0, 1}
    assert len({attempt["node_id"] for attempt in attempts}) == 2
    [history] = driver.histories.values()
    assert history[-1]["epoch"] == pytest.approx(1)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, shared, driver.run, identity, tmp_path), nprocs=2)
    assert untimed(history) == untimed(undisturbed(shared, driver.run, identity, tmp_path))  # which reads it back
