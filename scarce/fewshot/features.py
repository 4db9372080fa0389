"""Features of images from a frozen backbone."""

from typing import Any

import numpy as np
import torch
from torch import nn

from scarce.views import resize, to_input


def extract_features(
    backbone: nn.Module,
    images: np.ndarray,
    image_size: int,
    device: torch.device | str,
    batch_size: int = 256,
    positions: bool = False,
) -> np.ndarray:
    """Features of whole images, each extracted once, in eval mode and without gradients.

    Args:
        backbone: maps float32 [B, 1, S, S] to [B, D]; already on `device`. Left in the mode it came in.
        images: uint8 [N, H, W].
        image_size: S, pixels a side; images of another size are resized with an anti-aliased filter.
        device: where the backbone lies.
        batch_size: images a forward pass.
        positions: ask a `scarce.backbones.Backbone` for the features of every position instead of the pooled ones.

    Returns:
        float32 [N, D]; of P positions [N, P, D], which for ResNet-50 at 224 pixels is 0.4 MB an image.
    """
    forward: Any = backbone.positions if positions else backbone
    was_training = backbone.training
    backbone.eval()
    features: np.ndarray | None = None
    try:
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                batch = torch.from_numpy(images[start : start + batch_size]).to(device)
                output = forward(to_input(resize(batch, image_size))).float().cpu().numpy()
                if features is None:  # filled in place: a list of batches would need twice the memory at its end
                    features = np.empty((len(images), *output.shape[1:]), dtype=np.float32)
                features[start : start + batch_size] = output
    finally:
        backbone.train(was_training)
    if features is None:
        raise ValueError("expected at least one image")
    return features
