"""Two phantom hospitals: synthetic chest X-rays with known findings, so that everything runs without a download.

An image is a function of the hospital's seed, its patient's number and its own number, to the bit, whatever else is
drawn beside it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from scipy.ndimage import gaussian_filter

from scarce.data.phantom_anatomy import Chest, Parameters, draw_chest, draw_film, draw_patient, ramp, stack
from scarce.data.phantom_findings import ABSENT, FINDINGS, draw_finding
from scarce.data.schema import MANIFEST_NAME, REJECTED_SCHEMA, SCHEMA_VERSION, Manifest, Shard, image_schema
from scarce.data.store import (
    content_digest,
    lung_column,
    open_dataset,
    pixel_column,
    shard_name,
    write_dataset_files,
    write_shard,
)
from scarce.errors import UserError

GENERATOR_VERSION = 1  # part of every dataset's settings: another drawing is another dataset
SHARD_ROWS = 512
BATCH = 32  # images drawn at a time: their arrays fit the cache

# 5 × 7 bitmaps; hospitals write the side marker in their own size and weight.
_GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


@dataclass(frozen=True)
class HospitalStyle:
    """How a hospital's films differ from another's with the same patients."""

    exposure: float  # mean optical offset added to the attenuation
    exposure_sd: float
    contrast: float  # slope of the film curve
    toe: float  # exponent of the film curve: above 1 darkens the mid-tones
    noise: float  # standard deviation of the quantum noise, in intensities of [0, 1]
    blur: float  # sigma of the focal spot and scatter, as a share of the image's side
    field_of_view: float  # how much of the chest's coordinates fits; above 1 shows more around it
    border: float  # probability of a collimated (black) border
    marker: str  # the side marker's letter
    marker_size: float  # height, as a share of the image's side
    marker_place: tuple[float, float]  # of its top left corner: from the left, from the top
    ap_share: float  # probability that a film is AP


STYLES: dict[str, HospitalStyle] = {
    "a": HospitalStyle(-0.02, 0.03, 0.78, 1.15, 0.022, 0.004, 1.00, 0.10, "L", 0.10, (0.86, 0.03), 0.40),
    "b": HospitalStyle(0.04, 0.04, 0.68, 0.90, 0.032, 0.008, 1.07, 0.45, "R", 0.14, (0.03, 0.05), 0.20),
}


@dataclass(frozen=True)
class Confounding:
    """Ties one finding to a shortcut. Strength s: the shortcut is there in (1 + s)/2 of the images with the finding
    and in (1 - s)/2 of those without, so 0 is independent and 1 is a perfect give-away.
    """

    finding: str
    shortcut: Literal["marker", "brightness", "view"]
    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.finding not in FINDINGS or not 0 <= self.strength <= 1:
            raise UserError(
                f"confounding needs a strength in [0, 1] and one of {', '.join(FINDINGS)}; "
                f"got {self.strength} and {self.finding!r}"
            )


@dataclass(frozen=True)
class PhantomConfig:
    """A phantom hospital."""

    hospital: Literal["a", "b"]
    patients: int
    size: int = 64  # pixels a side
    seed: int = 0
    prevalence: float = 0.12  # probability of each finding in a patient
    images_a_patient: tuple[float, ...] = (0.5, 0.3, 0.15, 0.05)  # probabilities of 1, 2, ... images
    confounding: Confounding | None = None
    style: HospitalStyle | None = field(default=None)  # another look than the hospital's own

    def __post_init__(self) -> None:
        if self.patients < 1 or self.size < 16 or not 0 <= self.prevalence <= 1:
            raise UserError(
                f"a phantom needs at least 1 patient, 16 pixels and a prevalence in [0, 1]; "
                f"got {self.patients}, {self.size} and {self.prevalence}"
            )


PHANTOMS: dict[str, PhantomConfig] = {
    "phantom-a": PhantomConfig("a", patients=1150),
    "phantom-b": PhantomConfig("b", patients=1000),
}


@dataclass(frozen=True)
class Film:
    """One image before it is drawn: what a person would know of it, and its random numbers."""

    patient: int
    number: int
    view: str
    sex: str
    age: float  # years
    labels: tuple[str, ...]
    chest: dict[str, float]
    findings: dict[str, dict[str, float]]  # by name, ABSENT where there is none
    look: dict[str, float]
    noise_seed: tuple[int, ...]

    @property
    def image_id(self) -> str:
        """Sorts by patient, then by number."""
        return f"{self.patient:06d}_{self.number:02d}"


def plan_films(config: PhantomConfig) -> Iterator[Film]:
    """The hospital's films in image_id order."""
    key = [config.seed, ord(config.hospital)]
    style = config.style or STYLES[config.hospital]
    for patient in range(config.patients):
        rng = np.random.default_rng([*key, patient])
        sex = "F" if rng.random() < 0.45 else "M"
        age = float(np.clip(np.round(rng.normal(58, 16)), 18, 95))
        anatomy = draw_patient(rng, sex)
        drawn = {name: draw_finding(rng) for name in FINDINGS}
        labels = tuple(name for name in FINDINGS if rng.random() < config.prevalence)
        findings = {name: drawn[name] if name in labels else ABSENT for name in FINDINGS}
        count = 1 + int(rng.choice(len(config.images_a_patient), p=config.images_a_patient))
        for number in range(count):
            film_rng = np.random.default_rng([*key, patient, number + 1])
            shortcut = _shortcut(film_rng, config.confounding, labels)
            view = "AP" if film_rng.random() < style.ap_share else "PA"
            if "view" in shortcut:
                view = "AP" if shortcut["view"] else "PA"
            chest = {**anatomy, **draw_film(film_rng, view), **_domes(findings)}
            look = _draw_look(film_rng, style, view, shortcut)
            yield Film(patient, number, view, sex, age, labels, chest, findings, look, (*key, patient, number + 1, 1))


