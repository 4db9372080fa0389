"""MoCo v3: Chen, Xie, He 2021, "An Empirical Study of Training Self-Supervised Vision Transformers", Algorithm 1."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.distributed import gather, rank
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp, scaled
from scarce.methods.momentum import follow, frozen_copy, rising_momentum, short_run_momentum
from scarce.space import Dimension, Float


@dataclass(frozen=True)
class MoCoV3Config(MethodConfig):
    """MoCo v3's settings."""

    expansion: float = 2.0  # width of the hidden layers over the backbone's; paper: 4096 over 2048
    dim: int = 256  # length of a projection
    momentum: float = 0.99  # of the key encoder at the start; rises to 1
    temperature: float = 0.2


class MoCoV3(Method):
    """Queries from the trained encoder against the keys of the joined batch from a momentum encoder; no queue."""

    Config = MoCoV3Config
    OPTIMISER = OptimiserConfig("adamw", lr=2e-3, reference_batch=128, weight_decay=1e-4)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {
        "temperature": Float(0.05, 1.0, log=True),
        "momentum": Float(0.5, 0.999),
    }

    def __init__(self, backbone: Backbone, config: MoCoV3Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        if not backbone.convolutional:
            backbone.stem.patch_embed.requires_grad_(False)  # section 4.2: a random patch projection is stabler
        width = scaled(config.expansion, backbone.feature_dim)
        self.projector = mlp(backbone.feature_dim, width, config.dim, batch_norm=True, output_norm="plain")
        self.predictor = mlp(config.dim, width, config.dim, batch_norm=True, output_norm="plain")
        self.key_encoder = frozen_copy(backbone, self.projector)

    @classmethod
    def default_config(cls, images: int, steps: int) -> MoCoV3Config:
        """The paper's momentum; in a short run the key encoder trails at most a fiftieth of the run behind."""
        paper = cls.Config()
        return replace(paper, momentum=short_run_momentum(paper.momentum, steps, 50))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The symmetrised loss of two views, float32 [B, 1, S, S] each."""
        with torch.no_grad():
            k1, k2 = self.key_encoder(first), self.key_encoder(second)
        q1, q2 = self.predictor(self.embed(first)), self.predictor(self.embed(second))
        return contrast(q1, k2, self.config.temperature) + contrast(q2, k1, self.config.temperature)

    def embed(self, x: Tensor) -> Tensor:
        """The projection that queries are predicted from, [B, 1, S, S] to [B, dim]."""
        return self.projector(self.backbone(x))

    def after_step(self) -> None:
        """Move the key encoder towards the query encoder."""
        online = nn.Sequential(self.backbone, self.projector)
        follow(self.key_encoder, online, rising_momentum(self.config.momentum, self.progress))


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """`ctr` of Algorithm 1: InfoNCE with the batch's other keys as negatives, times 2·temperature; vectors [B, D].

    Keys of all workers are gathered; row i of this worker's queries belongs to row i of its own keys.
    """
    queries = F.normalize(at_least_float32(queries), dim=1)
    keys = gather(F.normalize(at_least_float32(keys), dim=1))
    own = torch.arange(len(queries), device=queries.device) + rank() * len(queries)
    return F.cross_entropy(queries @ keys.T / temperature, own) * (2 * temperature)
