"""What a converted dataset holds, as plain text."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from scarce.data.store import Dataset, pixel_array

AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, np.inf))
PERCENTILES = (1, 25, 50, 75, 99)


def describe(dataset: Dataset) -> str:
    """Counts by finding, view, sex, age and patient, and statistics of the pixels; aligned lines."""
    manifest = dataset.manifest
    rows = dataset.metadata()
    a_patient = rows.groupby("patient_id").size()
    sections = [
        f"{manifest.hospital}: {manifest.images:,} images of {manifest.patients:,} patients, "
        f"{manifest.size} x {manifest.size} pixels\nfrom {manifest.source}",
        _section(
            "images",
            {
                "labelled": manifest.labelled,
                "unlabelled": manifest.images - manifest.labelled,
                "rejected": manifest.rejected,
            },
        ),
        _section("rejected", manifest.rejected_by_reason),
        _section("finding", dict(Counter(manifest.labels).most_common())),
        _section("view", _counts(rows["view"])),
        _section("sex", _counts(rows["sex"])),
        _section("age", _age_bands(rows["age"])),
        _section("source", _counts(rows["source"]) if rows["source"].notna().any() else {}),
        _section("bits a raw pixel", _counts(rows["raw_bits"])),
        _section("raw width (pixels)", _range(rows["raw_width"])),
        _section("raw height (pixels)", _range(rows["raw_height"])),
        _section("JPEG quality", _range(rows["jpeg_quality"].dropna())),
        _section(
            "images a patient",
            {"median": f"{a_patient.median():.1f}", "mean": f"{a_patient.mean():.2f}", "most": int(a_patient.max())},
        ),
        _section("pixels (0 to 255)", _pixel_statistics(pixel_histogram(dataset))),
    ]
    return "\n\n".join(section for section in sections if section)


def pixel_histogram(dataset: Dataset) -> np.ndarray:
    """How often each gray level occurs in all images: int64 [256]. Reads some hundred images at a time."""
    counts = np.zeros(256, np.int64)
    for part in dataset.parts(["pixels"]):
        for chunk in part["pixels"].chunks:
            counts += np.bincount(pixel_array(chunk, dataset.manifest.size).ravel(), minlength=256)
    return counts


def _pixel_statistics(histogram: np.ndarray) -> dict[str, str]:
    levels = np.arange(256)
    share = histogram / histogram.sum()
    mean = float(share @ levels)
    statistics = {"mean": f"{mean:.1f}", "std": f"{np.sqrt(share @ (levels - mean) ** 2):.1f}"}
    ranks = np.searchsorted(np.cumsum(share), np.array(PERCENTILES) / 100)
    return statistics | {f"{percentile}%": f"{rank}" for percentile, rank in zip(PERCENTILES, ranks, strict=True)}


def _counts(column: pd.Series) -> dict[str, int]:
    values = Counter("unknown" if pd.isna(value) else str(value) for value in column)
    return dict(sorted(values.items(), key=lambda item: (item[0] == "unknown", item[0])))


def _range(values: pd.Series) -> dict[str, str]:
    if values.empty:
        return {}
    return {"least": f"{values.min():.0f}", "median": f"{values.median():.0f}", "most": f"{values.max():.0f}"}


def _age_bands(ages: pd.Series) -> dict[str, int]:
    bands = {
        f"{low}-{high - 1}" if high < np.inf else f"{low}+": int(((ages >= low) & (ages < high)).sum())
        for low, high in AGE_BANDS
    }
    return {name: count for name, count in (bands | {"unknown": int(ages.isna().sum())}).items() if count}


def _section(title: str, values: Mapping[str, int | str]) -> str:
    """A heading and lines of a name and a number, the numbers right-aligned; "" if there is nothing to tell."""
    if not values:
        return ""
    shown = {name: value if isinstance(value, str) else f"{value:,}" for name, value in values.items()}
    name_width = max(len(name) for name in shown)
    value_width = max(len(value) for value in shown.values())
    return "\n".join([title, *(f"  {name:<{name_width}}  {value:>{value_width}}" for name, value in shown.items())])
