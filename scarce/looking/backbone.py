"""A backbone to look through: that of a run, or one of random weights."""

from pathlib import Path

import torch

from scarce.audit.subject import FrozenPipeline
from scarce.audit_run import open_pipeline
from scarce.backbones import CARD_NAME, create_backbone
from scarce.errors import UserError
from scarce.fewshot.probe import ProbeConfig

UNTRAINED, UNTRAINED_SIZE = "resnet_small", 64


def find_backbone(place: Path) -> Path:
    """The folder of an exported backbone: `place` itself, or best/ in the run that `place` is the folder of."""
    for folder in (place, place / "best"):
        if (folder / CARD_NAME).is_file():
            return folder
    raise UserError(
        f"{place} holds no backbone: expected the folder of a finished run, or its best/ with backbone.safetensors and "
        f"{CARD_NAME}"
    )


def open_backbone(place: Path) -> FrozenPipeline:
    """The backbone of `find_backbone`, with the size of the views that it was trained on."""
    return open_pipeline(find_backbone(place), ProbeConfig())


def untrained(size: int) -> FrozenPipeline:
    """`resnet_small` with random weights, for films of this size; it sees textures, as any such network does."""
    backbone = create_backbone(UNTRAINED, seed=0).eval()
    return FrozenPipeline(backbone, min(size, UNTRAINED_SIZE), ProbeConfig(), torch.device("cpu"))
