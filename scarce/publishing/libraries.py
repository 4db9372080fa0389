"""A backbone in the libraries that others use: the same network there, with one input channel and no classifier.

Weights go from file to file: those of `export_backbone` are named as torchvision has them, ViT's as timm.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scarce.backbones import WEIGHTS_NAME, Backbone
from scarce.errors import UserError
from scarce.files import write_json
from scarce.views import INPUT_MEAN, INPUT_STD

Format = Literal["torchvision", "timm", "onnx"]

TIMM_NAMES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "convnext_tiny": "convnext_tiny",
    "vit_small": "vit_small_patch16_224",
}
FITTING: dict[str, tuple[Format, ...]] = {
    "resnet_small": ("onnx",),
    "resnet18": ("torchvision", "timm", "onnx"),
    "resnet50": ("torchvision", "timm", "onnx"),
    "convnext_tiny": ("torchvision", "timm", "onnx"),
    "vit_small": ("timm", "onnx"),
}
FILES: dict[Format, str] = {"torchvision": "model.safetensors", "timm": "model.safetensors", "onnx": "model.onnx"}
# torchvision's ConvNeXt in timm's words; the first pattern that fits counts.
_CONVNEXT: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"features\.0\.", lambda m: "stem."),
    (r"features\.([246])\.", lambda m: f"stages.{int(m[1]) // 2}.downsample."),
    (r"features\.([1357])\.(\d+)\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}."),
    (r"classifier\.0\.", lambda m: "head.norm."),
)
_CONVNEXT_BLOCK = {
    "block.0.": "conv_dw.",
    "block.2.": "norm.",
    "block.3.": "mlp.fc1.",
    "block.5.": "mlp.fc2.",
    "layer_scale": "gamma",
}


def check_format(name: str, wanted: Format) -> None:
    """`UserError` where a library has no such network; it names the formats that fit."""
    if wanted not in FITTING[name]:
        raise UserError(f"{wanted} has no {name}: expected --format {' or '.join(FITTING[name])}")


def write_network(folder: Path, wanted: Format, backbone: Backbone, name: str, source: Path, image_size: int) -> None:
    """Write a backbone to a folder as a library reads it (`FILES`).

    Args:
        folder: where to.
        wanted: for which library.
        backbone: in eval mode, on the CPU.
        name: of its architecture, in `scarce.backbones.BACKBONES`.
        source: folder that it was loaded from.
        image_size: side of the films that it was trained on, pixels.
    """
    path = folder / FILES[wanted]
    if wanted == "onnx":
        network: nn.Module = backbone
        if name == "vit_small":  # of a fixed side: ONNX has no resampling like that of its position embedding
            network = _timm_network(name, image_size)
            network.load_state_dict(_timm_weights(name, source, image_size))
        _write_onnx(path, network.eval(), image_size)
    elif wanted == "torchvision":
        save_file(_one_channel(source), path)
    else:
        save_file(_timm_weights(name, source, image_size), path)
        write_json(folder / "config.json", _timm_config(name, backbone.feature_dim, image_size))


def open_network(folder: Path, wanted: Format, name: str) -> Callable[[Tensor], np.ndarray]:
    """The network in a folder, loaded as a user of the library would: float32 [N, 1, S, S] to features [N, D]."""
    path = folder / FILES[wanted]
    if wanted == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def features(images: Tensor) -> np.ndarray:
            found: np.ndarray = session.run(["features"], {"images": images.numpy()})[0]
            return found

        return features
    if wanted == "timm":
        import timm

        network = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1, num_classes=0)
    else:
        network = torchvision_network(name)
        network.load_state_dict(load_file(path))
    network = network.eval()

    def in_torch(images: Tensor) -> np.ndarray:
        with torch.inference_mode():
            given: np.ndarray = network(images).numpy()
        return given

    return in_torch


def torchvision_network(name: str) -> Any:
    """torchvision's network with a filter for one channel first and no classifier last."""
    from torchvision import models

    network = getattr(models, name)(weights=None)
    if name == "convnext_tiny":
        network.features[0][0] = nn.Conv2d(1, 96, kernel_size=4, stride=4)
        network.classifier[2] = nn.Identity()
    else:
        network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        network.fc = nn.Identity()
    return network


def _one_channel(source: Path) -> dict[str, Tensor]:
    """The exported weights, with the first filter's three channels summed to one."""
    weights = load_file(source / WEIGHTS_NAME)
    return {
        key: value.sum(dim=1, keepdim=True) if value.dim() == 4 and value.shape[1] == 3 else value
        for key, value in weights.items()
    }


def _timm_network(name: str, image_size: int) -> Any:
    import timm

    more: dict[str, Any] = {"img_size": image_size} if name == "vit_small" else {}
    return timm.create_model(TIMM_NAMES[name], pretrained=False, in_chans=1, num_classes=0, **more)


def _timm_weights(name: str, source: Path, image_size: int) -> dict[str, Tensor]:
    weights = _one_channel(source)
    if name == "vit_small":
        from timm.layers.pos_embed import resample_abs_pos_embed

        side = image_size // 16
        weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], [side, side], num_prefix_tokens=1)
    if name == "convnext_tiny":
        weights = {_convnext_name(key): value for key, value in weights.items()}
        weights = {key: value.flatten() if key.endswith("gamma") else value for key, value in weights.items()}
    return weights


def _convnext_name(key: str) -> str:
    for pattern, name in _CONVNEXT:
        if found := re.match(pattern, key):
            rest = key[found.end() :]
            for old, new in _CONVNEXT_BLOCK.items():
                rest = new + rest.removeprefix(old) if rest.startswith(old) else rest
            return name(found) + rest
    return key


def _timm_config(name: str, feature_dim: int, image_size: int) -> dict[str, Any]:
    """What timm reads of a local folder or of a model hub."""
    return {
        "architecture": TIMM_NAMES[name],
        "num_classes": 0,
        "num_features": feature_dim,
        "model_args": {"in_chans": 1} | ({"img_size": image_size} if name == "vit_small" else {}),
        "pretrained_cfg": {
            "input_size": [1, image_size, image_size],
            "fixed_input_size": name == "vit_small",
            "mean": [INPUT_MEAN],
            "std": [INPUT_STD],
            "interpolation": "lanczos",
            "crop_pct": 1.0,
            "num_classes": 0,
            "first_conv": {"convnext_tiny": "stem.0", "vit_small": "patch_embed.proj"}.get(name, "conv1"),
            "classifier": "fc" if name.startswith("resnet") else "head.fc" if name == "convnext_tiny" else "head",
        },
    }


def _write_onnx(path: Path, network: nn.Module, image_size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.export may be used instead, which needs another package
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, image_size, image_size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["features"],
            dynamic_axes={"images": {0: "films"}, "features": {0: "films"}},
        )


def check_installed(wanted: Format) -> None:
    """`UserError` where what a format needs is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime") if wanted == "onnx" and not find_spec(name)]
    if missing:
        raise UserError(f"--format onnx needs {' and '.join(missing)}: pip install 'scarce[onnx]'")
