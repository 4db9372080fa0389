"""Every method makes features better than the random ones it started from, on the phantom hospitals in a minute.

By the interval of the paired difference, over test patients and episodes. Short runs on small images want higher
learning rates than the papers' long ones.
"""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from scarce.backbones import create_backbone
from scarce.config import PretrainConfig
from scarce.data.phantom import PHANTOMS, write_phantom
from scarce.data.pixels import Pixels
from scarce.data.store import open_dataset
from scarce.fewshot.compare import compare
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.features import extract_features
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task
from scarce.methods import REGISTRY
from scarce.pretrain import pretrain
from scarce.settings import default_settings, override

CPU = torch.device("cpu")
SIZE = 32  # pixels
PROTOCOL = ProtocolConfig(shots=(10, 23, 50), test_seeds=10, bootstrap=1000)

# Epochs, batch size, settings.
RUNS: dict[str, tuple[float, int, dict[str, Any]]] = {
    "simclr": (6, 64, {}),
    "moco": (16, 32, {"optimiser.lr": 0.3}),
    "moco_plain": (16, 32, {"optimiser.lr": 0.3}),
    "moco_v3": (6, 64, {"optimiser.lr": 4e-3}),
    "barlow_twins": (12, 32, {"optimiser.lr": 0.03}),
    "vicreg": (6, 64, {}),
    "byol": (12, 32, {"optimiser.lr": 0.8}),
    "simsiam": (12, 32, {"optimiser.lr": 0.8}),
    "dino": (
        20,
        64,
        {
            "method.prototypes": 1024,
            "method.local_views": 0,  # a local view of a 32-pixel image would have 16 pixels
            "method.teacher_temperature_start": 0.07,
            "method.student_temperature": 0.2,
            "optimiser.lr": 0.01,
        },
    ),
    "spark": (12, 32, {"method.decoder_width": 64, "optimiser.lr": 8e-3}),
}

QUICK = ("simclr", "moco_v3", "vicreg")  # the others take three quarters of a minute each: `make test-long`


@cache
def hospitals() -> tuple[Pixels, Task]:
    with tempfile.TemporaryDirectory() as folder:
        for name, config in PHANTOMS.items():
            write_phantom(replace(config, size=SIZE), Path(folder) / name)
        pixels = open_dataset(Path(folder) / "phantom-a").pixels()
        return Pixels([pixels]), build_task(open_dataset(Path(folder) / "phantom-b"), PROTOCOL, held_out="test")


def scores(backbone: torch.nn.Module) -> Scores:
    _, task = hospitals()
    return score_task(task, extract_features(backbone, task.images, SIZE, CPU), ProbeConfig())


@cache
def scores_before() -> Scores:
    return scores(create_backbone("resnet_small", 0))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in sorted(REGISTRY)]
)
def test_pretraining_beats_its_own_random_initialisation_and_is_not_called_dead(name, tmp_path):
    torch.set_num_threads(1)
    images, task = hospitals()
    epochs, batch, values = RUNS[name]
    config = PretrainConfig(method=name, image_size=SIZE, epochs=epochs, batch_size=batch, report_epochs=epochs / 6)
    recipe = override(default_settings(config, len(images)), values).recipe
    history: list[dict[str, float]] = []
    method = pretrain(recipe, images, tmp_path, device=CPU, report=history.append, stop_on_collapse=True)
    assert not any(metrics["collapsed"] for metrics in history)
    assert history[-1]["epoch"] >= epochs
    result = compare(task, {"chosen": scores(method.backbone), "random": scores_before()}, PROTOCOL)
    difference = result["baselines"]["random"]["difference"]
    print(name, difference, history[-1])
    assert difference["ci_low"] > 0
    assert difference["p"] < 0.05
