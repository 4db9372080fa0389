"""A sweep of 64 short trials over a head and two nodes: how they share GPUs and images, and what is told of them."""

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import pandas as pd
import pytest
from drivers import Driver
from simulated import SimulatedCluster

TRIALS = 64
FLAGS = ("--trials", str(TRIALS), "--epochs", "2", "--batch-size", "128", "--gpus-per-trial", "0.25")


@pytest.fixture(scope="module")
def sweep(cluster: SimulatedCluster, shared: Path) -> Driver:
    driver = Driver(cluster, shared, "many", *FLAGS, mapped=True)
    driver.output = driver.finish()
    return driver


def test_every_trial_is_accounted_for(sweep: Driver):
    trials = pd.read_parquet(sweep.run / "trials.parquet")
    assert len(trials) == trials["trial"].nunique() == TRIALS
    assert set(trials["status"]) <= {"done", "pruned", "collapsed"}
    assert {"done", "pruned"} <= set(trials["status"])
    assert set(trials["trial"]) == {path.name for path in sweep.run.glob("trials/*")}
    assert (trials["attempts"] == 1).all()
    assert (trials["gpu"] == "0").all()
    assert (trials["node"] != "").all()


def test_four_quarters_share_a_gpu_and_no_more(sweep: Driver, cluster: SimulatedCluster):
    head, *workers = cluster.tell("node_ids")["ids"]
    attempts = [attempt for trial in sweep.attempts.values() for attempt in trial]
    assert {tuple(attempt["gpus"]) for attempt in attempts} == {("0",)}  # each node's own
    assert head not in {attempt["node_id"] for attempt in attempts}
    # A trial's process holds its share from its first trial to its last.
    held = {}
    for attempt in attempts:
        process = (attempt["node_id"], attempt["pid"])
        start, end = held.get(process, (attempt["started"], attempt["ended"]))
        held[process] = (min(start, attempt["started"]), max(end, attempt["ended"]))
    most = {node: most_at_once(span for (where, _), span in held.items() if where == node) for node in workers}
    assert most == dict.fromkeys(workers, 4)
    assert most_at_once(held.values()) == 8
    assert "8 trial(s) at a time" in sweep.output


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """How many of some spans of time have a moment in common."""
    changes = sorted(change for start, end in spans for change in ((start, 1), (end, -1)))
    return max(accumulate(change for _, change in changes))


def test_images_are_decoded_once_on_each_node_that_trains(sweep: Driver, cluster: SimulatedCluster):
    attempts = [attempt for trial in sweep.attempts.values() for attempt in trial]
    assert len(attempts) == TRIALS
    first = min(attempt["started"] for attempt in attempts)
    for node in (1, 2):
        [file] = cluster.home(node).glob(".cache/scarce/*.pixels")
        assert file.stat().st_mtime < first  # whoever decodes replaces the file
    assert not list(cluster.home(0).glob(".cache/scarce/*"))  # trials can't run there
