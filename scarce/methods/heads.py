"""Heads that several methods share, and the precision that losses are computed in."""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn


def mlp(*sizes: int, batch_norm: bool, output_norm: Literal["none", "affine", "plain"] = "none") -> nn.Sequential:
    """Linear layers from sizes[0] to sizes[-1] with (batch norm and) ReLU between them.

    `output_norm` puts a batch norm after the last layer too, with or without (`plain`) scale and shift of its own.
    """
    *hidden, outputs = sizes
    layers: list[nn.Module] = []
    for incoming, outgoing in itertools.pairwise(hidden):
        layers += [nn.Linear(incoming, outgoing, bias=not batch_norm)]
        layers += [nn.BatchNorm1d(outgoing)] if batch_norm else []
        layers += [nn.ReLU(inplace=True)]
    layers += [nn.Linear(hidden[-1], outputs, bias=output_norm == "none")]
    layers += [] if output_norm == "none" else [nn.BatchNorm1d(outputs, affine=output_norm == "affine")]
    return nn.Sequential(*layers)


def scaled(multiple: float, features: int) -> int:
    """A layer's width as a multiple of the backbone's features, so that heads keep the papers' proportions."""
    return max(1, round(multiple * features))


def at_least_float32(x: Tensor) -> Tensor:
    """Autocast's bfloat16 as float32, where losses are computed; float64 stays what it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
