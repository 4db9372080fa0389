"""Features of images from a frozen backbone."""

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
) -> np.ndarray:
    """Features of whole images, each extracted once, in eval mode and without gradients.

    Args:
        backbone: maps float32 [B, 1, S, S] to [B, D]; already on `device`. Left in the mode it came in.
        images: uint8 [N, H, W].
        image_size: S, pixels a side; images of another size are resized with an anti-aliased filter.
        device: where the backbone lies.
        batch_size: images a forward pass.

    Returns:
        float32 [N, D].
    """
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.inference_mode():
            batches = [
                backbone(to_input(resize(torch.from_numpy(batch).to(device), image_size))).float().cpu()
                for batch in np.array_split(images, range(batch_size, len(images), batch_size))
            ]
    finally:
        backbone.train(was_training)
    return torch.cat(batches).numpy()
