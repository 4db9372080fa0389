"""Resampling a batch of images along one axis: each new line is a weighted sum of a few neighbouring lines.

A dense weight matrix for a resize or a blur is nearly all zeros. Here every new line has a list of lines and weights
instead, and `F.embedding_bag` sums them: whole rows of memory at a time, each image with its own weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def combine_lines(images: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """New lines out of an image's own: float32 [B, H, W] to float32 [B, S, W].

    `index` (integers, [B, S, taps] or [S, taps] for all images alike) and `weights` (float32 [B, S, taps]) say of which
    lines, in which shares.
    """
    count, high, wide = images.shape
    row = index + high * torch.arange(count, dtype=torch.int32, device=images.device)[:, None, None]
    bags, shares = row.flatten(0, 1), weights.flatten(0, 1)
    return F.embedding_bag(bags, images.reshape(-1, wide), per_sample_weights=shares, mode="sum").view(count, -1, wide)


def resize_taps(start: Tensor, length: Tensor, source: int, target: int, longest: float) -> tuple[Tensor, Tensor]:
    """Which pixels of a line, in which shares, make the span from `start` to `start + length` resized to `target`.

    The filter is the triangle of Pillow and torchvision, widened by the reduction factor when shrinking.

    Args:
        start, length: float32 [B], in source pixels. The span may reach beyond the line, whose end pixels are then
            repeated; a negative length runs backwards and mirrors.
        source, target: pixels of the line and of the result.
        longest: no |length| is above it. It bounds the number of taps without looking at a tensor of the device.

    Returns:
        index [B, target, taps] into the line, and weights of the same shape that sum to 1 over the taps.
    """
    step = (length / target)[:, None, None]
    width = step.abs().clamp(min=1)
    centre = start[:, None, None] + (torch.arange(target, device=start.device) + 0.5)[:, None] * step
    centre = centre.clamp(0.5, source - 0.5)
    taps = torch.arange(min(math.ceil(2 * max(1.0, longest / target)), source), dtype=torch.int32, device=start.device)
    first = (centre - width + 0.5).floor().clamp(0, source - len(taps))
    weights = (1 - (first + 0.5 - centre + taps).abs() / width).clamp(min=0)
    return first.int() + taps, weights / weights.sum(dim=2, keepdim=True)


def blur_taps(sigma: Tensor, size: int, longest: float) -> tuple[Tensor, Tensor]:
    """Which pixels of a line, in which shares, make its Gaussian blur, cut off at the line's ends.

    Args:
        sigma: float32 [B], in pixels, above 0.
        size: pixels of the line.
        longest: no sigma is above it. The Gaussian reaches at least 4 of it.

    Returns:
        index [size, taps] into the line, and weights [B, size, taps] that sum to 1 over the taps.
    """
    taps = torch.arange(min(2 * math.ceil(4 * longest) + 1, size), dtype=torch.int32, device=sigma.device)
    line = torch.arange(size, dtype=torch.int32, device=sigma.device)[:, None]
    index = (line - len(taps) // 2).clamp(0, size - len(taps)) + taps
    weights = torch.exp(-0.5 * ((index - line) / sigma[:, None, None]) ** 2)
    return index, weights / weights.sum(dim=2, keepdim=True)
