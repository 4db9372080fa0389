"""Lung masks that somebody segmented after the conversion: a folder of PNG files named as the images."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from scarce.data.sources import IMAGE_SUFFIXES
from scarce.errors import UserError


def read_masks(folder: Path, image_ids: Sequence[str], size: int) -> np.ndarray:
    """The lungs of each image, bool [N, size, size]: whatever is not zero in its mask.

    Args:
        folder: where the masks lie, at the image ids' paths: `a/b.jpg` has the mask `a/b.png`. An id that does not end
            as an image file does gets `.png` added.
        image_ids: whose masks to read, in this order.
        size: side of the converted images, and of their masks, in pixels.

    Raises:
        UserError: no such folder, an image without a mask, a file that is no PNG image, or one of another size.
    """
    if not folder.is_dir():
        raise UserError(f"expected a folder of lung masks, found none at {folder}")
    paths = [folder / _mask_name(image_id) for image_id in image_ids]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f"expected a lung mask for each image in {folder}, found none for {len(missing)} of {len(paths)} images "
            f"(the first: {missing[0]}): name the masks as the images, ending in .png"
        )
    masks = np.empty((len(paths), size, size), dtype=bool)
    for mask, path in zip(masks, paths, strict=True):
        mask[:] = _read_mask(path, size)
    return masks


def _mask_name(image_id: str) -> str:
    """The path of an image's mask below the folder; `UserError` for an id that would lead out of it."""
    path = PurePosixPath(image_id)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"expected image ids that are paths below the folder of the lung masks, found {image_id!r}")
    ending = path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ""  # 1.2.840 is an id without one
    return image_id.removesuffix(ending) + ".png"


def _read_mask(path: Path, size: int) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            width, height = image.size
            if (width, height) == (size, size):
                plain = image if image.mode in ("1", "L") or image.mode.startswith("I") else image.convert("RGB")
                return np.asarray(plain, dtype=bool).reshape(size, size, -1).max(axis=2)
    except Exception as error:  # Pillow answers damage with exceptions of every kind
        raise UserError(f"expected a PNG image, found {path} ({error}): write this lung mask again") from error
    raise UserError(
        f"expected {size} × {size} pixels as the converted images have, found {width} × {height} in {path}: "
        "resize the masks"
    )
