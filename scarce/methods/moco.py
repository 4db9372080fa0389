"""MoCo v2 with the variance term of VICReg.

Chen, Fan, Girshick, He 2020, "Improved Baselines with Momentum Contrastive Learning"; the algorithm is Algorithm 1 of
He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning". The variance term is equation 1 of
Bardes, Ponce, LeCun 2022, "VICReg", on the query projections before they are normalised; `PlainMoCo` is without it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.distributed import broadcast_from_first, gather, rank, world_size
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, mlp
from scarce.methods.momentum import follow, frozen_copy, short_run_momentum
from scarce.methods.vicreg import variance_term
from scarce.space import Dimension, Float


@dataclass(frozen=True)
class MoCoConfig(MethodConfig):
    """MoCo v2's settings."""

    dim: int = 128  # length of a projection
    queue: int = 65_536  # keys kept as negatives
    momentum: float = 0.999  # of the key encoder, per step
    temperature: float = 0.07
    variance_weight: float = 1.0  # weight of VICReg's variance term; 0 is plain MoCo v2


class MoCo(Method):
    """Query encoder, momentum key encoder and a queue of keys."""

    Config = MoCoConfig
    OPTIMISER = OptimiserConfig("sgd", lr=0.045, reference_batch=384, weight_decay=1e-4, clip_norm=3.0)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {
        "temperature": Float(0.04, 0.5, log=True),
        "variance_weight": Float(0.0, 2.0),
    }
    JOINS_BATCH_NORM = False  # shuffled batch norm instead: He et al. 2020, section 3.3

    queue: Tensor
    position: Tensor

    def __init__(self, backbone: Backbone, config: MoCoConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = mlp(backbone.feature_dim, backbone.feature_dim, config.dim, batch_norm=False)
        self.key_encoder = frozen_copy(backbone, self.projector)
        self.register_buffer("queue", F.normalize(torch.randn(config.queue, config.dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self.new_keys: list[Tensor] = []  # of this worker, since the last step

    @classmethod
    def default_config(cls, images: int, steps: int) -> MoCoConfig:
        """The paper's settings, for short runs with a shorter queue and a quicker key encoder.

        A queue of more than half the data holds old keys of the very images it should tell apart, and at momentum
        0.999 the key encoder trails a thousand steps behind; here it trails at most a twentieth of the run.
        """
        paper = cls.Config()
        return replace(
            paper,
            queue=max(1, min(paper.queue, images // 2)),
            momentum=short_run_momentum(paper.momentum, steps, 20),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of queries from `first` against keys from `second` and the queue; float32 [B, 1, S, S] each."""
        projection = at_least_float32(self.embed(first))
        queries = F.normalize(projection, dim=1)
        keys = self._encode_keys(second)
        loss = info_nce(queries, keys, self.queue, self.config.temperature)
        if self.config.variance_weight > 0:
            loss = loss + self.config.variance_weight * variance_term(gather(projection))
        self.new_keys.append(keys)
        return loss

    def embed(self, x: Tensor) -> Tensor:
        """The query's projection, [B, 1, S, S] to [B, dim]."""
        return self.projector(self.backbone(x))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the key encoder towards the query encoder, then replace the oldest keys by this step's."""
        follow(self.key_encoder, nn.Sequential(self.backbone, self.projector), self.config.momentum)
        assert self.new_keys, "after_step follows a forward pass"
        size = self.config.queue
        keys = gather(torch.cat(self.new_keys))[-size:]
        slots = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.queue[slots] = keys
        self.position.copy_((self.position + len(keys)) % size)
        self.new_keys = []

    @torch.no_grad()
    def _encode_keys(self, views: Tensor) -> Tensor:
        """Normalised keys [B, dim]; across workers with shuffled batches.

        Within one batch norm a query could recognise its key by the statistics they share. With several workers each
        key is therefore encoded on another worker than its query.
        """
        if world_size() == 1:
            return F.normalize(at_least_float32(self.key_encoder(views)), dim=1)
        everyone = gather(views)
        order = broadcast_from_first(torch.randperm(len(everyone), device=views.device))
        mine = order.view(world_size(), -1)[rank()]
        keys = gather(F.normalize(at_least_float32(self.key_encoder(everyone[mine])), dim=1))
        return keys[order.argsort()].view(world_size(), len(views), -1)[rank()]


@dataclass(frozen=True)
class PlainMoCoConfig(MoCoConfig):
    """MoCo v2's settings as its authors have them."""

    variance_weight: float = 0.0


class PlainMoCo(MoCo):
    """MoCo v2 without the variance term."""

    Config = PlainMoCoConfig
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {"temperature": MoCo.SEARCH_SPACE["temperature"]}


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE (He et al. 2020, equation 1): queries and keys [B, D], negatives [K, D], all of unit length."""
    positive = (queries * keys).sum(dim=1) / temperature
    # The logits of all negatives are the largest thing in a step: they are neither joined with the positive's nor
    # scaled after the product.
    negative = at_least_float32(queries / temperature @ negatives.T).logsumexp(dim=1)
    return (torch.logaddexp(positive, negative) - positive).mean()
