"""A trial's metrics at the address that Prometheus scrapes."""

import time
import urllib.request

import pytest
import ray

from scarce.watching.live_metrics import METRICS, LiveMetrics

PATIENCE = 60  # seconds; Ray's nodes renew what they export every few

pytestmark = pytest.mark.usefixtures("ray_cluster")


@ray.remote(num_cpus=0)
class Trial:
    """A process as trials have, that makes one report and ends its trial when told to."""

    def report(self) -> None:
        self.live = LiveMetrics("runs/mine", "abc")
        self.live.set(
            {"val_auc": 0.625, "effective_rank": 12.5, "loss": 3.25, "images_per_s": 200.0, "probe.name": "x"}
        )

    def end(self) -> None:
        self.live.__exit__(None, None, None)


def scraped(words: str) -> dict[str, float]:
    """This trial's samples by name, once there are some with these words."""
    node = next(node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + PATIENCE
    while True:
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if 'trial="abc"' in line]
        if any(words in line for line in lines):
            assert all('run="runs/mine"' in line for line in lines)
            return {line.partition("{")[0]: float(line.split()[-1]) for line in lines}
        assert time.monotonic() < deadline, lines
        time.sleep(0.5)


def test_a_report_is_scraped_and_an_ended_trial_trains_nothing():
    trial = Trial.remote()
    ray.get(trial.report.remote())
    report = {"val_auc": 0.625, "effective_rank": 12.5, "loss": 3.25, "images_per_s": 200.0}
    assert scraped("ray_scarce_val_auc") == {f"ray_scarce_{name}": value for name, value in report.items()}
    ray.get(trial.end.remote())
    ended = {f"ray_{name}": 0.0 for name in METRICS if "images" in name or "gpu" in name}
    assert scraped("ray_scarce_gpu_memory_bytes").items() >= ended.items()
