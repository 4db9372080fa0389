"""Networks that see only part of an image: what SparK's encoder is made of.

The visible cells of a batch are laid out as small maps of their own, [N, C, r, r] with N cells in all. What works on
single positions (1×1 convolutions, normalisation, ReLU, residual sums) works on them as it is and costs only what is
visible; batch norm then counts visible positions only, as it must: zeros that stand for nothing would shift its
statistics (Tian et al. 2023, section 3.1). What looks at neighbouring positions puts the cells back into their places
with zeros between them, and takes the cells of what comes out. So what is hidden is zero before every layer, and no
3×3 convolution carries visible content one position further into hidden cells, as a dense one on a masked image would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class Visible:
    """Which cells of the present batch are visible; without such a choice everything is, and layers are dense ones."""

    def __init__(self) -> None:
        self._numbers: Tensor | None = None
        self._side = 0
        self._rows: dict[int, Tensor] = {}  # by r, the same for all layers

    @contextmanager
    def only(self, numbers: Tensor, side: int) -> Iterator[None]:
        """Within the block only some cells are visible, equally many in each image.

        Args:
            numbers: of the visible cells in reading order, int64 [B, kept], on the maps' device.
            side: cells a side of an image.
        """
        self._numbers, self._side, self._rows = numbers, side, {}
        try:
            yield
        finally:
            self._numbers, self._rows = None, {}

    @property
    def is_everything(self) -> bool:
        """Whether no cells have been chosen."""
        return self._numbers is None

    @property
    def images(self) -> int:
        """B."""
        return 0 if self._numbers is None else len(self._numbers)

    def take(self, x: Tensor) -> Tensor:
        """The visible cells of maps: [B, C, side · r, side · r] to [B · kept, C, r, r]."""
        r, channels = x.shape[2] // self._side, x.shape[1]
        lines = x.permute(0, 2, 3, 1).reshape(-1, r * channels)
        return _Take.apply(lines, self._lines(r)).view(-1, r, r, channels).permute(0, 3, 1, 2)

    def put(self, cells: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Cells in their places, [B · kept, C, r, r] to [B, C, side · r, side · r]; elsewhere `hidden` [C], or zero."""
        assert self._numbers is not None, "no cells have been chosen"
        r, channels, images = cells.shape[2], cells.shape[1], len(self._numbers)
        lines = cells.permute(0, 2, 3, 1).reshape(-1, r * channels)
        shape = (images * self._side * r * self._side, r * channels)
        index = self._lines(r)
        if hidden is None:
            whole = lines.new_zeros(shape).index_copy_(0, index, lines)
        else:
            whole = hidden.to(lines.dtype).repeat(r).expand(shape).index_copy(0, index, lines)
        return whole.view(images, self._side * r, self._side * r, channels).permute(0, 3, 1, 2)

    def _lines(self, r: int) -> Tensor:
        """Where the cells' lines of r positions lie among all lines of maps with channels last; int64 [B·kept·r]."""
        if r not in self._rows:
            assert self._numbers is not None, "no cells have been chosen"
            device = self._numbers.device
            image = torch.arange(len(self._numbers), device=device)[:, None]
            row = (image * self._side + self._numbers // self._side) * r
            line = torch.arange(r, device=device)
            self._rows[r] = ((row[:, :, None] + line) * self._side + (self._numbers % self._side)[:, :, None]).flatten()
        return self._rows[r]


class _Take(torch.autograd.Function):
    """Some rows of [N, D], each at most once: so the gradient is a copy, which is faster than a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(x)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.rows, gradient.shape[1]).index_copy_(0, index, gradient), None


class _AmongNeighbours(nn.Module):
    """A layer that looks across the borders of cells: [N, C, r, r] to [N, C', r', r']."""

    visible: Visible

    def forward(self, x: Tensor) -> Tensor:
        if self.visible.is_everything:
            return super().forward(x)
        return self.visible.take(super().forward(self.visible.put(x)))


class SparseConv2d(_AmongNeighbours, nn.Conv2d):
    """Convolution."""


class SparseMaxPool2d(_AmongNeighbours, nn.MaxPool2d):
    """Max pooling of maps that are nowhere negative, so that a hidden zero never wins against a visible value."""


class SparseStochasticDepth(StochasticDepth):
    """Stochastic depth (Huang et al. 2016), which drops a block for all cells of an image or for none."""

    visible: Visible

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, r, r] to the same shape."""
        if self.visible.is_everything:
            return super().forward(x)
        return super().forward(x.unflatten(0, (self.visible.images, -1))).flatten(0, 1)


_SPARSE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SparseConv2d,
    nn.MaxPool2d: SparseMaxPool2d,
    StochasticDepth: SparseStochasticDepth,
}


def make_sparse(network: nn.Module, visible: Visible) -> None:
    """Let every layer of `network` that joins positions of several cells obey `visible`. Weights and names stay."""
    for module in network.modules():
        if type(module) in _SPARSE and not _stays_within_cells(module):
            module.__class__ = _SPARSE[type(module)]
            module.visible = visible  # type: ignore[assignment]  # no module, no tensor: a plain attribute


def _stays_within_cells(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size in ((1, 1), module.stride)  # a single position, or patches without overlap
        and module.padding == (0, 0)
    )
