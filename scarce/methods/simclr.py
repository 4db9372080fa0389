"""SimCLR: Chen, Kornblith, Norouzi, Hinton 2020, "A Simple Framework for Contrastive Learning", Algorithm 1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.backbones import Backbone
from scarce.distributed import gather
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp
from scarce.space import Dimension, Float


@dataclass(frozen=True)
class SimCLRConfig(MethodConfig):
    """SimCLR's settings."""

    dim: int = 128  # length of a projection
    temperature: float = 0.1


class SimCLR(Method):
    """One encoder; every other view in the joined batch is a negative."""

    Config = SimCLRConfig
    OPTIMISER = OptimiserConfig("adamw", lr=4e-3, reference_batch=128, weight_decay=1e-4)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {"temperature": Float(0.05, 1.0, log=True)}

    def __init__(self, backbone: Backbone, config: SimCLRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = mlp(backbone.feature_dim, backbone.feature_dim, config.dim, batch_norm=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """NT-Xent loss of two views, float32 [B, 1, S, S] each."""
        # One pass over both views: batch-norm statistics are those of all 2B views, as in the paper.
        projections = at_least_float32(self.embed(torch.cat([first, second])))
        one, other = F.normalize(projections, dim=1).chunk(2)
        return nt_xent(gather(one), gather(other), self.config.temperature)

    def embed(self, x: Tensor) -> Tensor:
        """The projection, [B, 1, S, S] to [B, dim]."""
        return self.projector(self.backbone(x))


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy (equation 1, averaged over both directions and all pairs).

    Args:
        first, second: projections of unit length, [B, D]; row i of both is the same image.
    """
    count = len(first)
    z = torch.cat([first, second])
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(similarity, partner)
