"""Phantom hospitals: one film, one image; findings inside their boxes; knobs that do what they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scarce.data.hospitals import open_hospital
from scarce.data.phantom import (
    PHANTOMS,
    STYLES,
    Confounding,
    Drawing,
    Film,
    PhantomConfig,
    draw,
    plan_films,
    write_phantom,
)
from scarce.data.phantom_findings import ABSENT, FINDINGS
from scarce.data.schema import MANIFEST_NAME, SCHEMA_VERSION
from scarce.data.store import open_dataset, write_shard
from scarce.errors import UserError
from scarce.fewshot.baselines import pixel_statistics

HOSPITALS = ("a", "b")
SPREAD = ("interstitial pattern", "pulmonary fibrosis", "reticular interstitial pattern")  # through both lungs
MOVES_ANATOMY = "hemidiaphragm elevation"  # adds nothing: the chest itself is another
LOCAL = tuple(name for name in FINDINGS if name not in (*SPREAD, MOVES_ANATOMY))


def quiet(config: PhantomConfig) -> PhantomConfig:
    """The same hospital without noise, border and blur."""
    return replace(config, style=replace(STYLES[config.hospital], noise=0.0, border=0.0, blur=0.0))


def draw_all(config: PhantomConfig) -> tuple[list[Film], Drawing]:
    films = list(plan_films(config))
    return films, draw(films, config)


def with_and_without(film: Film, name: str, config: PhantomConfig) -> tuple[np.ndarray, dict[str, float]]:
    """What a finding changes in a film, |grey levels| [S, S], and its box."""
    rng = np.random.default_rng(film.noise_seed)
    finding = {key: float(rng.uniform(0.2, 0.8)) for key in ABSENT}
    finding |= {"present": 1.0, "severity": 1.0, "side": float(rng.choice([-1.0, 1.0]))}
    sick = draw([replace(film, labels=(name,), findings={**film.findings, name: finding})], config)
    healthy = draw([replace(film, labels=())], config)
    (box,) = sick.boxes[0]
    assert box.pop("finding") == name
    return np.abs(sick.images[0].astype(int) - healthy.images[0]), box


def share_inside(change: np.ndarray, box: dict[str, float], margin: float) -> float:
    """The share of a change that lies in a box widened by `margin` of the image's side."""
    size = len(change)
    top, left = (max(0, int(np.floor((box[edge] - margin) * size))) for edge in ("top", "left"))
    bottom, right = (int(np.ceil((box[edge] + margin) * size)) for edge in ("bottom", "right"))
    return float(change[top:bottom, left:right].sum() / change.sum())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), hospital=st.sampled_from(HOSPITALS), batch=st.integers(1, 7))
def test_an_image_does_not_depend_on_what_is_drawn_beside_it(seed: int, hospital: str, batch: int) -> None:
    config = PhantomConfig(hospital, patients=4, seed=seed, prevalence=0.3)  # type: ignore[arg-type]
    films, whole = draw_all(config)
    parts = [draw(films[i : i + batch], config) for i in range(0, len(films), batch)]
    assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
    assert [boxes for part in parts for boxes in part.boxes] == whole.boxes


def test_more_patients_leave_the_first_ones_as_they_were() -> None:
    few, many = (list(plan_films(PhantomConfig("b", patients=n))) for n in (5, 20))
    assert few == many[: len(few)]


def test_seed_and_hospital_change_the_images() -> None:
    base = PhantomConfig("a", patients=3, images_a_patient=(1.0,))
    first, seed, hospital = (draw_all(c)[1].images for c in (base, replace(base, seed=1), replace(base, hospital="b")))
    assert not np.array_equal(first, seed)
    assert not np.array_equal(first, hospital)


