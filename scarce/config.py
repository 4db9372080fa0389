"""Pretraining settings, in plain dataclasses that the command line is made from without importing torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run but for its method and views, which have settings of their own."""

    method: str = "moco"
    """Self-supervised method: a name in scarce.methods.REGISTRY."""
    backbone: str = "resnet_small"
    """resnet_small (for CPUs), resnet18 or resnet50; all take one channel."""
    image_size: int = 64
    """Side of the views in pixels."""
    epochs: int = 20
    """Passes over the pretraining images."""
    batch_size: int = 128
    """Images a step, over all workers of a trial; each gives two views."""
    report_epochs: float = 2.0
    """Epochs between two reports; a report measures, saves a checkpoint and may see the trial pruned."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 autocast on CUDA and float32 on CPU."""
    seed: int = 0
    """Seed of the initial weights, the order of images and the views."""
