"""Side markers and stickers: cutting them out of films, and pasting them into others."""

import numpy as np
from scipy.ndimage import label, white_tophat

from scarce.audit.regions import corners

STROKE = 0.10  # share of the side; brighter structures narrower than this stand out in the top-hat
CONTRAST = 80  # gray levels above the surroundings that lead letters have and anatomy in the corners has not
LEAST, MOST = 0.001, 0.04  # share of the picture that a marker covers


def cut_markers(images: np.ndarray) -> list[np.ndarray]:
    """The markers in the corners of films that have one.

    A white top-hat (Serra 1982, "Image Analysis and Mathematical Morphology") keeps what is narrower than its square
    and brighter than its surroundings: letters and stickers, not shoulders. What goes on beyond the corner is none of
    them: the film's edge, a collimator's, the tissue between lung and edge.

    Args:
        images: uint8 [N, S, S].

    Returns:
        For each film with a marker a picture uint8 [S, S], black but for the marker.
    """
    size = images.shape[1]
    width = max(3, round(STROKE * size))
    inside = corners(size)
    found = []
    for image in images:
        pieces, _ = label(white_tophat(image, size=width) > CONTRAST, np.ones((3, 3)))
        raised = (pieces > 0) & ~np.isin(pieces, pieces[~inside])
        if LEAST <= raised.mean() <= MOST:
            found.append(np.where(raised, image, np.uint8(0)))
    return found


def paste(images: np.ndarray, markers: list[np.ndarray]) -> np.ndarray:
    """Films [N, S, S] with a marker each, taken in turn: lead is opaque, so the brighter of the two is seen."""
    return np.stack([np.maximum(image, markers[number % len(markers)]) for number, image in enumerate(images)])