def test_several_images_of_a_patient_show_the_same_findings_in_other_noise() -> None:
    films, drawing = draw_all(PhantomConfig("a", patients=30, images_a_patient=(0.0, 1.0)))
    for first, second in zip(range(0, 60, 2), range(1, 60, 2), strict=True):
        one, other = films[first], films[second]
        assert (one.patient, one.labels, one.findings, one.sex, one.age) == (
            other.patient,
            other.labels,
            other.findings,
            other.sex,
            other.age,
        )
        assert not np.array_equal(drawing.images[first], drawing.images[second])


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_anatomy_lies_where_a_chest_has_it(hospital: str) -> None:
    config = quiet(PhantomConfig(hospital, patients=40, prevalence=0.0))  # type: ignore[arg-type]
    _, drawing = draw_all(config)
    images, lungs = drawing.images.astype(float), drawing.lungs
    share = lungs.mean((1, 2))
    assert ((share > 0.10) & (share < 0.50)).all()
    inside = (images * lungs).sum((1, 2)) / lungs.sum((1, 2))
    assert (inside < images[:, 20:44, 30:34].mean((1, 2))).all()  # air is darker than the spine
    assert (inside < images[:, 58:62, 20:44].mean((1, 2))).all()  # and than the abdomen
    # The heart lies to the patient's left, on the right of the image, and takes that lung's room.
    assert (lungs[:, :, :32].sum((1, 2)) > lungs[:, :, 32:].sum((1, 2))).mean() > 0.9


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_finding_lies_in_its_box(name: str) -> None:
    config = quiet(PhantomConfig("a", patients=25, prevalence=0.0, images_a_patient=(1.0,)))
    shares, areas = [], []
    for film in plan_films(config):
        change, box = with_and_without(film, name, config)
        shares.append(share_inside(change, box, margin=0.03))
        areas.append((box["right"] - box["left"]) * (box["bottom"] - box["top"]))
    assert np.median(shares) > 0.9
    assert min(shares) > 0.7
    assert max(areas) < 0.15  # a box of the whole image would hold everything


@pytest.mark.parametrize("name", SPREAD)
def test_a_spread_finding_lies_in_both_lungs(name: str) -> None:
    config = quiet(PhantomConfig("a", patients=10, prevalence=0.0, images_a_patient=(1.0,)))
    for film in plan_films(config):
        change, box = with_and_without(film, name, config)
        assert share_inside(change, box, margin=0.04) > 0.9
        assert change[:, :32].max() > 5
        assert change[:, 32:].max() > 5


def test_elevation_raises_the_hemidiaphragm_of_its_side() -> None:
    config = quiet(PhantomConfig("a", patients=60, prevalence=0.3, images_a_patient=(1.0,)))
    seen = 0
    for film in plan_films(config):
        if MOVES_ANATOMY not in film.labels:
            continue
        side = film.findings[MOVES_ANATOMY]["side"]
        raised, other = ("raised_left", "raised_right") if side > 0 else ("raised_right", "raised_left")
        assert film.chest[raised] > film.chest[other]
        level = draw([replace(film, chest=film.chest | {raised: 0.0})], config)
        elevated = draw([film], config)
        half = slice(32, 64) if side > 0 else slice(0, 32)
        assert elevated.lungs[0][:, half].sum() < level.lungs[0][:, half].sum()  # that lung is smaller
        seen += 1
    assert seen > 5


def test_hospitals_can_be_told_apart_by_their_grey_levels_and_views() -> None:
    films, drawings = zip(
        *(draw_all(PhantomConfig(h, patients=120, images_a_patient=(1.0,))) for h in ("a", "b")), strict=True
    )
    features = np.concatenate([pixel_statistics(drawing.images) for drawing in drawings])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    assert cross_val_score(model, features, [0] * 120 + [1] * 120, scoring="roc_auc").mean() > 0.9
    ap_a, ap_b = (np.mean([film.view == "AP" for film in part]) for part in films)
    assert ap_a > ap_b


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shortcut", ["marker", "brightness", "view"])
def test_a_confounder_is_as_strong_as_it_says(shortcut: str, strength: float) -> None:
    def plan(which: str) -> list[Film]:
        confounding = Confounding("pulmonary mass", which, strength)  # type: ignore[arg-type]
        hospital = PhantomConfig("b", patients=600, prevalence=0.5, confounding=confounding, images_a_patient=(1.0,))
        return list(plan_films(hospital))

    films, other = plan(shortcut), plan("view" if shortcut == "marker" else "marker")
    sick = np.array(["pulmonary mass" in film.labels for film in films])
    there = {
        "marker": lambda: [film.look["sticker"] == 1 for film in films],
        "view": lambda: [film.view == "AP" for film in films],
        # The same films with another shortcut have the same exposure but for this one's step.
        "brightness": lambda: [
            film.look["exposure"] > plain.look["exposure"] for film, plain in zip(films, other, strict=True)
        ],
    }[shortcut]()
    assert np.mean(there, where=sick) == pytest.approx((1 + strength) / 2, abs=0.07)
    assert np.mean(there, where=~sick) == pytest.approx((1 - strength) / 2, abs=0.07)


