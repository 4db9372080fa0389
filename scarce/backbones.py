"""One-channel backbones: torchvision's ResNets and a small one for CPUs, and their weights as files.

A backbone maps float32 [N, 1, S, S] to features float32 [N, feature_dim].
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock

from scarce.errors import UserError
from scarce.files import atomic_path, write_json

WEIGHTS_NAME = "backbone.safetensors"
CARD_NAME = "card.json"


class SmallResNet(nn.Module):
    """A ResNet of four single-block stages for views of about 64 pixels on a CPU (0.7 M weights).

    The stem is a 3×3 convolution of stride 2 without pooling: torchvision's would leave 64-pixel views with a 2×2 map.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 192)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)
        )
        stages: list[nn.Module] = []
        incoming = widths[0]
        for width in widths:
            stride = 1 if width == incoming else 2
            shortcut = nn.Sequential(nn.Conv2d(incoming, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            stages.append(BasicBlock(incoming, width, stride, shortcut if stride == 2 else None))
            incoming = width
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, S, S] to the last stage's mean over positions [N, 192]."""
        return self.stages(self.stem(x)).mean(dim=(2, 3))


def _one_channel(make: Callable[..., nn.Module]) -> nn.Module:
    network = make(weights=None)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.fc = nn.Identity()
    return network


BACKBONES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet_small": (SmallResNet, 192),
    "resnet18": (lambda: _one_channel(resnet18), 512),
    "resnet50": (lambda: _one_channel(resnet50), 2048),
}


def feature_dim(name: str) -> int:
    """Length of the features of the backbone of this name."""
    return _lookup(name)[1]


def create_backbone(name: str, seed: int) -> nn.Module:
    """A freshly initialised backbone; the same weights for the same seed. The global RNG is left as it was."""
    make, _ = _lookup(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def export_backbone(backbone: nn.Module, name: str, folder: Path, card: dict[str, Any]) -> None:
    """Write `backbone.safetensors` and `card.json` to `folder`, each atomically.

    A ResNet-18/50 is written as torchvision has it, with three input channels: the one-channel filter is spread as
    thirds over red, green and blue, which gives the same features for a gray picture. So
    `torchvision.models.resnet18().load_state_dict(load_file(path), strict=False)` lacks only the classifier `fc`.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    if "conv1.weight" in weights:
        weights["conv1.weight"] = (weights["conv1.weight"] / 3).repeat(1, 3, 1, 1)
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(weights, temporary)
    write_json(folder / CARD_NAME, {**card, "backbone": name, "feature_dim": feature_dim(name)})


def load_backbone(folder: Path) -> nn.Module:
    """The backbone that `export_backbone` wrote, in eval mode. `UserError` where files are missing or do not fit."""
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_NAME)
        backbone = create_backbone(card["backbone"], seed=0)
        if "conv1.weight" in weights:
            weights["conv1.weight"] = weights["conv1.weight"].sum(dim=1, keepdim=True)
        backbone.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder} holds no exported backbone ({WEIGHTS_NAME} and {CARD_NAME}): {error}") from error
    return backbone.eval()


def _lookup(name: str) -> tuple[Callable[[], nn.Module], int]:
    if name not in BACKBONES:
        raise UserError(f"no backbone {name!r}: expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]
