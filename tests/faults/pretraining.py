"""Short pretraining runs without Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarce.config import PretrainConfig
from scarce.data.pixels import Pixels
from scarce.methods import REGISTRY
from scarce.pretrain import Recipe, count_steps, pretrain
from scarce.views import ViewConfig

CPU = torch.device("cpu")
TIMING = "images_per_s"


def images(count: int = 72) -> Pixels:
    rng = np.random.default_rng(0)
    return Pixels([rng.integers(0, 256, (count, 32, 32), dtype=np.uint8)])


def recipe(method: str = "simclr", epochs: float = 2, report_epochs: float = 0.5, **more: Any) -> Recipe:
    """Of 8 steps and a report after every second one."""
    config = PretrainConfig(
        **{"method": method, "image_size": 32, "epochs": epochs, "batch_size": 16, "report_epochs": report_epochs}
        | more
    )
    cls = REGISTRY[method]
    return Recipe(config, cls.default_config(72, count_steps(config, 72)), cls.OPTIMISER, ViewConfig())


def run(folder: Path, method: str = "simclr", **more: Any) -> list[dict[str, Any]]:
    """All reports of a run, timing apart, those before a restart included."""
    torch.set_num_threads(1)
    reports: list[dict[str, Any]] = []
    pretrain(recipe(method), images(), folder, device=CPU, report=reports.append, **more)
    return [{name: value for name, value in report.items() if name != TIMING} for report in reports]


class Stop(Exception):
    """Stands for a kill."""


def run_until(folder: Path, step: int, **more: Any) -> None:
    """A run that is killed once it has saved the checkpoint of that step."""

    def report(metrics: dict[str, Any]) -> None:
        if metrics["step"] == step:
            raise Stop

    try:
        pretrain(recipe(), images(), folder, device=CPU, report=report, **more)
    except Stop:
        return
    raise AssertionError("it ended before")
