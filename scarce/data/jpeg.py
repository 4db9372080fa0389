"""The quality that a JPEG file was saved with, from its quantisation table."""

from collections.abc import Sequence

import numpy as np

# ITU-T T.81 (1992), Annex K, table K.1: luminance, rows top to bottom.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
_LARGEST = 255  # an 8-bit table's entry
_QUALITIES = np.arange(1, 101)
_PERCENT = np.where(_QUALITIES < 50, 5000 // _QUALITIES, 200 - 2 * _QUALITIES)
_TABLES = np.clip((_LUMINANCE * _PERCENT[:, None] + 50) // 100, 1, _LARGEST)  # int64 [100, 64], one a quality


def jpeg_quality(table: Sequence[int]) -> int:
    """The quality setting, 1 to 100, whose luminance table is nearest (mean absolute difference).

    The scale is that of the Independent JPEG Group's libjpeg (jcparam.c, `jpeg_quality_scaling` and
    `jpeg_add_quant_table`): the tables of ITU-T T.81 Annex K times 5000/q per cent below 50 and 200 - 2q from there on,
    rounded. No two qualities have the same table, so the setting of an encoder that uses it is found exactly; for one
    with tables of its own (Photoshop, many cameras) the number only says how coarse they are.

    Args:
        table: the 64 divisors of the luminance, rows top to bottom (not in zigzag order).
    """
    distance = np.abs(_TABLES - np.minimum(table, _LARGEST)).sum(axis=1)
    return int(_QUALITIES[distance.argmin()])
