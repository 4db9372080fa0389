"""Projection heads that several methods share, and the precision that losses are computed in."""

import itertools

import torch
from torch import Tensor, nn


def mlp(*sizes: int, batch_norm: bool) -> nn.Sequential:
    """Linear layers from sizes[0] to sizes[-1] with (batch norm and) ReLU between them, none after the last."""
    *hidden, outputs = sizes
    layers: list[nn.Module] = []
    for incoming, outgoing in itertools.pairwise(hidden):
        layers += [nn.Linear(incoming, outgoing, bias=not batch_norm)]
        layers += [nn.BatchNorm1d(outgoing)] if batch_norm else []
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))


def at_least_float32(x: Tensor) -> Tensor:
    """Autocast's bfloat16 as float32, where losses are computed; float64 stays what it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
