"""A sweep of 64 short trials over a head and two nodes: how they share GPUs and images, and what is told of them."""

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from drivers import Driver
from simulated import SimulatedCluster

TRIALS = 64
FLAGS = ("--trials", str(TRIALS), "--epochs", "2", "--batch-size", "64", "--gpus-per-trial", "0.25")


@dataclass(frozen=True)
class Sweep:
    """A finished sweep, and how many trials held a share of the head and of each node, looked at all along."""

    driver: Driver
    placed: list[tuple[int, ...]]


@pytest.fixture(scope="module")
def sweep(cluster: SimulatedCluster, shared: Path) -> Sweep:
    driver, placed = Driver(cluster, shared, "many", *FLAGS, mapped=True), []
    while driver.process.poll() is None:
        placed.append(tuple(cluster.trials(node) for node in (0, 1, 2)))
        time.sleep(0.2)
    driver.finish()
    return Sweep(driver, placed)


def test_every_trial_is_accounted_for(sweep: Sweep):
    trials = pd.read_parquet(sweep.driver.run / "trials.parquet")
    assert len(trials) == trials["trial"].nunique() == TRIALS
    assert set(trials["status"]) <= {"done", "pruned", "collapsed"}
    assert {"done", "pruned"} <= set(trials["status"])
    assert set(trials["trial"]) == {path.name for path in sweep.driver.run.glob("trials/*")}
    assert (trials["attempts"] == 1).all()
    assert (trials["gpu"] == "0").all()
    assert (trials["node"] != "").all()


def test_four_quarters_share_a_gpu_and_no_more(sweep: Sweep, cluster: SimulatedCluster):
    assert [max(counts) for counts in zip(*sweep.placed, strict=True)] == [0, 4, 4]
    assert max(sweep.placed) == (0, 4, 4)  # eight at once
    attempts = [attempt for trial in sweep.driver.attempts.values() for attempt in trial]
    assert {tuple(attempt["gpus"]) for attempt in attempts} == {("0",)}  # each node's own
    assert {attempt["node_id"] for attempt in attempts} == set(cluster.tell("node_ids")["ids"][1:])
    assert "8 trial(s) at a time" in sweep.driver.finish()


def test_images_are_decoded_once_on_each_node_that_trains(sweep: Sweep, cluster: SimulatedCluster):
    attempts = [attempt for trial in sweep.driver.attempts.values() for attempt in trial]
    assert len(attempts) == TRIALS
    first = min(attempt["started"] for attempt in attempts)
    for node in (1, 2):
        [file] = cluster.home(node).glob(".cache/scarce/*.pixels")
        assert file.stat().st_mtime < first  # whoever decodes replaces the file
    assert not list(cluster.home(0).glob(".cache/scarce/*"))  # trials can't run there
