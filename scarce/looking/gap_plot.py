"""The figure of a gap: what the films of both hospitals are like, and every distance beside its yardstick."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from scarce.looking.distances import histograms, spectra
from scarce.looking.halves import CONFIDENCE, Compared
from scarce.looking.sample import Sample
from scarce.report.drawing import (
    CHOSEN,
    FIRST,
    OTHER,
    TEXT,
    TITLE,
    grid_behind,
    interval_upright,
    legend_above,
    new_figure,
    wrapped,
    write_figure,
)

RESAMPLES = 200  # of the patients, behind the bands


def plot_gap(
    path: Path,
    samples: tuple[Sample, Sample],
    measures: Mapping[str, Compared],
    names: Mapping[str, str],
    units: Mapping[str, str],
) -> None:
    """Write the figure to `path` as PNG of 150 dpi, atomically.

    Above, the grey levels and the radial spectrum of either hospital; below, every measure with its interval between
    the hospitals, within the first and within the second.
    """
    figure = new_figure(11.0, 6.2)
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1.35, 1.0]))
    grey, power = above.subplots(1, 2)
    for sample, style in zip(samples, (FIRST, OTHER), strict=True):
        _band(grey, np.arange(256), histograms(sample.images) * 100, style)
        spectrum = spectra(sample.images)
        _band(power, np.arange(1, spectrum.shape[1] + 1), spectrum, style)
    # Films are stretched until a thousandth is black and another white, and collimated borders are black.
    top = max(np.sort((histograms(sample.images) * 100).mean(axis=0))[-4] for sample in samples)
    grey.set(ylim=(0, 1.15 * top), xlim=(0, 255))
    power.set(xscale="log", yscale="log")
    _label(grey, "intensity", "grey level", "% of pixels")
    _label(power, "spectrum", "periods a film's side", "power")
    for axes, (name, found) in zip(below.subplots(1, len(measures)), measures.items(), strict=True):
        _compare(axes, found)
        _label(axes, names[name], wrapped(units[name], 22), "")
    between = {**CHOSEN, "color": "black"}
    legend_above(figure, [(FIRST, samples[0].name), (OTHER, samples[1].name), (between, "between the two")])
    note = "bars and bands: 95% intervals; below: between halves of either hospital's patients, and between the two"
    figure.supxlabel(note, fontsize=TEXT)
    write_figure(path, figure)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, style: Mapping[str, str]) -> None:
    """The mean over films of curves [N, x] and its bootstrap interval over patients."""
    rng = np.random.default_rng(0)
    means = np.stack([values[rng.integers(len(values), size=len(values))].mean(axis=0) for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.25, linewidth=0)
    axes.plot(x, values.mean(axis=0), color=style["color"], linestyle=style["linestyle"], linewidth=1.6)


def _compare(axes: Axes, found: Compared) -> None:
    numbers = (found.within[0], found.within[1], found.between)
    for place, (number, style) in enumerate(zip(numbers, (FIRST, OTHER, {**CHOSEN, "color": "black"}), strict=True)):
        interval_upright(axes, place, number.value, number.low, number.high, style)
    axes.set_xlim(-0.6, 2.6)
    axes.set_xticks([])


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=TITLE, loc="left")
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    grid_behind(axes, "y")