def _shortcut(rng: np.random.Generator, confounding: Confounding | None, labels: tuple[str, ...]) -> dict[str, bool]:
    if confounding is None:
        return {}
    tilt = confounding.strength if confounding.finding in labels else -confounding.strength
    return {confounding.shortcut: bool(rng.random() < 0.5 + tilt / 2)}


def _domes(findings: dict[str, dict[str, float]]) -> dict[str, float]:
    raised = {-1.0: 0.0, 1.0: 0.0}
    for name, finding in FINDINGS.items():
        f = findings[name]
        for side in raised:
            raised[side] += f["present"] * f["severity"] * finding.raises_both
            raised[side] += f["present"] * f["severity"] * finding.raises_dome * (side == f["side"])
    return {"raised_right": raised[-1.0], "raised_left": raised[1.0]}


def _draw_look(
    rng: np.random.Generator, style: HospitalStyle, view: str, shortcut: dict[str, bool]
) -> dict[str, float]:
    borders = rng.uniform(0, 0.09, 4) * (rng.random() < style.border)
    return {
        "exposure": style.exposure
        + float(rng.normal(0, style.exposure_sd))
        + 0.10 * ((shortcut["brightness"] - 0.5) if "brightness" in shortcut else 0),
        "contrast": style.contrast * float(np.exp(rng.normal(0, 0.05))),
        "toe": style.toe,
        "noise": style.noise * float(rng.uniform(0.7, 1.3)),
        "blur": style.blur * (1.3 if view == "AP" else 1.0),
        "field_of_view": style.field_of_view,
        **{name: float(width) for name, width in zip(("left", "right", "top", "bottom"), borders, strict=True)},
        "marker": float(rng.random() < 0.85),
        "marker_u": style.marker_place[0] + float(rng.uniform(-0.015, 0.015)),
        "marker_v": style.marker_place[1] + float(rng.uniform(-0.015, 0.015)),
        "sticker": float(shortcut.get("marker", False)),
    }


@dataclass(frozen=True)
class Drawing:
    """Drawn films: uint8 images [B, S, S], true lungs bool [B, S, S], and each film's boxes by finding."""

    images: np.ndarray
    lungs: np.ndarray
    boxes: list[list[dict[str, Any]]]


def draw(films: list[Film], config: PhantomConfig) -> Drawing:
    """Draw films: anatomy and findings, then the hospital's exposure, film curve, blur, noise, border and marker."""
    style = config.style or STYLES[config.hospital]
    looks = stack([film.look for film in films])
    chest = draw_chest(stack([film.chest for film in films]), config.size, looks["field_of_view"])
    attenuation, boxes = chest.attenuation, [[] for _ in films]  # type: tuple[np.ndarray, list[list[dict[str, Any]]]]
    for name, finding in FINDINGS.items():
        # Only the chests that have it are drawn again: a finding is rare.
        here = np.flatnonzero([name in film.labels for film in films])
        if not len(here):
            continue
        f = stack([films[i].findings[name] for i in here])
        part = _select(chest, here)
        attenuation[here] += f["severity"] * finding.draw(part, f)
        for i, box in zip(here, _to_image(finding.locate(part, f), part, looks["field_of_view"][here]), strict=True):
            boxes[i].append({"finding": name, **box})
    images = _develop(attenuation, films, looks, style)
    return Drawing(images, chest.lungs > 0.5, boxes)


def _select(chest: Chest, here: np.ndarray) -> Chest:
    grid = type(chest.grid)(chest.grid.u[here], chest.grid.v[here])
    return Chest(
        grid, chest.attenuation[here], chest.lungs[here], {name: value[here] for name, value in chest.p.items()}
    )


def _to_image(box: tuple[np.ndarray, ...], chest: Chest, field_of_view: np.ndarray) -> Iterator[dict[str, float]]:
    """Boxes in chest coordinates as shares of the image, clipped to it; the small tilt of a film is left out."""
    scale = field_of_view / chest.p["zoom"]
    left, right = ((((u - chest.p["shift_u"]) / scale) + 1) / 2 for u in (box[0], box[2]))
    top, bottom = ((((v - chest.p["shift_v"]) * 2 - 1) / scale + 1) / 2 for v in (box[1], box[3]))
    edges = [np.clip(edge, 0, 1).reshape(-1) for edge in (left, top, right, bottom)]
    for values in zip(*edges, strict=True):
        yield dict(zip(("left", "top", "right", "bottom"), map(float, values), strict=True))


