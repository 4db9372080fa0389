"""Which part of the picture a model is shown: the thorax, the frame around it, the corners."""

import numpy as np
from scipy.ndimage import binary_dilation

# Shares of the picture's width and height. The box holds the lungs of a frontal film taken with usual care, and leaves
# the frame in which side markers, borders, tubes' ends and the arms lie.
THORAX_BOX = (0.10, 0.10, 0.90, 0.88)  # left, top, right, bottom
FRAME_WIDTH = 0.10
CORNER_SIDE = 0.20
LUNG_QUANTILE = 0.02  # a pixel is lung territory where it is lung in more than this share of the pictures
LUNG_MARGIN = 0.05


def thorax_box(size: int) -> np.ndarray:
    """The central thorax of a frontal film, a box: bool [S, S]."""
    return _box(size, *THORAX_BOX)


def frame(size: int) -> np.ndarray:
    """The outer frame, a tenth of the side wide: bool [S, S]."""
    return ~_box(size, FRAME_WIDTH, FRAME_WIDTH, 1 - FRAME_WIDTH, 1 - FRAME_WIDTH)


def corners(size: int) -> np.ndarray:
    """The four corners, squares of a fifth of the side, where side markers are: bool [S, S]."""
    near = np.minimum(_line(size), 1 - _line(size)) < CORNER_SIDE
    return near[:, None] & near[None, :]


def lung_territory(lungs: np.ndarray) -> np.ndarray:
    """Where lungs lie in the pictures, what lies between them, and a margin: bool [N, S, S] to bool [S, S].

    One region for all pictures. Were each one's own mask blacked out, the hole would show the outline of the lungs,
    which effusions, masses and a raised diaphragm change: the finding would be read from the hole. Heart and
    mediastinum go too, as findings lie before and behind them, and a margin, as shadows reach beyond the lungs' edge.
    """
    often = lungs.mean(axis=0) > LUNG_QUANTILE
    between = np.maximum.accumulate(often, axis=1) & np.maximum.accumulate(often[:, ::-1], axis=1)[:, ::-1]
    margin = max(1, round(LUNG_MARGIN * len(often)))
    territory: np.ndarray = binary_dilation(between, iterations=margin)
    return territory


def black_out(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S] with 0 where `region` (bool [S, S]) is; a copy."""
    return np.where(region, np.uint8(0), images)


def _box(size: int, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    line = _line(size)
    return ((line >= top) & (line < bottom))[:, None] & ((line >= left) & (line < right))[None, :]


def _line(size: int) -> np.ndarray:
    """Pixel centres along a side, in (0, 1)."""
    line: np.ndarray = (np.arange(size) + 0.5) / size
    return line
