"""SparK: Tian, Jiang, Yuan et al. 2023, "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked
Modeling".

The encoder is sparse (section 3.1): hidden patches stay hidden through every layer. The decoder is hierarchical
(section 3.2): it gets the maps of all four stages, hidden positions filled with a learned embedding a scale.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.distributed import broadcast_from_first, rank, world_size
from scarce.errors import UserError
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32
from scarce.methods.sparse import Visible, make_sparse
from scarce.space import Choice, Dimension, Float
from scarce.transfer import to_device
from scarce.views import ViewConfig


@dataclass(frozen=True)
class SparKConfig(MethodConfig):
    """SparK's settings. A patch is what one position of the last stage stands for: 32 pixels for ResNet-50."""

    mask: float = 0.6  # share of the patches that are hidden
    decoder_width: int = 256  # channels of the decoder at the coarsest scale; halved with every doubling of the side


class SparK(Method):
    """Reconstructs hidden patches of one view from the visible ones."""

    Config = SparKConfig
    OPTIMISER = OptimiserConfig("adamw", lr=3e-4, reference_batch=256, weight_decay=0.05, warmup_epochs=20.0)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {
        "mask": Float(0.3, 0.8),
        "decoder_width": Choice((128, 256, 512)),
    }
    # Section 4.1: crops and flips only; what is to be reconstructed is the picture itself.
    UNUSED_VIEWS = frozenset(
        {"brightness", "contrast", "gamma", "intensity_p", "blur", "blur_sigma", "noise", "cutout"}
    )
    CAN_COLLAPSE = False  # a constant output reconstructs nothing

    def __init__(self, backbone: Backbone, config: SparKConfig) -> None:
        super().__init__()
        if not backbone.convolutional:
            raise UserError(
                "method spark masks convolutions and a vision transformer has none: "
                "use a --backbone such as resnet50 or convnext_tiny, or another --method"
            )
        self.config = config
        self.backbone = backbone
        self.visible = Visible()
        make_sparse(backbone, self.visible)
        backbone.tail.requires_grad_(False)  # the loss never sees it
        self.densify = Densify(backbone.channels, config.decoder_width, self.visible)
        self.decoder = Decoder(config.decoder_width, doublings=int(math.log2(backbone.stride)))

    def views(self, image_size: int, config: ViewConfig) -> list[tuple[int, ViewConfig]]:
        """One view of whole patches, at least four of them, augmented in its geometry only."""
        stride = self.backbone.stride
        if image_size % stride or image_size < 2 * stride:
            raise UserError(
                f"method spark needs views of whole {stride}-pixel patches, at least 2 x 2 of them: "
                f"--image-size {image_size} is not a multiple of {stride} from {2 * stride} on"
            )
        return [(image_size, replace(config, **dict.fromkeys(self.UNUSED_VIEWS, 0.0)))]

    def forward(self, view: Tensor) -> Tensor:
        """Loss of one view, float32 [B, 1, S, S]."""
        visible, hidden = self.draw_cells(view)
        return reconstruction_loss(self.reconstruct(view, visible), view, hidden, self.backbone.stride)

    def reconstruct(self, view: Tensor, visible: Tensor) -> Tensor:
        """What the decoder makes of a view [B, 1, S, S] of which the encoder sees some cells [B, kept] only."""
        with self.visible.only(visible, view.shape[2] // self.backbone.stride):
            return self.decoder(self.densify(self.backbone.maps(self.visible.take(view))))

    def draw_cells(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of visible and of hidden patches in reading order, int64 [B, ...], equally many in every image."""
        side = view.shape[2] // self.backbone.stride
        kept = max(1, min(side**2 - 1, round(side**2 * (1 - self.config.mask))))
        # Drawn for the batch of all workers, so that how many there are makes no difference.
        noise = torch.rand(world_size(), len(view), side**2)
        order = broadcast_from_first(to_device(noise, view.device))[rank()].argsort(dim=1)
        return order[:, :kept], order[:, kept:]


class Densify(nn.Module):
    """Sparse maps of the four stages to dense ones of the decoder's widths, the coarsest first."""

    def __init__(self, channels: tuple[int, ...], width: int, visible: Visible) -> None:
        super().__init__()
        self.visible = visible
        self.norms, self.projections = nn.ModuleList(), nn.ModuleList()
        self.embeddings = nn.ParameterList()
        for level, channel in enumerate(reversed(channels)):
            kernel = 1 if level == 0 else 3
            self.norms.append(nn.BatchNorm2d(channel))
            self.embeddings.append(nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, channel, 1, 1), std=0.02)))
            self.projections.append(nn.Conv2d(channel, width // 2**level, kernel, padding=kernel // 2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Cells [N, channels[i], r_i, r_i], the finest first, to [B, width / 2^level, H, W], the coarsest first."""
        filled = []
        for x, norm, embedding, projection in zip(
            reversed(maps), self.norms, self.embeddings, self.projections, strict=True
        ):
            filled.append(projection(self.visible.put(norm(x), hidden=embedding.flatten())))
        return filled


class Decoder(nn.Module):
    """A light U-Net decoder: every block doubles the side and halves the channels (section 3.2, figure 3)."""

    def __init__(self, width: int, doublings: int) -> None:
        super().__init__()
        widths = [width // 2**i for i in range(doublings + 1)]
        self.blocks = nn.ModuleList(_block(widths[i], widths[i + 1]) for i in range(doublings))
        self.to_pixels = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Dense maps, the coarsest first, to an image [B, 1, S, S]."""
        x = torch.zeros_like(maps[0])
        for level, block in enumerate(self.blocks):
            if level < len(maps):
                x = x + maps[level]
            x = block(x)
        return self.to_pixels(x)


def _block(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(incoming, incoming, 4, stride=2, padding=1),
        nn.Conv2d(incoming, incoming, 3, padding=1, bias=False),
        nn.BatchNorm2d(incoming),
        nn.ReLU6(inplace=True),
        nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False),
        nn.BatchNorm2d(outgoing),
    )


def reconstruction_loss(output: Tensor, view: Tensor, hidden: Tensor, side: int) -> Tensor:
    """Mean squared error on hidden patches, each normalised to mean 0 and variance 1 (section 3.3).

    Args:
        output: what the decoder made, [B, 1, S, S].
        view: the picture, [B, 1, S, S].
        hidden: numbers of the hidden patches in reading order, int64 [B, n].
        side: of a patch, in pixels.
    """
    index = hidden[:, :, None].expand(-1, -1, side**2)
    target, made = (patches(at_least_float32(x), side).gather(1, index) for x in (view, output))
    target = (target - target.mean(dim=2, keepdim=True)) / (target.var(dim=2, keepdim=True) + 1e-6).sqrt()
    return F.mse_loss(made, target)


def patches(x: Tensor, side: int) -> Tensor:
    """[B, 1, S, S] to its patches of side × side pixels in reading order, [B, (S / side)², side²]."""
    count = x.shape[2] // side
    return x.reshape(len(x), count, side, count, side).transpose(2, 3).reshape(len(x), count**2, side**2)
