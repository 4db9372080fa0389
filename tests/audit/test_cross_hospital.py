from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import FINDING, PROTOCOL, films_of, gray_films, has_it, hospital_of, pixel_pipeline, read, subject_of

from scarce.audit.audits import AUDITS, run_audits
from scarce.audit.cross_hospital import borrowed, cross_hospital
from scarce.audit.verdicts import AuditResult, CannotRun
from scarce.data.store import Dataset
from scarce.fewshot.task import Task, build_task

AUDIT = [audit for audit in AUDITS if audit.key == "cross_hospital"]


def draw(folder: Path, name: str, seed: int, brighter: int = 12, patients: int = 500, double: int = 1) -> Dataset:
    """A finding that shows as a bright centre, by so many gray levels; films of 32 pixels times `double`."""
    rng = np.random.default_rng(seed)
    table = films_of(patients, rng)
    images = gray_films(patients, rng).astype(int)
    images[:, 12:20, 12:20] += brighter * has_it(table)[:, None, None]
    return hospital_of(folder, table, np.kron(images, np.ones((1, double, double))).astype(np.uint8), name)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw(tmp_path_factory.mktemp("here"), "here", 0)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw(tmp_path_factory.mktemp("there"), "there", 1)


def tasks(*hospitals: Dataset) -> list[Task]:
    return [build_task(hospital, PROTOCOL, held_out="test").with_largest_shots() for hospital in hospitals]


def audit(here: Dataset, there: Dataset) -> AuditResult:
    return run_audits(subject_of(here, other=there, frozen=pixel_pipeline()), AUDIT).results[0]


def test_borrowed_episodes_are_one_hospitals_and_held_out_films_the_others(here: Dataset, there: Dataset):
    test, training = tasks(here, there)
    mixed = borrowed(test, training)
    assert [(e.finding, e.shots, e.seed) for e in mixed.episodes] == [
        (e.finding, e.shots, e.seed) for e in training.episodes
    ]
    for ours, theirs in zip(mixed.episodes, training.episodes, strict=True):
        for kind in ("positives", "negatives"):
            rows, original = getattr(ours, kind), getattr(theirs, kind)
            assert np.array_equal(mixed.images[rows], training.images[original])
            assert np.array_equal(mixed.labels[rows], training.labels[original])
        assert mixed.labels[ours.positives, 0].all()
        assert not mixed.labels[ours.negatives, 0].any()
    assert np.array_equal(mixed.images[mixed.reference], training.images[training.reference])
    for finding, (rows, original) in enumerate(zip(mixed.evaluated, test.evaluated, strict=True)):
        assert np.array_equal(mixed.images[rows], test.images[original])
        assert np.array_equal(mixed.image_ids[rows], test.image_ids[original])
        assert np.array_equal(mixed.truth(finding), test.truth(finding))


def test_patients_of_the_same_name_at_both_hospitals_are_two_patients(here: Dataset, there: Dataset):
    test, training = tasks(here, there)
    assert set(test.patients) & set(training.patients)
    mixed = borrowed(test, training)
    learned = [mixed.patients[rows] for episode in mixed.episodes for rows in (episode.positives, episode.negatives)]
    scored = mixed.patients[np.concatenate(mixed.evaluated)]
    assert not set(np.concatenate([*learned, mixed.patients[mixed.reference]])) & set(scored)
    assert np.array_equal(scored, test.patients[np.concatenate(test.evaluated)])


def test_the_in_hospital_number_is_the_results_own(here: Dataset, there: Dataset):
    subject = subject_of(here, other=there, frozen=pixel_pipeline())
    rows = {row.name: row for row in cross_hospital(subject).rows}
    assert set(rows) == {f"{FINDING} at here", f"{FINDING} at there"}
    numbers = rows[f"{FINDING} at here"].numbers
    assert numbers["in-hospital"] == subject.yardstick.number(subject.whole, 0)
    drop = numbers["in-hospital"].value - numbers["cross-hospital"].value
    assert numbers["drop"].value == pytest.approx(drop)
    assert numbers["drop"].scale == "difference"


