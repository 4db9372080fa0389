"""The gap between two hospitals: what their films are, apart from what they show."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scarce.audit.subject import FrozenPipeline
from scarce.files import whole_folder, write_json
from scarce.looking.distances import (
    frechet,
    histograms,
    kernel_distance,
    log_spectral,
    spectra,
    told_apart,
    wasserstein,
)
from scarce.looking.gap_plot import plot_gap
from scarce.looking.halves import CONFIDENCE, Compared, Number, compare_halves, compared, draw_halves
from scarce.looking.sample import Sample

MEASURES = {
    "intensity": "grey levels a pixel is moved (Wasserstein-1)",
    "spectrum": "dB (log-spectral distance)",
    "features_frechet": "standard deviations a feature (Fréchet distance)",
    "features_mmd": "squared maximum mean discrepancy, cubic kernel",
    "told_apart": "AUC of a classifier for the hospital",
}
NAMES = {
    "intensity": "intensity",
    "spectrum": "spectrum",
    "features_frechet": "features, Fréchet",
    "features_mmd": "features, MMD²",
    "told_apart": "told apart, AUC",
}


def measure(samples: tuple[Sample, Sample], pipeline: FrozenPipeline, draws: int) -> dict[str, Compared]:
    """Every measure of `MEASURES`, on the same halves of the patients."""
    images = np.concatenate([sample.images for sample in samples])
    halves = draw_halves((len(samples[0].images), len(samples[1].images)), draws)
    features = pipeline.features(images)
    return {
        "intensity": compare_halves(wasserstein(histograms(images)), halves),
        "spectrum": compare_halves(log_spectral(spectra(images)), halves),
        "features_frechet": compare_halves(frechet(features), halves),
        "features_mmd": compare_halves(kernel_distance(features), halves),
        "told_apart": compared(*told_apart(features, halves)),
    }


def write_gap(
    out: Path, samples: tuple[Sample, Sample], pipeline: FrozenPipeline, backbone: str, draws: int
) -> dict[str, Any]:
    """Measure the gap, and write gap.json and gap.png to the new folder `out`; what the former holds.

    Args:
        out: a folder that does not exist.
        samples: of the two hospitals, of one size.
        pipeline: whose backbone sees the films.
        backbone: what it is called in the report.
        draws: of halves.
    """
    measures = measure(samples, pipeline, draws)
    report = {
        "hospitals": [sample.name for sample in samples],
        "patients": [len(sample.images) for sample in samples],
        "patients_a_half": min(len(sample.images) for sample in samples) // 2,
        "size": samples[0].images.shape[1],
        "backbone": backbone,
        "draws": draws,
        "confidence": CONFIDENCE,
        "measures": {
            name: {"unit": MEASURES[name], "shown": found.shown, **asdict(found)} for name, found in measures.items()
        },
        "sentence": sentence(samples, measures),
    }
    with whole_folder(out) as folder:
        write_json(folder / "gap.json", report)
        plot_gap(folder / "gap.png", samples, measures, NAMES, MEASURES)
    return report


def sentence(samples: tuple[Sample, Sample], measures: dict[str, Compared]) -> str:
    """What it comes to, in one or two plain sentences."""
    a, b = (sample.name for sample in samples)
    shown = [word for word in ("intensity", "spectrum") if measures[word].shown]
    if measures["features_frechet"].shown or measures["features_mmd"].shown:
        shown.append("features")
    auc = measures["told_apart"]
    told = f"with an AUC of {number_text(auc.between)}"
    classifier = (
        f"A classifier tells them apart {told}."
        if auc.shown
        else f"No classifier is shown to tell them apart ({told})."
    )
    if not shown:
        return f"No gap between {a} and {b} is shown. {classifier}"
    return f"{a} and {b} are further apart than halves of either in {_listed(shown)}. {classifier}"


def table(report: dict[str, Any]) -> str:
    """The measures in aligned columns, with their intervals."""
    a, b = report["hospitals"]
    rows = [["", f"{a} to {b}", f"within {a}", f"within {b}", "gap"]]
    for name, found in report["measures"].items():
        numbers = [Number(**found["between"]), *(Number(**within) for within in found["within"])]
        rows.append([NAMES[name], *map(number_text, numbers), "shown" if found["shown"] else "not shown"])
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def number_text(number: Number) -> str:
    """A number and its interval, with as many digits as its interval's width has use for."""
    width = max(number.high - number.low, 1e-12)
    digits = int(np.clip(1 - np.floor(np.log10(width)), 0, 5))
    value, low, high = (f"{round(part, digits) + 0.0:.{digits}f}" for part in (number.value, number.low, number.high))
    return f"{value} ({low} to {high})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
