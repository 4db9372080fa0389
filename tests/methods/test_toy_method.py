"""A method is one file and one registry line: this file, and the line in the fixture."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.config import PretrainConfig
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.pixels import Pixels
from scarce.data.store import open_dataset
from scarce.methods import REGISTRY, Method, MethodConfig, OptimiserConfig
from scarce.pretrain import pretrain
from scarce.settings import default_settings, override, search_space
from scarce.space import Dimension, Float
from scarce.views import ViewConfig


@dataclass(frozen=True)
class RotationConfig(MethodConfig):
    smoothing: float = 0.0


class Rotation(Method):
    """Which way is up (Gidaris, Singh, Komodakis 2018): the view turned by 0, 90, 180 or 270 degrees, guessed."""

    Config = RotationConfig
    OPTIMISER = OptimiserConfig("adamw", lr=1e-3)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {"smoothing": Float(0.0, 0.2)}

    def __init__(self, backbone: Backbone, config: RotationConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.guess = nn.Linear(backbone.feature_dim, 4)
        self.loss = nn.CrossEntropyLoss(label_smoothing=config.smoothing)

    def views(self, image_size: int, config: ViewConfig) -> list[tuple[int, ViewConfig]]:
        return [(image_size, config)]

    def forward(self, view: Tensor) -> Tensor:
        turned = torch.cat([view.rot90(turns, (2, 3)) for turns in range(4)])
        return self.loss(self.guess(self.backbone(turned)), torch.arange(4).repeat_interleave(len(view)))


@pytest.fixture
def registered() -> Iterator[str]:
    REGISTRY["rotation"] = Rotation
    yield "rotation"
    del REGISTRY["rotation"]


def test_a_toy_method_is_searched_trained_and_watched_like_the_others(registered, tmp_path: Path):
    write_phantom(PhantomConfig("a", patients=60, size=32), tmp_path / "a")
    pixels = Pixels([open_dataset(tmp_path / "a").pixels()])
    config = PretrainConfig(method=registered, image_size=32, epochs=4, batch_size=16, report_epochs=1)
    assert {"method.smoothing", "views.crop_min"} <= search_space(config).keys()
    settings = override(default_settings(config, len(pixels)), {"method.smoothing": 0.1})
    history: list[dict[str, float]] = []
    method = pretrain(settings.recipe, pixels, tmp_path / "run", device=torch.device("cpu"), report=history.append)
    assert isinstance(method, Rotation)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["effective_rank"] > 1
