"""What every self-supervised method is: a backbone, a loss on views, and what surrounds an optimiser step."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.space import Dimension
from scarce.views import ViewConfig


@dataclass(frozen=True)
class OptimiserConfig:
    """A method's optimiser as its paper or the reference runs set it."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05  # at `reference_batch` images a step; scaled in proportion to the batch
    reference_batch: int = 256
    weight_decay: float = 1e-4  # on weight matrices and filters; not on biases and batch-norm parameters
    momentum: float = 0.9  # SGD only
    warmup_epochs: float = 10.0  # linear from 0; at most a tenth of the run
    clip_norm: float = 0.0  # largest gradient norm; 0 does not clip


@dataclass(frozen=True)
class MethodConfig:
    """Base of every method's own settings."""


class Method(nn.Module):
    """A self-supervised method. Subclasses are listed in `scarce.methods.REGISTRY` by name.

    A subclass is made from `(backbone, config)` and defines `forward(*views)`, the scalar loss of the views that
    `views` asks for, each float32 [B, 1, S, S], row i of all of them showing the same image.

    Class attributes:
        Config: the frozen dataclass of its settings, defaults from its paper or the reference runs.
        OPTIMISER: the optimiser that goes with them.
        SEARCH_SPACE: which of the settings may be searched, and where.
        UNUSED_VIEWS: the augmentations that its views never have, by field of `ViewConfig`.
        JOINS_BATCH_NORM: whether its definition takes batch-norm statistics over the batch of all workers.
        CONSTANT_LR: name prefixes of parameters whose learning rate is neither warmed up nor decayed.
        TARGET_STD: the standard deviation that its loss asks of every dimension of the embeddings, if it does.
        CAN_COLLAPSE: whether its loss has trivial solutions, so that `scarce.collapse` may judge its embeddings.

    Attributes:
        backbone: what pretraining is for; evaluated and exported.
        progress: share of the run's steps that are done, in [0, 1); the training loop sets it before every step.
    """

    Config: ClassVar[type[MethodConfig]]
    OPTIMISER: ClassVar[OptimiserConfig]
    SEARCH_SPACE: ClassVar[dict[str, Dimension]]
    UNUSED_VIEWS: ClassVar[frozenset[str]] = frozenset()
    JOINS_BATCH_NORM: ClassVar[bool] = True
    CONSTANT_LR: ClassVar[tuple[str, ...]] = ()
    TARGET_STD: ClassVar[float | None] = None
    CAN_COLLAPSE: ClassVar[bool] = True

    backbone: Backbone
    progress: float = 0.0

    @classmethod
    def default_config(cls, images: int, steps: int) -> MethodConfig:
        """The settings for a run of `steps` over `images`: the defaults, unless they need more data than that."""
        return cls.Config()

    def views(self, image_size: int, config: ViewConfig) -> list[tuple[int, ViewConfig]]:
        """The views that `forward` takes, in order: side in pixels and augmentations of each. Two alike by default.

        Raises:
            UserError: the method cannot work with images of this size.
        """
        return [(image_size, config)] * 2

    def embed(self, x: Tensor) -> Tensor:
        """The vectors that the loss compares, for watching them collapse: [B, 1, S, S] to [B, D]."""
        return self.backbone(x)

    def after_step(self) -> None:
        """Whatever the method does once the optimiser has stepped; nothing by default.

        A batch may have come in several forward passes since the last step, one for each part of it.
        """
