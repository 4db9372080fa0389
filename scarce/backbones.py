"""One-channel backbones: ResNets, ConvNeXt and a vision transformer in one common shape, and their weights as files.

A backbone maps float32 [N, 1, S, S] to features float32 [N, feature_dim]. Whatever the architecture, it is a stem, four
stages and a tail, so that masking, fine-tuning from a chosen stage and probes on positions are written once.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import convnext_tiny, resnet18, resnet50
from torchvision.models.resnet import BasicBlock

from scarce.errors import UserError
from scarce.files import atomic_path, write_json

WEIGHTS_NAME = "backbone.safetensors"
CARD_NAME = "card.json"


class Backbone(nn.Module):
    """A stem, four stages and a tail.

    Attributes:
        channels: of the four stages' outputs.
        feature_dim: length of the features, which is channels[-1].
        stride: pixels a side that one position of the last stage stands for.
        multiple: views must have a side that is a multiple of this; 1 where any side will do.
        library_names: (prefix here, prefix in the library the architecture comes from) of the weights' names.
        convolutional: whether stages give maps [N, C, H, W]; a transformer's give tokens [N, 1 + P, C].
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: list[nn.Module],
        tail: nn.Module,
        *,
        channels: tuple[int, int, int, int],
        stride: int,
        multiple: int = 1,
        library_names: tuple[tuple[str, str], ...] = (),
        convolutional: bool = True,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.tail = tail
        self.channels = channels
        self.feature_dim = channels[-1]
        self.stride = stride
        self.multiple = multiple
        self.library_names = library_names
        self.convolutional = convolutional

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, S, S] to features [N, feature_dim]."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.tail(x)

    def maps(self, x: Tensor) -> list[Tensor]:
        """[N, 1, S, S] to the outputs of the four stages."""
        x, outputs = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def positions(self, x: Tensor) -> Tensor:
        """[N, 1, S, S] to the last stage's features at every position, [N, P, feature_dim]."""
        last = self.maps(x)[-1]
        return last.flatten(2).transpose(1, 2) if self.convolutional else last[:, 1:]


class _Mean(nn.Module):
    """The mean over positions: [N, C, H, W] to [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def small_resnet(widths: tuple[int, int, int, int] = (24, 48, 96, 192)) -> Backbone:
    """A ResNet of four single-block stages for views of about 64 pixels on a CPU (0.7 M weights).

    The stem is a 3×3 convolution of stride 2 without pooling: torchvision's would leave 64-pixel views with a 2×2 map.
    """
    stem = nn.Sequential(
        nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)
    )
    stages: list[nn.Module] = []
    incoming = widths[0]
    for index, width in enumerate(widths):
        stride = 1 if index == 0 else 2
        shortcut = nn.Sequential(nn.Conv2d(incoming, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        stages.append(BasicBlock(incoming, width, stride, shortcut if stride == 2 else None))
        incoming = width
    backbone = Backbone(stem, stages, _Mean(), channels=widths, stride=16)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def _resnet(make: Callable[..., Any], expansion: int) -> Backbone:
    network = make(weights=None)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return Backbone(
        nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool),
        [network.layer1, network.layer2, network.layer3, network.layer4],
        _Mean(),
        channels=(64 * expansion, 128 * expansion, 256 * expansion, 512 * expansion),
        stride=32,
        library_names=(
            ("stem.0.", "conv1."),
            ("stem.1.", "bn1."),
            *((f"stages.{i}.", f"layer{i + 1}.") for i in range(4)),
        ),
    )


def _convnext() -> Backbone:
    """ConvNeXt-Tiny (Liu et al. 2022, "A ConvNet for the 2020s"), torchvision's."""
    network = convnext_tiny(weights=None)
    features = network.features
    features[0][0] = nn.Conv2d(1, 96, kernel_size=4, stride=4)
    nn.init.trunc_normal_(features[0][0].weight, std=0.02)
    nn.init.zeros_(features[0][0].bias)
    return Backbone(
        features[0],
        [features[1], *(nn.Sequential(features[2 * i], features[2 * i + 1]) for i in (1, 2, 3))],
        nn.Sequential(network.avgpool, network.classifier[0], nn.Flatten()),
        channels=(96, 192, 384, 768),
        stride=32,
        library_names=(
            ("stem.", "features.0."),
            ("stages.0.", "features.1."),
            *((f"stages.{i}.{j}.", f"features.{2 * i + j}.") for i in (1, 2, 3) for j in (0, 1)),
            ("tail.1.", "classifier.0."),
        ),
    )


