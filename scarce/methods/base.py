"""What every self-supervised method is: a backbone, a loss on two views, and what follows an optimiser step."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from scarce.space import Dimension


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

    Class attributes:
        Config: the frozen dataclass of its settings, defaults from its paper or the reference runs.
        OPTIMISER: the optimiser that goes with them.
        SEARCH_SPACE: which of the settings may be searched, and where.
        JOINS_BATCH_NORM: whether its definition takes batch-norm statistics over the batch of all workers.
    """

    Config: ClassVar[type[MethodConfig]]
    OPTIMISER: ClassVar[OptimiserConfig]
    SEARCH_SPACE: ClassVar[dict[str, Dimension]]
    JOINS_BATCH_NORM: ClassVar[bool] = True

    backbone: nn.Module

    @classmethod
    def default_config(cls, images: int, steps: int) -> MethodConfig:
        """The settings for a run of `steps` over `images`: the defaults, unless they need more data than that."""
        return cls.Config()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss (scalar) of two views of the same images, each float32 [B, 1, S, S]."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def after_step(self) -> None:
        """Whatever the method does once the optimiser has stepped; nothing by default."""
