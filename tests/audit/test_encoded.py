from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_up import (
    FINDING,
    PROTOCOL,
    films_of,
    gray_films,
    has_it,
    hospital_of,
    pixel_pipeline,
    read,
    splits,
    subject_of,
)

from scarce.audit import encoded
from scarce.audit.audits import AUDITS, run_audits
from scarce.audit.encoded import encoded_attributes
from scarce.audit.subject import Subject
from scarce.audit.verdicts import Found, Row
from scarce.data.store import Dataset

AUDIT = [audit for audit in AUDITS if audit.key == "encoded_attributes"]
BELOW, CENTRE = (slice(None), slice(28, 32)), (slice(None), slice(12, 20), slice(12, 20))

read_the_view = read(lambda images: images[BELOW].mean(axis=(1, 2)))
read_the_finding = read(lambda images: images[CENTRE].mean(axis=(1, 2)))


def draw(folder: Path, tied_in: tuple[str, ...], shown: int = 12, patients: int = 500, ap: float = 0.5) -> Dataset:
    """A bright centre is the finding, a bright lower edge (by `shown` gray levels) an AP film.

    In the splits named, 80% of the films with the finding are AP and 20% of those without; in the others `ap` of both.
    """
    rng = np.random.default_rng(0)
    table = films_of(patients, rng)
    has = has_it(table)
    tied = np.isin(splits(table, "here"), tied_in)
    is_ap = rng.random(patients) < np.where(tied, np.where(has, 0.8, 0.2), ap)
    images = gray_films(patients, rng)
    images[CENTRE] += (12 * has[:, None, None]).astype(np.uint8)
    images[BELOW] += (shown * is_ap[:, None, None]).astype(np.uint8)
    return hospital_of(folder, table.assign(view=np.where(is_ap, "AP", "PA")), images)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw(tmp_path_factory.mktemp("tied"), ("pool", "val", "test"))


