"""SimSiam: Chen, He 2021, "Exploring Simple Siamese Representation Learning", Algorithm 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from scarce.backbones import Backbone
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp, scaled
from scarce.space import Choice, Dimension


@dataclass(frozen=True)
class SimSiamConfig(MethodConfig):
    """SimSiam's settings."""

    expansion: float = 1.0  # width of the projector over the backbone's; paper: 2048 over 2048
    bottleneck: float = 0.25  # hidden layer of the predictor over its input; paper: 512 over 2048


class SimSiam(Method):
    """One encoder predicts its own output on the other view, through which no gradient flows."""

    Config = SimSiamConfig
    OPTIMISER = OptimiserConfig("sgd", lr=0.05, reference_batch=256, weight_decay=1e-4)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {"bottleneck": Choice((0.125, 0.25, 0.5))}
    CONSTANT_LR = ("predictor.",)  # section 4.2: the predictor should adapt to the latest representations

    def __init__(self, backbone: Backbone, config: SimSiamConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        width = scaled(config.expansion, backbone.feature_dim)
        self.projector = mlp(backbone.feature_dim, width, width, width, batch_norm=True, output_norm="plain")
        self.predictor = mlp(width, scaled(config.bottleneck, width), width, batch_norm=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views, float32 [B, 1, S, S] each."""
        z1, z2 = self.embed(first), self.embed(second)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return negative_cosine(p1, z2.detach()) / 2 + negative_cosine(p2, z1.detach()) / 2

    def embed(self, x: Tensor) -> Tensor:
        """The projection, [B, 1, S, S] to [B, D]."""
        return self.projector(self.backbone(x))


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Equation 1: minus the cosine of the vectors [B, D], averaged over the batch."""
    return -F.cosine_similarity(at_least_float32(prediction), at_least_float32(target), dim=1).mean()
