"""A cluster that starts without a node for trials: nodes come as trials wait and go when they are idle."""

import time
from pathlib import Path

import pandas as pd
from drivers import Driver
from simulated import autoscaling_cluster, wait_for


def test_nodes_come_with_trials_and_go_after_them(shared: Path):
    with autoscaling_cluster(shared, {"CPU": 2, "GPU": 1}, most=2, idle_s=5) as cluster:
        assert cluster.nodes() == 1
        flags = ["--trials", "4", "--epochs", "1", "--gpus-per-trial", "1", "--autoscale", "2", "2", "1"]
        driver = Driver(cluster, shared, "autoscaled", *flags)
        driver.wait_for(lambda: "trial(s) at a time" in driver.log.read_text(), "the plan")
        planned = time.monotonic()
        driver.wait_for(lambda: cluster.nodes() == 3, "two nodes came")
        came = time.monotonic()
        driver.wait_for(lambda: driver.histories, "a report")
        reported = time.monotonic()
        driver.wait_for(lambda: "search ended" in driver.log.read_text(), "the end of the search")
        ended = time.monotonic()
        wait_for(lambda: cluster.nodes() == 1, "they went")
        gone = time.monotonic()
        assert "2 trial(s) at a time" in driver.finish()
        trials = pd.read_parquet(driver.run / "trials.parquet")
        assert trials["status"].tolist() == ["done"] * 4
        print(f"{came - planned:.1f} s to 2 nodes, {reported - came:.1f} to a report, {gone - ended:.1f} till gone")
