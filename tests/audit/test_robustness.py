import numpy as np
import pytest
from made_up import films_of, gray_films, has_it, hospital_of, pixel_pipeline, subject_of

from scarce.audit.audits import AUDITS, run_audits
from scarce.audit.corruptions import CORRUPTIONS
from scarce.audit.robustness import corruption_curves
from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun
from scarce.data.store import Dataset
from scarce.fewshot.task import Scores, Task

AUDIT = [audit for audit in AUDITS if audit.key == "corruption_curves"]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Films with the finding are a little brighter all over."""
    rng = np.random.default_rng(0)
    table = films_of(300, rng)
    brighter = rng.normal(0, 4, 300) + 12 * has_it(table)
    images = (gray_films(300, rng) + brighter[:, None, None]).astype(np.uint8)
    return hospital_of(tmp_path_factory.mktemp("here"), table, images)


def nearest_brightness(task: Task) -> Scores:
    """How near a film's mean brightness is to that of the positive films of the episode."""
    scores = task.empty_scores()
    brightness = task.images.mean(axis=(1, 2))
    for episode in task.episodes:
        finding, cell = task.place(episode)
        learned = brightness[episode.positives].mean()
        scores.values[finding][cell] = -np.abs(brightness[task.evaluated[finding]] - learned)
    return scores


@pytest.fixture(scope="module")
def subject(hospital: Dataset) -> Subject:
    return subject_of(hospital, nearest_brightness, frozen=pixel_pipeline())


def test_a_reader_of_brightness_fails_by_brightness_and_stands_jpeg_and_noise(subject: Subject):
    result = run_audits(subject, AUDIT).results[0]
    rows = {row.name: row for row in result.found.rows}
    assert rows["brightness 0.1"].verdict == "fails"
    assert rows["brightness 0.1"].numbers["AUC"].value < 0.3
    for name in ("JPEG 75", "noise 0.01", "blur 0.005"):
        assert rows[name].verdict == "passes"
        assert abs(rows[name].numbers["lost"].value) < 0.02
    assert result.verdict == "fails"
    mild = {f"{one.name} {level:g}" for one in CORRUPTIONS for level in one.mild}
    assert set(rows) == mild
    assert all(row.finding is None for row in rows.values())


def test_curves_hold_every_level_and_at_the_neutral_one_the_whole_pictures_auc(subject: Subject):
    found = corruption_curves(subject)
    assert [curve.name for curve in found.curves] == [corruption.name for corruption in CORRUPTIONS]
    whole = subject.whole.values.mean()
    for curve, corruption in zip(found.curves, CORRUPTIONS, strict=True):
        assert [level for level, _ in curve.points] == list(corruption.levels)
        assert curve.marked == corruption.mild
        neutral = dict(curve.points)[corruption.neutral]
        assert neutral.value == whole
        assert neutral.low < whole < neutral.high
        assert all(0 <= number.low <= number.high <= 1 for _, number in curve.points)
    assert len(found.exhibits) == len(CORRUPTIONS)


def test_lost_is_the_paired_difference_from_the_whole_picture(subject: Subject):
    brighter = CORRUPTIONS[0]
    (row,) = [row for row in corruption_curves(subject, [brighter]).rows if row.name == "brightness 0.1"]
    changed = subject.yardstick.auc(subject.with_held_out(lambda films: brighter.apply(films, 0.1)))
    assert row.numbers["AUC"].value == pytest.approx(changed.values[0])
    assert row.numbers["lost"].value == pytest.approx(subject.whole.values[0] - changed.values[0])
    draws = subject.whole.draws[0] - changed.draws[0]
    low, high = row.numbers["lost"].low, row.numbers["lost"].high
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert row.numbers["lost"].scale == "difference"


def test_only_held_out_films_change(hospital: Dataset):
    seen = []

    def watch(task: Task) -> Scores:
        seen.append(task.images)
        return nearest_brightness(task)

    subject = subject_of(hospital, watch, frozen=pixel_pipeline())
    corruption_curves(subject, CORRUPTIONS[:2])
    before = subject.task.images
    trained = np.unique(np.concatenate([rows for e in subject.task.episodes for rows in (e.positives, e.negatives)]))
    assert len(seen) == 1 + sum(len(corruption.levels) - 1 for corruption in CORRUPTIONS[:2])
    for images in seen[1:]:
        assert np.array_equal(images[trained], before[trained])
        assert (images[subject.held_out] != before[subject.held_out]).any()


def test_fine_tuning_says_why_it_has_no_curves(hospital: Dataset):
    with pytest.raises(CannotRun, match="fine-tuning of its own"):
        corruption_curves(subject_of(hospital, nearest_brightness))
