import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import FINDING, SIZE, films_of, gray_films, has_it, hospital_of, pixel_pipeline, subject_of

from scarce.audit import where_it_looked as module
from scarce.audit.audits import AUDITS, report_json, run_audits
from scarce.audit.regions import thorax_box
from scarce.audit.saliency import ProbedNetwork
from scarce.audit.subject import Subject
from scarce.audit.verdicts import AuditResult, CannotRun, Row
from scarce.audit.where_it_looked import MOST, where_it_looked
from scarce.data.store import Dataset

AUDIT = [audit for audit in AUDITS if audit.key == "where_it_looked"]
LUNGS = np.zeros((SIZE, SIZE), dtype=bool)
LUNGS[8:24, 6:14] = LUNGS[8:24, 18:26] = True  # a quarter of the film
BOX = {"finding": FINDING, "left": 0.25, "top": 0.5, "right": 0.375, "bottom": 0.625}  # 4 × 4 pixels

Maps = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two films a patient; every other film with the finding has a box, beside one of something else."""
    rng = np.random.default_rng(0)
    table = films_of(400, rng)
    table["patient_id"] = [f"{number // 2:05d}" for number in range(400)]
    boxed = has_it(table) & (np.arange(400) % 2 == 0)
    table["boxes"] = pd.Series(
        [[{**BOX, "finding": "hernia", "left": 0.0}, BOX] if one else None for one in boxed], dtype=object
    )
    return hospital_of(tmp_path_factory.mktemp("here"), table, gray_films(400, rng))


@pytest.fixture(scope="module")
def subject(hospital: Dataset) -> Subject:
    made = subject_of(hospital, frozen=pixel_pipeline())
    return replace(made, lungs=np.repeat(LUNGS[None], len(made.task.images), axis=0))


def explained(monkeypatch: pytest.MonkeyPatch, cam: Maps, covered: Maps | None = None) -> None:
    """Let the maps be a function of the films."""
    monkeypatch.setattr(module, "grad_cam", lambda network, images: cam(images).astype(np.float32))
    monkeypatch.setattr(module, "occlusion", lambda network, images: (covered or cam)(images).astype(np.float32))


def constant(heat: np.ndarray) -> Maps:
    return lambda images: np.repeat(heat[None], len(images), axis=0)


def sloped(region: np.ndarray) -> np.ndarray:
    """Mass in a region only, not the same everywhere: a constant map agrees with none."""
    slope = np.add.outer(np.arange(SIZE), np.arange(SIZE)) + 1.0
    return region * slope


def audit(subject: Subject) -> AuditResult:
    return run_audits(subject, AUDIT).results[0]


def the_row(result: AuditResult) -> Row:
    (row,) = result.found.rows
    return row


class TestVerdicts:
    def test_a_model_that_looks_at_the_lungs_passes(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        explained(monkeypatch, constant(sloped(LUNGS)))
        result = audit(subject)
        numbers = the_row(result).numbers
        assert result.verdict == "passes"
        assert numbers["Grad-CAM in the lungs"].value == pytest.approx(1)
        assert numbers["more than the lungs' share of the film"].value == pytest.approx(0.75)
        assert numbers["agreement with occlusion"].value == pytest.approx(1)
        assert [numbers[name].scale for name in numbers] == ["share", "excess", "correlation", "share", "excess"]

    def test_a_model_that_looks_elsewhere_fails(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        explained(monkeypatch, constant(sloped(~LUNGS)))
        result = audit(subject)
        assert result.verdict == "fails"
        assert the_row(result).numbers["more than the lungs' share of the film"].value == pytest.approx(-0.25)

    def test_what_occlusion_contradicts_can_not_be_told(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        for region in (LUNGS, ~LUNGS):
            explained(monkeypatch, constant(sloped(region)), constant(sloped(~region)))
            result = audit(subject)
            assert the_row(result).numbers["agreement with occlusion"].value < 0
            assert (result.verdict, the_row(result).p) == ("can't tell", None)
            assert "Occlusion does not agree" in the_row(result).words

    def test_maps_that_are_spread_over_the_film_at_random_can_not_be_told(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ):
        def noise(images: np.ndarray) -> np.ndarray:
            """The same for the same film, whoever asks."""
            seeds = images.sum(axis=(1, 2), dtype=int)
            return np.stack([np.random.default_rng(seed).random((SIZE, SIZE)) for seed in seeds])

        explained(monkeypatch, noise)
        result = audit(subject)
        assert abs(the_row(result).numbers["more than the lungs' share of the film"].value) < 0.02
        assert result.verdict == "can't tell"

    @pytest.mark.parametrize("heat", [0.0, 1.0])
    def test_empty_and_even_maps_can_not_be_told_and_are_json(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch, heat: float
    ):
        explained(monkeypatch, constant(np.full((SIZE, SIZE), heat)))
        report = run_audits(subject, AUDIT)
        row = the_row(report.results[0])
        assert row.verdict == "can't tell"
        assert math.isnan(row.numbers["Grad-CAM in the lungs"].value) == (heat == 0)
        assert math.isnan(row.numbers["agreement with occlusion"].value)
        json.dumps(report_json(report), allow_nan=False)

    def test_empty_maps_among_others_are_left_out(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        def some(images: np.ndarray) -> np.ndarray:
            return constant(sloped(LUNGS))(images) * (images[:, 0, 0] % 3 > 0)[:, None, None]

        explained(monkeypatch, some)
        row = the_row(audit(subject))
        assert row.numbers["Grad-CAM in the lungs"].value == pytest.approx(1)


class TestFilms:
    def test_the_surest_films_are_explained_one_a_patient(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        asked: list[np.ndarray] = []

        def record(images: np.ndarray) -> np.ndarray:
            asked.append(images)
            return constant(sloped(LUNGS))(images)

        explained(monkeypatch, record)
        where_it_looked(subject)
        rows, truth = subject.task.evaluated[0], subject.task.truth(0)
        scores = dict(zip(rows[truth].tolist(), subject.scores.values[0][0, 0][truth].tolist(), strict=True))
        best: dict[str, int] = {}
        for row in sorted(scores, key=scores.__getitem__, reverse=True):
            best.setdefault(subject.task.patients[row], row)
        expected = list(best.values())[:MOST]
        assert len(expected) == MOST
        assert np.array_equal(asked[0], subject.task.images[expected])
        # Then one after the other those that are checked, with the finding and without, by both.
        assert [len(images) for images in asked[1:]] == [1] * 8
        assert np.array_equal(asked[1][0], subject.task.images[expected[0]])

    def test_pictures_show_the_surest_film_of_either_kind_by_both_methods(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ):
        explained(monkeypatch, constant(sloped(LUNGS)))
        exhibits = where_it_looked(subject).exhibits
        assert [exhibit.caption for exhibit in exhibits] == [
            f"{FINDING}: {case}, and scores highest ({how})"
            for case in ("has it", "has it not")
            for how in ("Grad-CAM", "occlusion")
        ]
        for exhibit in exhibits:
            assert exhibit.heat.min() == 0
            assert exhibit.heat.max() == 1
            assert np.array_equal(exhibit.outline, LUNGS)
        assert all(exhibit.box is None for exhibit in exhibits[2:])


def boxed_share(subject: Subject, monkeypatch: pytest.MonkeyPatch, box: dict, heat: np.ndarray) -> tuple[float, float]:
    """The share of a map in a box, and how far that is above the box's share of the film."""
    films = subject.films.copy()
    films["boxes"] = [None if boxes is None else [box] for boxes in films["boxes"]]
    changed = replace(subject)
    changed.__dict__["films"] = films
    explained(monkeypatch, constant(heat))
    numbers = the_row(audit(changed)).numbers
    return numbers["Grad-CAM in the finding's box"].value, numbers["more than the box's share of the film"].value


