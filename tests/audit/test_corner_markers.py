from pathlib import Path

import numpy as np
import pytest
from made_up import SIZE, films_of, gray_films, has_it, hospital_of, read, subject_of

from scarce.audit.audits import AUDITS, run_audits
from scarce.audit.corner_markers import corner_markers
from scarce.audit.verdicts import Found, Row
from scarce.data.store import Dataset

CORNER = (slice(None), slice(2, 4), slice(2, 4))  # narrower than a tenth of the side, as markers are
CENTRE = (slice(None), slice(12, 20), slice(12, 20))
AUDIT = [audit for audit in AUDITS if audit.key == "corner_markers"]


def mean_of(place: tuple[slice, ...]):
    return read(lambda images: images[place].mean(axis=(1, 2)))


def both(images: np.ndarray) -> np.ndarray:
    return images[CORNER].mean(axis=(1, 2)) + images[CENTRE].mean(axis=(1, 2))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Films with the finding are brighter in the centre, and a little in a corner, too."""
    rng = np.random.default_rng(0)
    table = films_of(300, rng)
    images = gray_films(300, rng)
    for place in (CORNER, CENTRE):
        images[place] += (8 * has_it(table)[:, None, None]).astype(np.uint8)
    return hospital_of(tmp_path_factory.mktemp("here"), table, images)


def elsewhere(folder: Path, marked: bool) -> Dataset:
    rng = np.random.default_rng(1)
    images = gray_films(250, rng)
    images[CORNER] = 250 if marked else images[CORNER]
    return hospital_of(folder, films_of(250, rng), images, "there")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return elsewhere(tmp_path_factory.mktemp("there"), marked=True)


def row(found: Found, ending: str) -> Row:
    return next(row for row in found.rows if row.name.endswith(ending))


def test_what_a_model_reads_in_the_corner_is_lost_with_it(hospital: Dataset):
    result = run_audits(subject_of(hospital, mean_of(CORNER)), AUDIT)
    lost = row(result.results[0].found, "corners masked")
    assert lost.numbers["whole picture"].value > 0.8
    assert lost.numbers["corners masked"].value == 0.5
    assert lost.numbers["lost"].value == pytest.approx(lost.numbers["whole picture"].value - 0.5)
    assert lost.verdict == result.verdict == "fails"


def test_a_model_that_reads_the_centre_loses_nothing_and_no_marker_moves_it(hospital: Dataset, other: Dataset):
    result = run_audits(subject_of(hospital, mean_of(CENTRE), other), AUDIT)
    found = result.results[0].found
    lost, shift = row(found, "corners masked").numbers["lost"], row(found, "foreign marker").numbers
    assert (lost.value, lost.low, lost.high) == (0, 0, 0)
    assert [(number.value, number.low, number.high) for number in shift.values()] == [(0, 0, 0)]
    assert [one.verdict for one in found.rows] == ["passes", "passes"]


def test_a_foreign_marker_moves_the_scores_of_a_model_that_reads_the_corner(hospital: Dataset, other: Dataset):
    subject = subject_of(hospital, mean_of(CORNER), other)
    found = run_audits(subject, AUDIT).results[0].found
    shift = row(found, "foreign marker")
    (number,) = shift.numbers.values()
    before = subject.scores.values[0][0, 0]
    assert number.value == pytest.approx(((250 - before) / before.std()).mean())
    assert number.low < number.value < number.high
    assert shift.verdict == "fails"
    assert "200 markers were cut from films of there." in found.notes
    assert [exhibit.caption for exhibit in found.exhibits] == ["corners masked", "a foreign marker pasted in"]
    assert (found.exhibits[1].image[CORNER[1:]] == 250).all()


def test_the_shifts_interval_is_that_of_a_slow_crossed_bootstrap(hospital: Dataset, other: Dataset):
    subject = subject_of(hospital, read(both), other, count=100)
    (number,) = row(corner_markers(subject), "foreign marker").numbers.values()
    images = subject.task.images.copy()
    images[CORNER] = np.maximum(images[CORNER], 250)
    rows, resamples = subject.task.evaluated[0], subject.yardstick.resamples
    before, after = (both(one[rows]) for one in (subject.task.images, images))
    change = (after - before) / before.std()
    draws = []
    for drawn in resamples.patients:
        again = np.repeat(change, drawn[resamples.codes[rows]])
        draws.append(again.mean())  # the same for every seed: nothing was learned
    assert number.value == pytest.approx(change.mean())
    assert (number.low, number.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_without_another_hospital_or_a_marker_there_the_corners_alone_are_judged(hospital: Dataset, tmp_path: Path):
    alone = corner_markers(subject_of(hospital, mean_of(CENTRE)))
    assert alone.missing == ("No marker was pasted in: there is one hospital only.",)
    unmarked = corner_markers(subject_of(hospital, mean_of(CENTRE), elsewhere(tmp_path, marked=False)))
    assert unmarked.missing == ("No marker was pasted in: none was found in films of there.",)
    assert [one.name for one in alone.rows] == [one.name for one in unmarked.rows] == ["mass, corners masked"]


def test_the_other_hospitals_films_may_be_larger(hospital: Dataset, tmp_path: Path):
    rng = np.random.default_rng(2)
    images = np.kron(gray_films(60, rng), np.ones((1, 2, 2), np.uint8))
    images[:, 4:8, 4:8] = 250
    large = hospital_of(tmp_path, films_of(60, rng), images, "large")
    found = corner_markers(subject_of(hospital, mean_of(CORNER), large))
    assert found.notes == ("60 markers were cut from films of large.",)
    assert found.exhibits[1].image.shape == (SIZE, SIZE)


def test_a_constant_score_is_not_moved(hospital: Dataset, other: Dataset):
    constant = read(lambda images: np.ones(len(images)))
    (number,) = row(corner_markers(subject_of(hospital, constant, other)), "foreign marker").numbers.values()
    assert (number.value, number.low, number.high) == (0, 0, 0)