def test_the_directions_change_places_with_the_hospitals(here: Dataset, there: Dataset):
    one, other = (
        {row.name: {key: number.value for key, number in row.numbers.items()} for row in audit(*pair).found.rows}
        for pair in ((here, there), (there, here))
    )
    assert one == other


def test_hospitals_that_look_alike_pass(here: Dataset, there: Dataset):
    assert audit(here, there).verdict == "passes"


def test_a_finding_that_shows_the_other_way_round_fails(here: Dataset, tmp_path: Path):
    result = audit(here, draw(tmp_path, "dark", 1, brighter=-12))
    assert result.verdict == "fails"
    for row in result.found.rows:
        assert row.numbers["in-hospital"].low > 0.8
        assert row.numbers["cross-hospital"].high < 0.2


def test_both_directions_learn_from_as_many_films(here: Dataset, tmp_path: Path):
    """The other hospital has too few for 20 positives: 5 are compared with 5."""
    shots = []

    def watch(task: Task):
        shots.append([len(episode.positives) for episode in task.episodes])
        return read(lambda images: images.mean(axis=(1, 2)))(task)

    small = draw(tmp_path, "small", 1, patients=70)
    protocol = replace(PROTOCOL, min_pool=5, min_held_out=3)
    found = cross_hospital(subject_of(here, watch, small, protocol=protocol))
    assert len(found.rows) == 2
    assert shots == [[5, 5]] * 4


def renamed(folder: Path, dataset: Dataset, names: dict[str, list[str]], hospital: str) -> Dataset:
    """The same films with other labels."""
    table = dataset.metadata()
    labels = [[new for old in labels for new in names[old]] for labels in table["labels"]]
    table["labels"] = pd.Series(labels, dtype=object)
    return hospital_of(folder, table, dataset.pixels(), hospital)


def test_a_finding_of_another_name_there_says_why(here: Dataset, there: Dataset, tmp_path: Path):
    other = renamed(tmp_path, there, {FINDING: ["Mass"]}, "there")
    with pytest.raises(CannotRun, match="same finding must have the same name at both hospitals"):
        cross_hospital(subject_of(here, other=other, frozen=pixel_pipeline()))
    result = audit(here, other)
    assert (result.verdict, len(result.found.missing)) == ("not run", 1)


def test_a_finding_that_only_one_hospital_knows_is_left_out_with_the_reason(
    here: Dataset, there: Dataset, tmp_path: Path
):
    both = renamed(tmp_path, here, {FINDING: [FINDING, "hernia"]}, "here")
    protocol = replace(PROTOCOL, findings=("hernia", FINDING))
    found = cross_hospital(subject_of(both, other=there, frozen=pixel_pipeline(), protocol=protocol))
    assert [row.finding for row in found.rows] == [FINDING, FINDING]
    (reason,) = found.missing
    assert reason.startswith("hernia is left out: at there, no labelled image shows 'hernia'")


@pytest.mark.parametrize("double", [0.5, 2])
def test_films_of_another_size(here: Dataset, there: Dataset, tmp_path: Path, double: float):
    """Larger ones are reduced, smaller ones can't be compared."""
    if double == 2:
        large = draw(tmp_path, "there", 1, double=2)
        for one, other in zip(audit(here, large).found.rows, audit(here, there).found.rows, strict=True):
            difference = one.numbers["cross-hospital"].value - other.numbers["cross-hospital"].value
            assert abs(difference) < 0.05
    else:
        small = hospital_of(tmp_path, there.metadata(), there.pixels()[:, ::2, ::2], "there")
        with pytest.raises(CannotRun, match="32 pixels a side here and 16 there: convert both at the same size"):
            cross_hospital(subject_of(here, other=small, frozen=pixel_pipeline()))


def test_one_hospital_has_nothing_to_compare(here: Dataset):
    with pytest.raises(CannotRun, match="one hospital only"):
        cross_hospital(subject_of(here, frozen=pixel_pipeline()))
