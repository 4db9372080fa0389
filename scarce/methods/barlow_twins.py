"""Barlow Twins: Zbontar, Jing, Misra, LeCun, Deny 2021, "Self-Supervised Learning via Redundancy Reduction"."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scarce.backbones import Backbone
from scarce.distributed import gather
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp, scaled
from scarce.space import Dimension, Float


@dataclass(frozen=True)
class BarlowTwinsConfig(MethodConfig):
    """Barlow Twins' settings."""

    expansion: float = 4.0  # width of the three projector layers over the backbone's; paper: 8192 over 2048
    redundancy_weight: float = 0.005  # lambda of equation 1


class BarlowTwins(Method):
    """One encoder; the cross-correlation of two views' projections is pulled to the identity."""

    Config = BarlowTwinsConfig
    OPTIMISER = OptimiserConfig("adamw", lr=2.4e-3, reference_batch=512, weight_decay=1e-4)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {"redundancy_weight": Float(5e-4, 5e-2, log=True)}

    def __init__(self, backbone: Backbone, config: BarlowTwinsConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        width = scaled(config.expansion, backbone.feature_dim)
        self.projector = mlp(backbone.feature_dim, width, width, width, batch_norm=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views, float32 [B, 1, S, S] each."""
        one = at_least_float32(self.embed(first))
        other = at_least_float32(self.embed(second))
        return barlow_loss(gather(one), gather(other), self.config.redundancy_weight)

    def embed(self, x: Tensor) -> Tensor:
        """The projection, [B, 1, S, S] to [B, D]."""
        return self.projector(self.backbone(x))


def barlow_loss(first: Tensor, second: Tensor, redundancy_weight: float) -> Tensor:
    """Equation 1, with equation 2's correlations over the batch; projections [B, D], not normalised.

    Both projections are standardised with the biased variance and an epsilon of 1e-5, as the batch norm without
    affine parameters of the authors' code does. The squares of C = Z'ᵀZ / B sum to those of the two [B, B] Gram
    matrices' products: |Z'ᵀZ|² = tr(ZZᵀ Z'Z'ᵀ). A batch smaller than D therefore never needs the [D, D] correlations.
    """
    one, other = ((z - z.mean(dim=0)) * torch.rsqrt(z.var(dim=0, unbiased=False) + 1e-5) for z in (first, second))
    count, dim = one.shape
    diagonal = (one * other).mean(dim=0)
    if count < dim:
        squares = (at_least_float32(one @ one.T) * at_least_float32(other @ other.T)).sum() / count**2
    else:
        squares = (at_least_float32(one.T @ other) / count).square().sum()
    return (diagonal - 1).square().sum() + redundancy_weight * (squares - diagonal.square().sum())
