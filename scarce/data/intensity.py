"""Raw gray levels to 8 bits. The order matters: stretch at the raw depth, resize in float, quantise last.

A 16-bit radiograph uses a part of its range; reduced to 8 bits first, and stretched then, some 56 of 256 levels are
left of it. The stretch is robust (percentiles), since burnt-in markers and the collimator's edge hold the extremes.
"""

import numpy as np
from PIL import Image

from scarce.data.decode import DecodeError

LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.9


def stretch_range(raw: np.ndarray, inverted: bool = False) -> tuple[float, float]:
    """The raw levels that become black and white: the 0.1 and 99.9 percentiles, exchanged where low levels are bright.

    Args:
        raw: gray levels [H, W], any integer or float dtype.
        inverted: whether low levels are bright.

    Raises:
        DecodeError: "constant image", if both are the same.
    """
    # "nearest" takes levels that occur, so that an integer image needs no float copy of itself.
    low, high = np.percentile(raw, (LOW_PERCENTILE, HIGH_PERCENTILE), method="nearest")
    if not high > low:
        raise DecodeError("constant image")
    return (float(high), float(low)) if inverted else (float(low), float(high))


def to_8_bit(raw: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """Stretch, resize to a square and quantise.

    The aspect ratio is not kept: the NIH's own 1024 × 1024 images were made the same way, and borders of different
    width would tell the hospitals apart.

    Args:
        raw: gray levels [H, W].
        low: raw level that becomes 0.
        high: raw level that becomes 255; below `low` for images whose low levels are bright.
        size: side of the result in pixels.

    Returns:
        uint8 [size, size].
    """
    stretched = np.clip((raw.astype(np.float32) - low) * np.float32(255.0 / (high - low)), 0.0, 255.0)
    if stretched.shape != (size, size):
        image = Image.fromarray(stretched)  # mode "F"
        stretched = np.clip(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)), 0.0, 255.0)
    return np.rint(stretched).astype(np.uint8)