class TestBoxes:
    def test_the_share_in_the_findings_own_box(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        inside[16:20, 8:12] = True
        heat = np.where(inside, 3.0, 1.0)
        share, excess = boxed_share(subject, monkeypatch, BOX, heat)
        assert share == pytest.approx(3 * 16 / (3 * 16 + SIZE**2 - 16))
        assert excess == pytest.approx(share - 16 / SIZE**2)

    @pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.26), (0.999, 0.4), (1.0, 1.0)])
    def test_a_box_smaller_than_a_pixel_holds_one(self, subject: Subject, monkeypatch: pytest.MonkeyPatch, at):
        x, y = at
        box = {"finding": FINDING, "left": x, "right": x, "top": y, "bottom": y}
        row, column = min(SIZE - 1, int(y * SIZE)), min(SIZE - 1, int(x * SIZE))
        heat = np.ones((SIZE, SIZE))
        heat[row, column] = 1001
        share, excess = boxed_share(subject, monkeypatch, box, heat)
        assert share == pytest.approx(1001 / (1000 + SIZE**2))
        assert excess == pytest.approx(share - 1 / SIZE**2)

    def test_a_finding_without_boxes_has_no_such_numbers(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        explained(monkeypatch, constant(sloped(LUNGS)))
        changed = replace(subject)
        changed.__dict__["films"] = subject.films.assign(boxes=None)
        assert not any("box" in name for name in the_row(audit(changed)).numbers)


class TestWithoutMaps:
    def test_without_masks_the_thorax_stands_for_the_lungs(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        explained(monkeypatch, constant(sloped(thorax_box(SIZE))))
        found = where_it_looked(replace(subject, lungs=None))
        assert any("no lung masks" in note for note in found.notes)
        share = thorax_box(SIZE).mean()
        excess = found.rows[0].numbers["more than the lungs' share of the film"].value
        assert excess == pytest.approx(1 - share)

    def test_masks_that_can_not_be_used_are_not_replaced_by_a_box(self, subject: Subject):
        with pytest.raises(CannotRun, match="no such folder"):
            where_it_looked(replace(subject, lungs=None, unusable_masks="no such folder"))

    def test_fine_tuning_says_why(self, subject: Subject):
        with pytest.raises(CannotRun, match="fine-tuned networks differ"):
            where_it_looked(replace(subject, frozen=None))

    def test_a_transformer_is_explained_by_occlusion_alone(self, subject: Subject, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "grad_cam", lambda *_: pytest.fail("a transformer has no maps"))
        monkeypatch.setattr(module, "occlusion", lambda _, images: constant(sloped(LUNGS))(images))
        monkeypatch.setattr(subject.frozen.backbone, "convolutional", False)
        found = where_it_looked(subject)
        assert "occlusion in the lungs" in found.rows[0].numbers
        assert any("transformer" in note for note in found.notes)


def test_the_maps_of_the_network_itself(subject: Subject):
    """Nothing made up: a probe on a network, explained from end to end, twice the same."""
    network = ProbedNetwork(subject.frozen, subject.task, 0)
    rows = subject.task.evaluated[0]
    scores = network(network.input(subject.task.images[rows])).detach().numpy()
    assert np.allclose(scores, subject.scores.values[0][0, 0])
    first, again = (where_it_looked(subject).rows[0] for _ in range(2))
    assert first == again
    assert 0 <= first.numbers["Grad-CAM in the lungs"].value <= 1