def test_the_marker_shortcut_is_seen_in_the_corner() -> None:
    confounding = Confounding("pulmonary mass", "marker", 1.0)
    config = PhantomConfig("a", patients=60, prevalence=0.5, confounding=confounding, images_a_patient=(1.0,))
    films, drawing = draw_all(config)
    sick = np.array(["pulmonary mass" in film.labels for film in films])
    corner = drawing.images[:, 58:61, 58:61].mean((1, 2))
    assert corner[sick].min() > 230 > corner[~sick].max()


def test_the_dataset_is_written_whole_and_kept_when_it_is_up_to_date(tmp_path: Path) -> None:
    config = PhantomConfig("a", patients=12, size=256, prevalence=0.5)
    manifest = write_phantom(config, tmp_path / "a")
    dataset = open_dataset(tmp_path / "a")
    films, drawing = draw_all(config)
    assert np.array_equal(dataset.pixels(), drawing.images)
    assert (manifest.size, manifest.images, manifest.patients) == (256, len(films), 12)
    lungs = dataset.lungs()
    assert lungs is not None
    assert lungs.dtype == bool
    assert np.array_equal(lungs, drawing.lungs)
    metadata = dataset.metadata()
    assert (metadata[["raw_width", "raw_height"]] == 256).all(axis=None)
    assert metadata["jpeg_quality"].isna().all()
    assert [list(labels) for labels in metadata["labels"]] == [list(film.labels) for film in films]
    assert [[box["finding"] for box in boxes] for boxes in metadata["boxes"]] == [
        [name for name in FINDINGS if name in film.labels] for film in films
    ]
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    write_phantom(config, tmp_path / "a")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == written

    other = write_phantom(replace(config, seed=1), tmp_path / "a")
    again = write_phantom(config, tmp_path / "b")
    assert other.digest != manifest.digest == again.digest


def test_another_hospitals_folder_is_never_written_over(tmp_path: Path) -> None:
    config = PhantomConfig("a", patients=2)
    write_phantom(config, tmp_path)
    manifest = tmp_path / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace('"source": "phantom"', '"source": "nih"'))
    before = manifest.read_bytes()
    with pytest.raises(UserError, match="choose another folder"):
        write_phantom(replace(config, seed=1), tmp_path)
    assert manifest.read_bytes() == before


def age_by_a_schema(folder: Path) -> None:
    """Make a dataset what an earlier version wrote: without the columns that came later."""
    for shard in folder.glob("shard-*"):
        later = ["raw_width", "raw_height", "jpeg_quality", "lungs"]
        write_shard(shard, pq.read_table(shard).drop_columns(later))
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest | {"schema_version": 1}))


def test_a_phantom_of_an_earlier_schema_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PHANTOMS, "phantom-a", PhantomConfig("a", patients=5))
    new = open_hospital("phantom-a")
    pixels, lungs = new.pixels(), new.lungs()
    age_by_a_schema(new.path)
    with pytest.raises(UserError, match="version 1, expected 2: delete its folder and draw it again"):
        open_dataset(new.path)
    again = open_hospital("phantom-a")
    assert again == new
    assert np.array_equal(again.pixels(), pixels)
    assert lungs is not None
    assert np.array_equal(again.lungs(), lungs)

    age_by_a_schema(new.path)
    other = write_phantom(PhantomConfig("a", patients=5, seed=1), new.path)  # also with other settings
    assert other == open_dataset(new.path).manifest != new.manifest


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"source": "phantom", "schema_version": SCHEMA_VERSION + 1}, "expected 2: delete its folder"),
        ({"source": "/data/nih", "schema_version": 1}, "expected 2: convert it again"),
        ({"source": "phantom"}, "expected 2"),
        ({"source": "phantom", "schema_version": "1"}, "expected 2"),
    ],
)
def test_no_other_dataset_is_drawn_over(tmp_path: Path, manifest: dict[str, object], message: str) -> None:
    path = tmp_path / MANIFEST_NAME
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        write_phantom(PhantomConfig("a", patients=2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]
    assert json.loads(path.read_text()) == manifest


def test_a_damaged_manifest_is_not_drawn_over(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"source": "phantom", "schema_version": 1')
    with pytest.raises(UserError, match="is not a dataset manifest"):
        write_phantom(PhantomConfig("a", patients=2), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PhantomConfig("a", patients=0),
        lambda: PhantomConfig("a", patients=1, size=8),
        lambda: PhantomConfig("a", patients=1, prevalence=1.5),
        lambda: Confounding("cough", "marker", 0.5),
        lambda: Confounding("pulmonary mass", "marker", 1.1),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError):
        wrong()
