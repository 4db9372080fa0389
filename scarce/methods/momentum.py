"""Momentum networks: copies that follow the trained network without gradients."""

import copy
import math

import torch
from torch import nn


def frozen_copy(*modules: nn.Module) -> nn.Sequential:
    """A copy of `modules` in a row that the optimiser leaves alone."""
    return copy.deepcopy(nn.Sequential(*modules)).requires_grad_(False)


@torch.no_grad()
def follow(copies: nn.Module, online: nn.Module, momentum: float) -> None:
    """copy ← momentum · copy + (1 − momentum) · online, parameter by parameter. Buffers stay each network's own."""
    torch._foreach_lerp_(list(copies.parameters()), list(online.parameters()), 1 - momentum)


def short_run_momentum(longest: float, steps: int, lags: int) -> float:
    """`longest`, or less in a run so short that a copy with it would trail more than 1/`lags` of the steps behind.

    A copy with momentum m trails 1 / (1 − m) steps behind. Never below 0.5.
    """
    return min(longest, max(0.5, 1 - lags / steps))


def rising_momentum(start: float, progress: float) -> float:
    """From `start` at progress 0 to 1 at progress 1 along half a cosine (Grill et al. 2020, section 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
