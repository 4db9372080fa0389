"""Convolutions that see only part of an image, by masking: what SparK's encoder is made of.

A sparse convolution gives the same outputs at visible positions as a dense one on an image whose hidden positions are
zero, as long as they are made zero again after every layer. Otherwise each 3×3 convolution would carry visible content
one position further into hidden patches, and after a few layers nothing would be hidden. Batch norm counts visible
positions only: zeros that stand for nothing would shift its statistics (Tian et al. 2023, section 3.1).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from scarce.distributed import sum_over_workers


class Visible:
    """Which cells of the present batch are visible; without a mask everything is, and layers are the dense ones."""

    def __init__(self) -> None:
        self._cells: Tensor | None = None

    @contextmanager
    def only(self, cells: Tensor) -> Iterator[None]:
        """Within the block only `cells` are visible: bool [B, 1, h, w]."""
        self._cells = cells
        try:
            yield
        finally:
            self._cells = None

    def at(self, height: int, width: int) -> Tensor | None:
        """The mask at a map's resolution, bool [B, 1, height, width], multiples of h and w; None: all is visible."""
        return None if self._cells is None else enlarge(self._cells, height, width)


def enlarge(cells: Tensor, height: int, width: int) -> Tensor:
    """Repeat cells [B, 1, h, w] to [B, 1, height, width]."""
    return cells.repeat_interleave(height // cells.shape[2], 2).repeat_interleave(width // cells.shape[3], 3)


class _Masked(nn.Module):
    """A layer on maps [B, C, H, W] whose hidden outputs are zero."""

    visible: Visible

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        mask = self.visible.at(*x.shape[2:])
        return x if mask is None else x * mask


class MaskedConv2d(_Masked, nn.Conv2d):
    """Convolution."""


class MaskedMaxPool2d(_Masked, nn.MaxPool2d):
    """Max pooling of maps that are nowhere negative, so that a hidden zero never wins against a visible value."""


class MaskedLayerNorm2d(_Masked, LayerNorm2d):
    """Layer norm over channels: a position's own affair, but for its bias."""


class MaskedLinear(nn.Linear):
    """A linear layer on maps with channels last [B, H, W, C], which is a 1×1 convolution."""

    visible: Visible

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, H, W, C']."""
        x = super().forward(x)
        mask = self.visible.at(*x.shape[1:3])
        return x if mask is None else x * mask.permute(0, 2, 3, 1)


class MaskedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of visible positions, over the batch of all workers."""

    visible: Visible

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape, hidden positions zero."""
        mask = self.visible.at(*x.shape[2:])
        if mask is None:
            return super().forward(x)
        if not self.training:
            return super().forward(x) * mask
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = sum_over_workers(mask.sum().to(wide.dtype))
        mean = sum_over_workers((wide * mask).sum((0, 2, 3))) / count
        centred = (wide - mean.view(1, -1, 1, 1)) * mask
        variance = sum_over_workers(centred.square().sum((0, 2, 3))) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)) * mask).to(x.dtype)


_MASKED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: MaskedConv2d,
    nn.MaxPool2d: MaskedMaxPool2d,
    nn.BatchNorm2d: MaskedBatchNorm2d,
    LayerNorm2d: MaskedLayerNorm2d,
    nn.Linear: MaskedLinear,
}


def make_sparse(network: nn.Module, visible: Visible) -> None:
    """Let every layer of `network` that mixes or shifts positions obey `visible`. Weights and their names stay."""
    for module in network.modules():
        if type(module) in _MASKED:
            module.__class__ = _MASKED[type(module)]
            module.visible = visible  # type: ignore[assignment]  # no module, no tensor: a plain attribute