def _develop(attenuation: np.ndarray, films: list[Film], look: Parameters, style: HospitalStyle) -> np.ndarray:
    size = attenuation.shape[1]
    light = np.clip((attenuation + look["exposure"]) * look["contrast"], 0, None)
    film = (1 - np.exp(-1.5 * light)) / (1 - np.exp(-1.5))
    film = np.clip(film, 0, 1.15) ** look["toe"]
    for i, one in enumerate(films):  # blur and noise are each image's own, so that no batch changes them
        film[i] = gaussian_filter(film[i], one.look["blur"] * size, mode="nearest")
        rng = np.random.default_rng(one.noise_seed)
        film[i] += np.float32(one.look["noise"]) * rng.standard_normal((size, size), np.float32)
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = line[None, None, :], line[None, :, None]
    open_field = (x > look["left"]) & (x < 1 - look["right"]) & (y > look["top"]) & (y < 1 - look["bottom"])
    film = np.where(open_field, film, 0.02)
    glyph = _glyph(style, x - look["marker_u"], y - look["marker_v"]) * look["marker"]
    sticker = ramp(0.035 - np.maximum(np.abs(x - 0.93), np.abs(y - 0.93)), 0.01) * look["sticker"]
    film = np.maximum(film, 0.95 * np.maximum(glyph, sticker))
    return (np.clip(film, 0, 1) * 255 + 0.5).astype(np.uint8)


def _glyph(style: HospitalStyle, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The side marker, anti-aliased by sampling each pixel's centre in a slightly smoothed bitmap."""
    bitmap = np.array([[int(c) for c in row] for row in _GLYPHS[style.marker]], np.float32)
    padded = np.pad(bitmap, 1)
    cell = style.marker_size / 7
    column, row = np.broadcast_arrays(np.clip(x / cell + 1, 0, 6.99), np.clip(y / cell + 1, 0, 8.99))
    return padded[row.astype(int), column.astype(int)]


def write_phantom(config: PhantomConfig, out: Path) -> Manifest:
    """Draw a hospital into the dataset folder `out`; one that is there already with these settings is kept."""
    settings = json.loads(json.dumps({**asdict(config), "generator_version": GENERATOR_VERSION}))
    if (out / MANIFEST_NAME).exists():
        if not _has_earlier_schema(out / MANIFEST_NAME):
            there = open_dataset(out).manifest
            if there.settings == settings:
                return there
            if there.source != "phantom":
                raise UserError(f"{out} holds another dataset (of {there.hospital}): choose another folder")
        (out / MANIFEST_NAME).unlink()
    hospital = f"phantom-{config.hospital}"
    films, shards = list(plan_films(config)), []
    for start in range(0, len(films), SHARD_ROWS):
        table = _table(films[start : start + SHARD_ROWS], config, hospital)
        shard = Shard(shard_name(start // SHARD_ROWS), table.num_rows, content_digest(table))
        write_shard(out / shard.name, table)
        shards.append(shard)
    return write_dataset_files(
        out,
        hospital=hospital,
        size=config.size,
        source="phantom",
        settings=settings,
        shards=shards,
        rejected=REJECTED_SCHEMA.empty_table(),
    )


def _has_earlier_schema(manifest: Path) -> bool:
    """Whether this is a phantom's manifest of an earlier schema version: it is drawn again, a hospital's is not."""
    try:
        value = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return False  # `open_dataset` says what is wrong with it
    drawn = isinstance(value, dict) and value.get("source") == "phantom"
    return drawn and value.get("schema_version") in range(1, SCHEMA_VERSION)


def _table(films: list[Film], config: PhantomConfig, hospital: str) -> pa.Table:
    drawings = [draw(films[i : i + BATCH], config) for i in range(0, len(films), BATCH)]
    count = len(films)
    columns = {
        "image_id": [film.image_id for film in films],
        "patient_id": [f"{film.patient:06d}" for film in films],
        "view": [film.view for film in films],
        "sex": [film.sex for film in films],
        "age": [film.age for film in films],
        "hospital": [hospital] * count,
        "source": [None] * count,
        "labels": [list(film.labels) for film in films],
        "raw_bits": [8] * count,
        "stretch_low": [0.0] * count,
        "stretch_high": [255.0] * count,
        "raw_width": [config.size] * count,
        "raw_height": [config.size] * count,
        "jpeg_quality": [None] * count,
        "boxes": [boxes for drawing in drawings for boxes in drawing.boxes],
        "lungs": lung_column(np.concatenate([drawing.lungs for drawing in drawings])),
        "pixels": pixel_column(np.concatenate([drawing.images for drawing in drawings])),
    }
    schema = image_schema(config.size)
    return pa.table(
        {
            name: column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
            for name, column in columns.items()
        },
        schema=schema,
    )
