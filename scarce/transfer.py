"""Copies to the training device that the host does not wait for."""

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` from the host's memory on `device`.

    A copy out of ordinary memory to a GPU waits for all that the GPU has been given to do; out of pinned memory it
    queues up behind it.
    """
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
