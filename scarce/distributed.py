"""What several training workers share: gathered embeddings, summed statistics, batch norm over the joined batch.

With one worker, or without a process group, everything here is the identity.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of training workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def gather(x: Tensor) -> Tensor:
    """Rows of all workers [world·B, ...] in worker order, with gradients; every worker has the same number of rows.

    The gradient is the sum over workers of what each did with the rows, so that after the mean over workers that
    DistributedDataParallel takes, a loss that every worker computes on the gathered rows has its exact gradient.
    """
    return x if world_size() == 1 else _Gather.apply(x)


def sum_over_workers(x: Tensor) -> Tensor:
    """The sum of all workers' `x`, on every worker, with gradients."""
    return x if world_size() == 1 else _Sum.apply(x)


def broadcast_from_first(x: Tensor) -> Tensor:
    """The first worker's `x`, on every worker."""
    if world_size() > 1:
        dist.broadcast(x, src=0)
    return x


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the joined batch of all workers, for devices without `nn.SyncBatchNorm` (CPU with gloo)."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        return _normalise_globally(self, x, (0, 2, 3))


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """`GlobalBatchNorm2d` for [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C] to the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        return _normalise_globally(self, x, (0,))


def _normalise_globally(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, dims: tuple[int, ...]) -> Tensor:
    shape = [1, -1, *([1] * (x.dim() - 2))]
    count = x.numel() / x.shape[1] * world_size()
    mean = sum_over_workers(x.sum(dims)) / count
    centred = x - mean.view(shape)
    variance = sum_over_workers(centred.square().sum(dims)) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(variance * count / (count - 1), momentum)
    x = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        x = x * norm.weight.view(shape) + norm.bias.view(shape)
    return x


def join_batch_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm in `module` by one over the joined batch; same parameters, same state-dict keys.

    Subclasses of batch norm are left alone: they see to it themselves.
    """
    for name, child in module.named_children():
        if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            join_batch_norms(child, device)
        elif device.type == "cuda":
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            child.__class__ = GlobalBatchNorm2d if isinstance(child, nn.BatchNorm2d) else GlobalBatchNorm1d
    return module
