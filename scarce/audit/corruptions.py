"""Changes that a film may undergo between two hospitals, each along one scale whose neutral level changes nothing."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

Change = Callable[[np.ndarray, float], np.ndarray]  # uint8 [N, S, S] and a level to uint8 [N, S, S]


@dataclass(frozen=True)
class Corruption:
    """One kind of change.

    Attributes:
        name: of the kind.
        unit: of its levels.
        apply: the change.
        levels: ascending; the neutral one is among them.
        neutral: the level that leaves films as they are.
        mild: levels as two hospitals may well differ; the audit's verdict is about these.
    """

    name: str
    unit: str
    apply: Change
    levels: tuple[float, ...]
    neutral: float
    mild: tuple[float, ...]


def _brightness(images: np.ndarray, level: float) -> np.ndarray:
    return _levels(images + 255 * level)


def _contrast(images: np.ndarray, level: float) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return _levels((images - mean) * level + mean)


def _gamma(images: np.ndarray, level: float) -> np.ndarray:
    return _levels(255 * (images / 255) ** level)


def _blur(images: np.ndarray, level: float) -> np.ndarray:
    sigma = level * images.shape[1]
    return _levels(gaussian_filter(images.astype(np.float32), (0, sigma, sigma), mode="nearest"))


def _noise(images: np.ndarray, level: float) -> np.ndarray:
    """The same noise at every level but for its strength."""
    pattern = np.random.default_rng(0).standard_normal(images.shape, np.float32)
    return _levels(images + 255 * level * pattern)


def _jpeg(images: np.ndarray, level: float) -> np.ndarray:
    """Level 100 is the film as it is, not a JPEG of the best quality."""
    if level == 100:
        return images
    decoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(level))
        decoded.append(np.asarray(Image.open(file)))
    return np.stack(decoded)


def _field_of_view(images: np.ndarray, level: float) -> np.ndarray:
    """More around the chest, in black, above 1; less of it below."""
    size = images.shape[1]
    side = round(size * level)
    if side == size:
        return images
    margin = (size - side) // 2  # the crop's edge; negative where the picture grows
    box = (margin, margin, margin + side, margin + side)
    films = [Image.fromarray(image).crop(box) for image in images]
    return np.stack([np.asarray(film.resize((size, size), Image.Resampling.LANCZOS)) for film in films])


def _levels(images: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.clip(images, 0, 255).round().astype(np.uint8)
    return rounded


CORRUPTIONS = (
    Corruption("brightness", "share of the range", _brightness, (-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3), 0, (-0.1, 0.1)),
    Corruption("contrast", "factor", _contrast, (0.4, 0.6, 0.8, 1, 1.2, 1.4), 1, (0.8, 1.2)),
    Corruption("gamma", "exponent", _gamma, (0.5, 0.67, 0.83, 1, 1.2, 1.5, 2), 1, (0.83, 1.2)),
    Corruption("blur", "sigma, share of the side", _blur, (0, 0.005, 0.01, 0.02, 0.04), 0, (0.005,)),
    Corruption("noise", "s.d., share of the range", _noise, (0, 0.01, 0.03, 0.06, 0.1), 0, (0.01,)),
    Corruption("JPEG", "quality", _jpeg, (5, 10, 25, 50, 75, 100), 100, (75,)),
    Corruption("field of view", "factor", _field_of_view, (0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.2), 1, (0.95, 1.05)),
)
