"""VICReg: Bardes, Ponce, LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization", Algorithm 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.backbones import Backbone
from scarce.distributed import gather
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp, scaled
from scarce.space import Dimension, Float


@dataclass(frozen=True)
class VICRegConfig(MethodConfig):
    """VICReg's settings."""

    expansion: float = 4.0  # width of the three expander layers over the backbone's; paper: 8192 over 2048
    invariance_weight: float = 25.0  # lambda
    variance_weight: float = 25.0  # mu
    covariance_weight: float = 1.0  # nu


class VICReg(Method):
    """Views agree, every dimension varies over the batch, and dimensions are decorrelated."""

    Config = VICRegConfig
    # Paper: LARS for batches of 2048; AdamW does as well at the batches that fit one card.
    OPTIMISER = OptimiserConfig("adamw", lr=4e-3, reference_batch=128, weight_decay=1e-4)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {
        "invariance_weight": Float(5.0, 50.0, log=True),
        "variance_weight": Float(5.0, 50.0, log=True),
        "covariance_weight": Float(0.1, 10.0, log=True),
    }
    TARGET_STD = 1.0

    def __init__(self, backbone: Backbone, config: VICRegConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        width = scaled(config.expansion, backbone.feature_dim)
        self.expander = mlp(backbone.feature_dim, width, width, width, batch_norm=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views, float32 [B, 1, S, S] each."""
        one, other = gather(at_least_float32(self.embed(first))), gather(at_least_float32(self.embed(second)))
        return vicreg_loss(one, other, self.config)

    def embed(self, x: Tensor) -> Tensor:
        """The expanded embedding, [B, 1, S, S] to [B, D]."""
        return self.expander(self.backbone(x))


def vicreg_loss(first: Tensor, second: Tensor, config: VICRegConfig) -> Tensor:
    """Equation 6 for embeddings [B, D], not normalised.

    Paper and code disagree on two factors, and the code's are kept here, as the weights 25, 25, 1 belong to them:
    invariance is averaged over dimensions as well as over the batch, and the variance terms of both views are averaged.
    """
    invariance = F.mse_loss(first, second)
    variance = (variance_term(first) + variance_term(second)) / 2
    covariance = covariance_term(first) + covariance_term(second)
    return (
        config.invariance_weight * invariance
        + config.variance_weight * variance
        + config.covariance_weight * covariance
    )


def variance_term(z: Tensor, target: float = 1.0, epsilon: float = 1e-4) -> Tensor:
    """Equation 1: how far each dimension's standard deviation over the batch falls short of `target`.

    Args:
        z: not normalised, [B, D].
        target: gamma.
        epsilon: under the root, so that its gradient stays finite.
    """
    return F.relu(target - torch.sqrt(z.var(dim=0) + epsilon)).mean()


def covariance_term(z: Tensor) -> Tensor:
    """Equation 4: the squared off-diagonal covariances of z [B, D], summed and divided by D."""
    centred = z - z.mean(dim=0)
    covariance = at_least_float32(centred.T @ centred) / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
