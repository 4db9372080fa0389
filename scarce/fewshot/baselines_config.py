"""The settings of the baselines. Imports nothing heavy: the command line is made from them."""

from dataclasses import dataclass

from scarce.errors import UserError


@dataclass(frozen=True)
class BaselinesConfig:
    """Baselines that cost something: time, a file, or the network."""

    imagenet: str = ""
    """Weights pretrained on ImageNet as one more baseline: a state_dict (.pth or .safetensors) of torchvision's
    resnet18, resnet50 or convnext_tiny or timm's vit_small_patch16_224, or "download" for torchvision's own."""
    scratch_seeds: int = 3
    """Test seeds on which a network is trained from scratch on the few labels, at least 2; 0: on none."""

    def __post_init__(self) -> None:
        check_scratch_seeds(self.scratch_seeds)


def check_scratch_seeds(seeds: int) -> None:
    """`UserError` for a number of seeds that gives no interval, or is none."""
    if seeds < 0 or seeds == 1:
        raise UserError(f"--scratch-seeds must be 0, or at least 2 for an interval, got {seeds}")
