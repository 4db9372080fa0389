"""Draws docs/phantom.png: healthy films of both phantom hospitals, and each finding with a box where it truly is."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from scarce.data.phantom import Film, PhantomConfig, draw, plan_films
from scarce.data.phantom_findings import FINDINGS

SIZE = 256
COLUMNS = 6
OUT = Path(__file__).parent / "phantom.png"


def films_with(labels: tuple[str, ...], config: PhantomConfig) -> Iterator[Film]:
    """The hospital's films with exactly these findings, one a patient."""
    return (film for film in plan_films(config) if film.labels == labels and film.number == 0)


def show(axes: Axes, film: Film, config: PhantomConfig, title: str) -> None:
    """Draw one film with its boxes."""
    drawing = draw([film], config)
    axes.imshow(drawing.images[0], cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0), interpolation="none")
    for box in drawing.boxes[0]:
        corner, width, height = (box["left"], box["top"]), box["right"] - box["left"], box["bottom"] - box["top"]
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="#ffb000", linewidth=0.9))
    axes.set_title(title, fontsize=10, pad=4)
    axes.set_axis_off()


def main() -> None:
    """Write the figure."""
    hospitals = [PhantomConfig(hospital, patients=2000, size=SIZE) for hospital in ("a", "b")]
    panels: list[tuple[Film, PhantomConfig, str]] = []
    for config in hospitals:
        healthy = films_with((), config)
        panels += [(next(healthy), config, f"hospital {config.hospital.upper()}") for _ in range(COLUMNS)]
    at_b = hospitals[1]
    for name in FINDINGS:
        panels.append((next(films_with((name,), at_b)), at_b, name))

    rows = -(-len(panels) // COLUMNS)
    side = SIZE / 150  # inches, so that a film's pixel is a pixel of the figure
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(COLUMNS * side * 1.04, rows * (side + 0.28)), dpi=150)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        show(axes, *panel)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.965, bottom=0.005, wspace=0.04, hspace=0.16)
    figure.savefig(OUT)
    with Image.open(OUT) as picture:
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