@pytest.fixture(scope="module")
def tied_in_pool(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw(tmp_path_factory.mktemp("pool"), ("pool",))


def row(found: Found, name: str) -> Row:
    return next(row for row in found.rows if row.name == name)


def by_view(subject: Subject) -> Row:
    return row(run_audits(subject, AUDIT).results[0].found, f"{FINDING}, by view")


class TestThreeThings:
    """Known, tied and followed: it takes all of them."""

    def test_a_score_that_follows_a_view_which_goes_with_the_finding_fails(self, tied: Dataset):
        found = by_view(subject_of(tied, read_the_view, frozen=pixel_pipeline()))
        assert found.verdict == "fails"
        assert all(number.low > 0.6 for number in found.numbers.values())
        assert found.words.startswith("AP in ")

    def test_so_does_a_probe_that_learned_it_from_its_pool(self, tied: Dataset):
        assert by_view(subject_of(tied, frozen=pixel_pipeline())).verdict == "fails"

    def test_it_does_not_fail_where_the_test_films_lack_the_tie(self, tied_in_pool: Dataset):
        found = by_view(subject_of(tied_in_pool, read_the_view, frozen=pixel_pipeline()))
        assert abs(found.numbers["score among those without it"].value - 0.5) > 0.4
        assert found.verdict != "fails"

    def test_it_does_not_fail_where_the_score_does_not_follow(self, tied: Dataset):
        found = by_view(subject_of(tied, read_the_finding, frozen=pixel_pipeline()))
        assert found.numbers["attribute alone"].low > 0.6
        assert found.verdict != "fails"

    def test_following_it_the_other_way_round_is_no_shortcut(self, tied: Dataset):
        def against(images: np.ndarray) -> np.ndarray:
            return -images[BELOW].mean(axis=(1, 2))

        found = by_view(subject_of(tied, read(against), frozen=pixel_pipeline()))
        assert found.numbers["score among those without it"].high < 0.2
        assert found.verdict == "passes"

    def test_p_is_the_largest_of_the_three(self, tied: Dataset, tmp_path: Path):
        unseen = draw(tmp_path, ("pool", "val", "test"), shown=0)
        subject = subject_of(unseen, read_the_finding, frozen=pixel_pipeline())
        found = by_view(subject)
        assert list(found.numbers) == ["features know it", "attribute alone", "score among those without it"]
        assert found.p > 0.05  # whatever the tie's is
        assert by_view(subject_of(tied, read_the_view, frozen=pixel_pipeline())).p < 1e-4


class TestTelling:
    def test_an_attribute_that_is_shown_is_told_and_one_that_is_not_is_not(self, tied: Dataset, tmp_path: Path):
        """The view goes with the finding, which the features know: films are matched, so that this is no help."""
        name = "view, told from the features"
        shown = row(encoded_attributes(subject_of(tied, frozen=pixel_pipeline())), name)
        unseen = draw(tmp_path, ("pool", "val", "test"), shown=0)
        hidden = row(encoded_attributes(subject_of(unseen, frozen=pixel_pipeline())), name)
        assert shown.numbers["AUC"].low > 0.9
        assert hidden.numbers["AUC"].low < 0.5 < hidden.numbers["AUC"].high
        assert shown.p is None  # it informs: knowing is no failure

    @pytest.mark.parametrize("brighter", [0, 10])
    def test_hospitals_are_told_apart_by_how_their_films_look(self, tied: Dataset, tmp_path: Path, brighter: int):
        rng = np.random.default_rng(1)
        table = films_of(400, rng)
        table["view"] = np.where(rng.random(400) < 0.5, "AP", "PA")
        images = gray_films(400, rng) + np.uint8(brighter)
        images[CENTRE] += (12 * has_it(table)[:, None, None]).astype(np.uint8)
        images[BELOW] += (12 * (table["view"] == "AP").to_numpy()[:, None, None]).astype(np.uint8)
        other = hospital_of(tmp_path, table, images, "there")
        found = row(
            encoded_attributes(subject_of(tied, other=other, frozen=pixel_pipeline())),
            "hospital, told from the features",
        )
        auc = found.numbers["AUC"]
        assert auc.low > 0.95 if brighter else auc.low < 0.5 < auc.high
        assert found.p is None

    def test_films_are_matched_for_all_findings_one_a_patient_within_their_split(self):
        rng = np.random.default_rng(0)
        count = 900
        labels = rng.random((count, 3)) < (0.2, 0.5, 0.7)
        values = np.where(rng.random(count) < 0.2 + 0.5 * labels[:, 1], 1.0, 0.0)
        values[rng.random(count) < 0.1] = np.nan
        names = np.array([f"film {number}" for number in range(count)])
        patients = rng.integers(300, size=count).astype(str)
        held_out = rng.random(count) < 0.4
        films = encoded._Films(
            np.zeros((count, 2)), patients, names, held_out, values, list(map(tuple, labels.tolist()))
        )
        for here in (held_out, ~held_out):
            yes, no = encoded._matched_films(films, here, "view")
            chosen = np.concatenate([yes, no])
            assert len(yes) == len(no) > 30
            assert here[chosen].all()
            assert len(set(patients[chosen])) == len(chosen)
            assert (values[yes] == 1).all()
            assert (values[no] == 0).all()
            patterns = [Counter(films.strata[row] for row in rows) for rows in (yes, no)]
            assert patterns[0] == patterns[1]
            assert len(patterns[0]) > 4


class TestWhatCanNotBeAsked:
    def test_too_few_films_say_how_many_there_are(self, tmp_path: Path):
        small = draw(tmp_path, (), patients=200, ap=0.04)
        found = encoded_attributes(subject_of(small, frozen=pixel_pipeline()))
        told = next(reason for reason in found.missing if reason.startswith("view"))
        assert "pairs of films matched for their findings to learn from" in told
        assert "10 and 5 are needed" in told

    def test_one_hospital_one_sex_and_one_age_band_are_named(self, tied: Dataset):
        found = encoded_attributes(subject_of(tied, frozen=pixel_pipeline()))
        assert "hospital: there is one hospital only." in found.missing
        for name in ("sex", "age"):
            assert any(reason.startswith(f"Not asked: {name}: the same for all films") for reason in found.missing)
        assert {row.name for row in found.rows} == {"view, told from the features", f"{FINDING}, by view"}

    def test_another_hospital_with_next_to_no_films(self, tied: Dataset, tmp_path: Path):
        rng = np.random.default_rng(0)
        tiny = hospital_of(tmp_path, films_of(1, rng), gray_films(1, rng), "tiny")
        found = encoded_attributes(subject_of(tied, other=tiny, frozen=pixel_pipeline()))
        assert any(reason.startswith("hospital: 0 pairs of films") for reason in found.missing)

    def test_nobody_without_the_finding_in_one_view(self, tmp_path: Path):
        rng = np.random.default_rng(0)
        table = films_of(300, rng)
        table["view"] = np.where(has_it(table), "AP", "PA")
        hospital = hospital_of(tmp_path, table, gray_films(300, rng))
        found = by_view(subject_of(hospital, read_the_finding, frozen=pixel_pipeline()))
        assert found.verdict == "can't tell"
        assert "Under 5 test patients without the finding are of either kind" in found.words

    def test_fine_tuning_has_no_features_but_ties_and_scores_are_judged(self, tied: Dataset):
        found = run_audits(subject_of(tied, read_the_view), AUDIT).results[0].found
        assert any("no features without labels" in reason for reason in found.missing)
        assert [one.name for one in found.rows] == [f"{FINDING}, by view"]
        assert found.rows[0].verdict == "fails"

    def test_nothing_known_of_any_film(self, tmp_path: Path):
        rng = np.random.default_rng(0)
        table = films_of(300, rng).assign(view=None, sex=None, age=np.nan)
        hospital = hospital_of(tmp_path, table, gray_films(300, rng))
        result = run_audits(subject_of(hospital, read_the_finding, frozen=pixel_pipeline()), AUDIT).results[0]
        assert result.verdict == "not run"
        assert "view: not known of any film" in result.found.missing[0]


def test_the_split_of_a_made_up_film_is_the_protocols(tied: Dataset):
    subject = subject_of(tied, read_the_finding)
    where = dict(zip(subject.table["image_id"], splits(subject.table, "here"), strict=True))
    assert {where[name] for name in subject.task.image_ids[subject.held_out]} == {"test"}
    assert PROTOCOL.findings == subject.task.findings
