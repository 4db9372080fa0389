"""A trial's last report as metrics of Ray: what Prometheus scrapes from every node while trials run, and Grafana draws.

Ray exports a metric NAME as ray_NAME. `cluster/monitoring/` has the scrape configuration and a dashboard.
"""

from collections.abc import Mapping
from typing import Any

import torch

METRICS = {
    "scarce_val_auc": "Few-shot AUC on the validation patients",
    "scarce_effective_rank": "Effective rank of the embeddings",
    "scarce_loss": "Mean pretraining loss since the report before",
    "scarce_images_per_s": "Images trained on a second; 0 once the trial has left its process",
    "scarce_gpu_memory_bytes": "Most memory that tensors took on the GPU so far; 0 once the trial has left its process",
}
TAGS = ("run", "trial")


class LiveMetrics:
    """The metrics of one trial, set in the process that trains it. As a context manager it ends what has an end."""

    def __init__(self, run: str, trial: str) -> None:
        from ray.util.metrics import Gauge  # here, as whoever only needs the names should not wait for Ray

        self._tags = {"run": run, "trial": trial}
        self._gauges = {name: Gauge(name, description, TAGS) for name, description in METRICS.items()}

    def set(self, report: Mapping[str, Any]) -> None:
        """Take over what a report says, and how much memory the GPU gave if there is one."""
        for name in METRICS:
            key = name.removeprefix("scarce_")
            if key in report:
                self._set(name, report[key])
        if torch.cuda.is_initialized():
            self._set("scarce_gpu_memory_bytes", torch.cuda.max_memory_allocated())

    def _set(self, name: str, value: float) -> None:
        self._gauges[name].set(float(value), self._tags)

    def __enter__(self) -> "LiveMetrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._set("scarce_images_per_s", 0.0)
        self._set("scarce_gpu_memory_bytes", 0.0)
