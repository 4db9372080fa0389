"""BYOL: Grill et al. 2020, "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning"."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp, scaled
from scarce.methods.momentum import follow, frozen_copy, rising_momentum, short_run_momentum
from scarce.space import Dimension, Float


@dataclass(frozen=True)
class BYOLConfig(MethodConfig):
    """BYOL's settings."""

    expansion: float = 2.0  # width of the hidden layers over the backbone's; paper: 4096 over 2048
    dim: int = 256  # length of a projection
    momentum: float = 0.996  # of the target network at the start; rises to 1


class BYOL(Method):
    """The online network predicts what a slowly moving target network makes of the other view."""

    Config = BYOLConfig
    # The paper's rate, which it uses with LARS for batches of 4096. AdamW stayed near random weights on the phantoms.
    OPTIMISER = OptimiserConfig("sgd", lr=0.2, reference_batch=256, weight_decay=1.5e-6)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {"momentum": Float(0.5, 0.999)}

    def __init__(self, backbone: Backbone, config: BYOLConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        width = scaled(config.expansion, backbone.feature_dim)
        self.projector = mlp(backbone.feature_dim, width, config.dim, batch_norm=True)
        self.predictor = mlp(config.dim, width, config.dim, batch_norm=True)
        self.target = frozen_copy(backbone, self.projector)

    @classmethod
    def default_config(cls, images: int, steps: int) -> BYOLConfig:
        """The paper's momentum; in a short run the target trails at most a fiftieth of the run behind."""
        paper = cls.Config()
        return replace(paper, momentum=short_run_momentum(paper.momentum, steps, 50))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The symmetrised loss of section 3.1 of two views, float32 [B, 1, S, S] each."""
        with torch.no_grad():
            target_first, target_second = self.target(first), self.target(second)
        predicted_second = self.predictor(self.embed(first))
        predicted_first = self.predictor(self.embed(second))
        return regression_loss(predicted_second, target_second) + regression_loss(predicted_first, target_first)

    def embed(self, x: Tensor) -> Tensor:
        """The online projection, [B, 1, S, S] to [B, dim]."""
        return self.projector(self.backbone(x))

    def after_step(self) -> None:
        """Move the target network towards the online network."""
        online = nn.Sequential(self.backbone, self.projector)
        follow(self.target, online, rising_momentum(self.config.momentum, self.progress))


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Equation 2: the squared distance of the normalised vectors [B, D], 2 − 2 cos, averaged over the batch."""
    return 2 - 2 * F.cosine_similarity(at_least_float32(prediction), at_least_float32(target), dim=1).mean()
