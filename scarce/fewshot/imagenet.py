"""Networks with ImageNet weights, from a file or from torchvision, that take this project's one-channel input."""

import math
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import convnext_tiny, get_model_weights, resnet18, resnet50

from scarce.errors import UserError
from scarce.files import atomic_path
from scarce.views import INPUT_MEAN, INPUT_STD

SIDE = 224  # pixels that all of these were trained on
DOWNLOAD = "download"
DOWNLOAD_SECONDS = 300.0  # for the whole file
SILENCE_SECONDS = 20.0  # without a byte

RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A network of a library, without its classifier; `classifier` is the prefix of the classifier's weights."""

    make: Callable[[], nn.Module]
    classifier: str
    mean: tuple[float, float, float] = RGB_MEAN
    std: tuple[float, float, float] = RGB_STD


def _resnet(make: Callable[..., nn.Module]) -> nn.Module:
    network = make(weights=None)
    network.fc = nn.Identity()
    return network


def _convnext() -> nn.Module:
    network = convnext_tiny(weights=None)
    network.classifier[2] = nn.Identity()
    return network


def _vit() -> nn.Module:
    import timm  # seconds to import, for this architecture only

    return timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0, dynamic_img_size=True)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(lambda: _resnet(resnet18), "fc."),
    "resnet50": Architecture(lambda: _resnet(resnet50), "fc."),
    "convnext_tiny": Architecture(_convnext, "classifier.2."),
    # timm's weights of that name are Steiner et al. 2022's ("How to train your ViT?"), of intensities in [-1, 1].
    "vit_small": Architecture(_vit, "head.", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class OneChannel(nn.Module):
    """A three-channel network for gray pictures: [N, 1, S, S] as `views.to_input` makes it to what `network` gives.

    The intensity is put back into [0, 1], repeated, and each channel is normalised as in the network's own training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """One channel in, three on."""
        return self.network((x * INPUT_STD + INPUT_MEAN - self.mean) / self.std)


def imagenet_size(image_size: int) -> int:
    """Pixels a side that these networks are given: at least the 224 they were trained on, a multiple of 16.

    Smaller X-rays are enlarged, as whoever takes such weights would do: a ResNet-50 makes a 2 × 2 map of 64 pixels.
    """
    return max(SIDE, 16 * math.ceil(image_size / 16))


def load_imagenet(path: Path | str) -> nn.Module:
    """The network whose weights a file holds, in eval mode; its architecture is told by their names and shapes.

    Args:
        path: a state_dict written by torch.save or safetensors, with or without the classifier.

    Returns:
        Maps float32 [N, 1, S, S] to features [N, D]; D is 512, 2048, 768 or 384.

    Raises:
        UserError: no such file, no state_dict, or another architecture's.
    """
    expected = (
        "expected a state_dict (.pth or .safetensors) of torchvision's resnet18, resnet50 or convnext_tiny, or of "
        "timm's vit_small_patch16_224, trained on three channels"
    )
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--imagenet {path}: no such file; {expected}")
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # whatever the file is mistaken for decides what is raised: KeyError, EOFError, ...
        raise UserError(f"--imagenet {path} can't be read ({type(error).__name__}); {expected}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"--imagenet {path} holds no state_dict; {expected}")
    shapes = {name: value.shape for name, value in weights.items()}
    for architecture in ARCHITECTURES.values():
        with torch.device("meta"):
            network = architecture.make()
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        if _comparable(shapes, architecture.classifier) == _comparable(wanted, architecture.classifier):
            network = architecture.make()
            network.load_state_dict({k: v.float() for k, v in weights.items() if k in wanted}, strict=False)
            return OneChannel(network, architecture.mean, architecture.std).eval()
    raise UserError(f"--imagenet {path} holds the weights of something else; {expected}")


def _comparable(shapes: dict[str, torch.Size], classifier: str) -> dict[str, torch.Size]:
    """Without the classifier, and without counters, which old files lack and eval mode does not read."""
    return {
        name: shape
        for name, shape in shapes.items()
        if not name.startswith(classifier) and not name.endswith("num_batches_tracked")
    }


def download_imagenet(
    backbone_name: str, seconds: float = DOWNLOAD_SECONDS, silence: float = SILENCE_SECONDS
) -> nn.Module:
    """torchvision's default weights of the architecture; of resnet50 where it has none (resnet_small, vit_small).

    Kept where torch.hub keeps its downloads, and taken from there if they are there.

    Args:
        backbone_name: as in `scarce.backbones.BACKBONES`.
        seconds: the longest the download may take.
        silence: the longest the server may say nothing.

    Raises:
        OSError: the weights can't be had; the message says why.
    """
    name = backbone_name if backbone_name in ("resnet18", "resnet50", "convnext_tiny") else "resnet50"
    url = get_model_weights(name).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        try:
            _download(url, path, seconds, silence)
        except HTTPException as error:  # a broken answer: not an OSError, but one to us
            raise OSError(f"{url}: {type(error).__name__} {error}") from error
    return load_imagenet(path)


def _download(url: str, path: Path, seconds: float, silence: float) -> None:
    """Fetch a file whose name ends in `-<start of its SHA-256>.<suffix>`, as torchvision's do."""
    deadline, digest = time.monotonic() + seconds, sha256()
    with urllib.request.urlopen(url, timeout=silence) as response, atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            while part := response.read1(2**20):
                file.write(part)
                digest.update(part)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{url} did not arrive within {seconds:g} s")
        if not digest.hexdigest().startswith(path.stem.rpartition("-")[2]):
            raise OSError(f"{url} arrived damaged: its SHA-256 does not start as its name says")
