"""Contact sheets: films in rows with a name, each film with a caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scarce.report.drawing import TEXT, TITLE, new_figure, wrapped, write_figure

SIDE = 1.35  # inches of a film
NAME_SIDE = 1.9  # inches of the rows' names
NAME_LETTERS = 22  # of a name on one line


@dataclass(frozen=True, eq=False)
class Row:
    """One line of a sheet.

    Attributes:
        name: of the line, at its left.
        note: what is below the name.
        images: uint8 [N, S, S].
        captions: of the images, N.
    """

    name: str
    note: str
    images: np.ndarray
    captions: Sequence[str]


def write_sheet(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Write `sheet_figure` to `path` as PNG of 150 dpi, atomically."""
    write_figure(path, sheet_figure(title, rows))


def sheet_figure(title: str, rows: Sequence[Row]) -> Figure:
    """The rows below each other; black is 0 and white 255 in every image, so that brightness can be compared."""
    columns = max(len(row.captions) for row in rows)
    figure = new_figure(NAME_SIDE + SIDE * columns, (SIDE + 0.2) * len(rows) + 0.5)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr,call-arg]
    figure.suptitle(wrapped(title, int(15 * figure.get_figwidth() * 72 / TEXT / 10)), fontsize=TITLE, x=0.01, ha="left")
    grid = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[NAME_SIDE / SIDE, *[1.0] * columns])
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].text(0, 0.5, _name(row), fontsize=TEXT, va="center", transform=line[0].transAxes)
        for axes, image, caption in zip(line[1:], row.images, row.captions, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            axes.set_title(caption, fontsize=TEXT, pad=2)
    return figure


def _name(row: Row) -> str:
    return "\n".join(wrapped(text, NAME_LETTERS) for text in (row.name, row.note) if text)
