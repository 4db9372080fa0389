"""A node, the driver or the head's control store is killed while a sweep runs: nothing is lost, the result the same."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
from drivers import UNPRUNED, Driver, undisturbed, untimed
from simulated import SimulatedCluster, wait_for


def assert_undisturbed(driver: Driver, shared: Path, out: Path, trials: int) -> None:
    """Every trial ended, with the numbers it has in a process without Ray that nothing happened to."""
    table = pd.read_parquet(driver.run / "trials.parquet")
    assert table["status"].tolist() == ["done"] * trials
    for identity, history in driver.histories.items():
        assert untimed(history) == untimed(undisturbed(shared, driver.run, identity, out)), identity


def in_work(driver: Driver) -> dict[str, dict[str, Any]]:
    """The attempt on every trial that has not been left, by identity; also where its process is gone."""
    return {
        identity: attempts[-1]
        for identity, attempts in driver.attempts.items()
        if attempts and attempts[-1]["ended"] is None
    }


def far_from_done(driver: Driver) -> list[dict[str, Any]]:
    """The attempts on trials that have made two or three of their reports."""
    histories = driver.histories
    return [attempt for trial, attempt in in_work(driver).items() if 2 <= len(histories.get(trial, ())) <= 3]


def test_trials_of_a_lost_node_go_on_elsewhere(cluster: SimulatedCluster, shared: Path, tmp_path: Path):
    driver = Driver(cluster, shared, "loss", *UNPRUNED, "--trials", "8", "--gpus-per-trial", "0.5")
    nodes = cluster.tell("node_ids")["ids"]

    lost = driver.wait_for(lambda: far_from_done(driver), "reports")[0]["node_id"]
    cluster.tell("lose", nodes.index(lost))
    killed = time.time()
    victims = {trial: attempt for trial, attempt in in_work(driver).items() if attempt["node_id"] == lost}
    assert victims
    processes = [attempt["pid"] for attempt in victims.values()]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "its processes ended")
    before = {trial: driver.histories.get(trial, []) for trial in victims}
    cluster.tell("add", {"num_cpus": 4, "num_gpus": 1})  # as an autoscaler replaces a spot machine
    driver.finish()

    assert_undisturbed(driver, shared, tmp_path, trials=8)
    for identity, reports in before.items():
        assert driver.histories[identity][: len(reports)] == reports  # with their speed: they were not trained again
        first, second = driver.attempts[identity]
        assert first["ended"] is None
        assert second["node_id"] != lost
        print(f"{identity} went on {second['started'] - killed:.1f} s after the loss")


def test_a_killed_driver_leaves_nothing_running_and_is_resumed(cluster: SimulatedCluster, shared: Path, tmp_path: Path):
    flags = [*UNPRUNED, "--trials", "4", "--gpus-per-trial", "0.5", "--concurrent", "2"]
    killed = Driver(cluster, shared, "killed", *flags)
    killed.wait_for(lambda: far_from_done(killed), "reports")
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    processes = [attempt["pid"] for trial in killed.attempts.values() for attempt in trial]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the trials' processes ended")
    before = killed.histories
    wait_for(lambda: not cluster.busy(), "everything of its run ended")

    resumed = Driver(cluster, shared, "killed", *flags, "--resume")
    resumed.finish()
    assert_undisturbed(resumed, shared, tmp_path, trials=4)
    for identity, reports in before.items():
        assert resumed.histories[identity][: len(reports)] == reports


def test_trials_go_on_without_the_control_store_and_with_a_new_one(
    cluster: SimulatedCluster, shared: Path, tmp_path: Path
):
    driver = Driver(cluster, shared, "gcs", *UNPRUNED, "--trials", "4", "--gpus-per-trial", "0.5", "--concurrent", "2")
    driver.wait_for(lambda: far_from_done(driver), "reports")
    cluster.tell("kill_gcs")
    count = sum(map(len, driver.histories.values()))
    driver.wait_for(lambda: sum(map(len, driver.histories.values())) > count, "a report without a control store")
    cluster.tell("start_gcs")
    driver.finish()
    assert_undisturbed(driver, shared, tmp_path, trials=4)
    assert (pd.read_parquet(driver.run / "trials.parquet")["attempts"] == 1).all()
