"""Draws docs/scores.png: what `scarce apply` says of new phantom films, with the spread over the few labelled ones.

Usage: python docs/make_scores_figure.py RUN, the folder of a finished run with phantom-b as its target.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from PIL import Image

from scarce.audit_run import open_run
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.store import open_dataset
from scarce.publishing.apply import apply_model
from scarce.report.drawing import FIRST, OTHER, TEXT, grid_behind, interval_upright, legend_above, new_figure

OUT = Path(__file__).parent / "scores.png"
FINDING = "hemidiaphragm elevation"
NEW = PhantomConfig("b", patients=120, seed=1)  # other patients than phantom-b's


def scores_of(run: Path) -> pd.DataFrame:
    """Scores of the new films for the finding, and whether they show it; by score."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantom(NEW, Path(folder) / "new")
        apply_model(open_run(run), Path(folder) / "new", Path(folder) / "scores.csv")
        table = pd.read_csv(Path(folder) / "scores.csv", skiprows=1)
        labels = open_dataset(Path(folder) / "new").metadata().set_index("image_id")["labels"]
    table = table[table["finding"] == FINDING].sort_values("score", ignore_index=True)
    return table.assign(shown=[FINDING in labels[image] for image in table["image"]])


def main() -> None:
    """Write the figure."""
    table = scores_of(Path(sys.argv[1]))
    figure = new_figure(9.0, 3.4)
    axes = figure.subplots()
    without = {**FIRST, "color": "#999999", "linestyle": "none"}
    styles = {False: without, True: {**OTHER, "linestyle": "none", "zorder": 3}}
    for shown, style in styles.items():
        part = table[table["shown"] == shown]
        interval_upright(axes, part.index, part["score"], part["score_low"], part["score_high"], style)
    axes.set_xlabel(
        f"{len(table)} new films, by score; bars: lowest and highest over draws of the labelled films", fontsize=TEXT
    )
    axes.set_ylabel("score", fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    grid_behind(axes, "y")
    legend_above(figure, [(styles[True], FINDING), (styles[False], "without it")])
    figure.savefig(OUT)
    with Image.open(OUT) as picture:
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
