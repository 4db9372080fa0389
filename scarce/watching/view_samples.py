"""Random views as one looks at them, made as a training step makes them: for grids, contact sheets and reports."""

import numpy as np
import torch
from torch import Tensor

from scarce.views import INPUT_MEAN, INPUT_STD, ViewConfig, draw_parameters, make_views


def sample_views(images: np.ndarray, image_size: int, config: ViewConfig, count: int, seed: int = 0) -> np.ndarray:
    """`count` random views of each image.

    Args:
        images: uint8 [N, H, W].
        image_size: side S of the views, pixels.
        config: how strongly they differ from their image.
        count: views of each image.
        seed: of their parameters and their noise.

    Returns:
        uint8 [N, count, S, S]: intensities of [0, 1] as grey levels; what noise carried beyond is cut off.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.from_numpy(np.repeat(images, count, axis=0))
    parameters = draw_parameters(len(pixels), image_size, config, generator)
    views = grey_levels(make_views(pixels, image_size, config, parameters, generator))
    return views.reshape(len(images), count, image_size, image_size)


def grey_levels(views: Tensor) -> np.ndarray:
    """Normalised views float32 [B, 1, S, S] as uint8 [B, S, S]."""
    intensities = views.squeeze(1) * INPUT_STD + INPUT_MEAN
    levels: np.ndarray = intensities.mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
    return levels