class ViTStem(nn.Module):
    """Patches to tokens, with a class token first and the position embedding resampled to the view's grid."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.patch_embed = network.patch_embed
        self.cls_token = network.cls_token
        self.pos_embed = network.pos_embed

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, S, S] to tokens [N, 1 + (S / 16)², C]."""
        from timm.layers.pos_embed import resample_abs_pos_embed

        x = self.patch_embed(x)  # [N, H, W, C]
        grid = [x.shape[1], x.shape[2]]
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return tokens + resample_abs_pos_embed(self.pos_embed, grid, num_prefix_tokens=1)


class _ClassToken(nn.Module):
    """The normalised class token: [N, 1 + P, C] to [N, C]."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)[:, 0]


def _vit_small() -> Backbone:
    """ViT-S/16 (Dosovitskiy et al. 2021; of width 384 as in Touvron et al. 2021, "DeiT"), timm's."""
    from timm.models.vision_transformer import VisionTransformer  # seconds to import, for this backbone only

    network = VisionTransformer(
        img_size=224, patch_size=16, in_chans=1, num_classes=0, embed_dim=384, depth=12, num_heads=6,
        dynamic_img_size=True,
    )  # fmt: skip
    return Backbone(
        ViTStem(network),
        [nn.Sequential(*network.blocks[3 * i : 3 * i + 3]) for i in range(4)],
        _ClassToken(network.norm),
        channels=(384, 384, 384, 384),
        stride=16,
        multiple=16,
        library_names=(
            ("stem.", ""),
            *((f"stages.{i}.{j}.", f"blocks.{3 * i + j}.") for i in range(4) for j in range(3)),
            ("tail.norm.", "norm."),
        ),
        convolutional=False,
    )


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "resnet_small": small_resnet,
    "resnet18": lambda: _resnet(resnet18, 1),
    "resnet50": lambda: _resnet(resnet50, 4),
    "convnext_tiny": _convnext,
    "vit_small": _vit_small,
}


def create_backbone(name: str, seed: int) -> Backbone:
    """A freshly initialised backbone; the same weights for the same seed. The global RNG is left as it was."""
    if name not in BACKBONES:
        raise UserError(f"no backbone {name!r}: expected one of {', '.join(BACKBONES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[name]()


def check_image_size(backbone: Backbone, name: str, image_size: int) -> None:
    """`UserError` where the backbone cannot take views of this side."""
    if image_size % backbone.multiple:
        raise UserError(
            f"--image-size {image_size} does not fit {name}: expected a multiple of {backbone.multiple}, such as "
            f"{max(1, round(image_size / backbone.multiple)) * backbone.multiple}"
        )


def export_backbone(backbone: Backbone, name: str, folder: Path, card: dict[str, Any]) -> None:
    """Write `backbone.safetensors` and `card.json` to `folder`, each atomically.

    A ResNet and ConvNeXt are named as torchvision has them, ViT-S/16 as timm (`vit_small_patch16_224`), with three
    input channels: the one-channel filter is spread as thirds over red, green and blue, which gives the same features
    for a gray picture. So `torchvision.models.resnet18().load_state_dict(load_file(path), strict=False)` lacks only
    the classifier `fc`.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    if backbone.library_names:
        first = _first_filter(backbone)
        weights[first] = (weights[first] / 3).repeat(1, 3, 1, 1)
        weights = {_renamed(key, backbone.library_names): value for key, value in weights.items()}
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(weights, temporary)
    write_json(folder / CARD_NAME, {**card, "backbone": name, "feature_dim": backbone.feature_dim})


def load_backbone(folder: Path) -> tuple[Backbone, dict[str, Any]]:
    """The backbone that `export_backbone` wrote, in eval mode, and its card. `UserError` where files do not fit."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_NAME)
        backbone = create_backbone(card["backbone"], seed=0)
        load_library_weights(backbone, weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        # Of names and shapes that do not fit, PyTorch lists every one.
        reason = "the weights are of another network" if isinstance(error, RuntimeError) else error
        raise UserError(f"{folder} holds no exported backbone ({WEIGHTS_NAME} and {CARD_NAME}): {reason}") from error
    return backbone.eval(), card


def load_library_weights(backbone: Backbone, weights: dict[str, Tensor]) -> None:
    """Load weights named and shaped as the library has them; three input channels are summed to one.

    Raises:
        RuntimeError: names or shapes are another architecture's.
    """
    # The longest prefix first: timm's names of the stem have none.
    back = tuple(sorted(((theirs, ours) for ours, theirs in backbone.library_names), key=lambda pair: -len(pair[0])))
    weights = {_renamed(key, back): value for key, value in weights.items()}
    first = _first_filter(backbone)
    if first in weights and weights[first].shape[1] == 3:
        weights[first] = weights[first].sum(dim=1, keepdim=True)
    backbone.load_state_dict(weights)


def _first_filter(backbone: Backbone) -> str:
    """The name of the filter that sees the image."""
    return next(name for name, value in backbone.named_parameters() if value.dim() == 4 and value.shape[1] == 1)


def _renamed(key: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for old, new in prefixes:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
