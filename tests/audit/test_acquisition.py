import numpy as np
import pandas as pd
import pytest
from subject_cases import make_films, make_subject, make_task, scores_of, truth_of

from scarce.audit.acquisition import acquisition_features, acquisition_only
from scarce.audit.attributes import difference_of_shares
from scarce.audit.audits import AUDITS
from scarce.audit.verdicts import AuditResult, judge

(ACQUISITION,) = [audit for audit in AUDITS if audit.run is acquisition_only]


def judged(task, values, **columns):
    table = columns.pop("table", None)
    films = make_films(task, **columns) if table is None else table
    found = acquisition_only(make_subject(task, lambda variant: scores_of(variant, values), films))
    (result,) = judge([AuditResult(ACQUISITION, found)], 0.95)
    return {row.name: row for row in result.found.rows}


def with_exposure(rng, task, brighter):
    """Films of even gray: brighter by this many levels with the finding, 20 levels of s.d. between films."""
    levels = 100 + brighter * truth_of(task) + rng.normal(0, 20, len(task.images))
    task.images[:] = np.clip(levels, 0, 255).astype(np.uint8)[:, None, None]
    return task


def test_the_columns():
    images = np.zeros((2, 10, 10), dtype=np.uint8)
    images[0, :5], images[1] = 200, 51
    films = pd.DataFrame(
        {
            "raw_bits": [8, 12],
            "stretch_low": [0.0, 409.5],
            "stretch_high": [255.0, 4095.0],
            "raw_width": [100, 200],
            "raw_height": [100, 50],
            "view": ["AP", None],
            "jpeg_quality": [np.nan, 75.0],
        }
    )
    columns = acquisition_features(films, images)
    assert (columns.shape, columns.dtype) == ((2, 18), np.float32)
    half, even = 200 / 255, 0.2
    exposure = [[half / 2, half / 2, 0, 0, 0, 0, half, half, half], [even, 0, *[even] * 7]]
    np.testing.assert_allclose(columns[:, :9], exposure, atol=1e-6)
    others = [[0, 1, 1, 0, 8, 0, np.log(10_000), 0, 0], [0.1, 1, 0, 1, 12, np.log(4), np.log(10_000), 1, 75]]
    np.testing.assert_allclose(columns[:, 9:], others, rtol=1e-6)


def test_the_floor_is_learned_on_the_same_episodes_and_reads_no_anatomy():
    """Exposure and the file tell: a permutation of every film's pixels changes no number, and labels are the pool's."""
    rng = np.random.default_rng(0)
    task = with_exposure(rng, make_task(rng, 30, 60), brighter=60)
    task.images[:] = rng.integers(0, 60, task.images.shape, dtype=np.uint8) + (task.images // 2)
    first = judged(task, truth_of(task))["mass"]
    rng.permuted(task.images.reshape(len(task.images), -1), axis=1, out=task.images.reshape(len(task.images), -1))
    assert judged(task, truth_of(task))["mass"] == first
    assert first.numbers["acquisition alone"].low > 0.6


def test_a_result_that_clears_a_high_floor_passes():
    rng = np.random.default_rng(0)
    task = with_exposure(rng, make_task(rng, 60, 120), brighter=25)
    row = judged(task, 10 * truth_of(task) + rng.normal(size=len(task.images)))["mass"]
    assert row.numbers["acquisition alone"].low > 0.6
    assert row.numbers["whole minus it"].low > 0
    assert row.p < 0.001
    assert row.verdict == "passes"


def test_a_result_that_is_the_exposure_fails():
    rng = np.random.default_rng(0)
    task = with_exposure(rng, make_task(rng, 60, 120), brighter=40)
    row = judged(task, task.images[:, 0, 0])["mass"]
    assert row.numbers["whole picture"].low > 0.7
    assert row.verdict == "fails"


def test_a_model_no_better_than_chance_is_not_accused_of_the_exposure():
    """The finding can be told from the exposure, but this model does not: it has no AUC that this would explain."""
    rng = np.random.default_rng(0)
    task = with_exposure(rng, make_task(rng, 60, 120), brighter=60)
    row = judged(task, rng.normal(size=len(task.images)))["mass"]
    assert row.numbers["acquisition alone"].low > 0.8
    assert row.numbers["whole picture"].low < 0.5
    assert row.p > 0.05
    assert row.verdict == "can't tell"


def test_films_taken_alike_are_no_floor():
    rng = np.random.default_rng(0)
    task = make_task(rng, 100, 200)
    task.images[:] = 100
    row = judged(task, truth_of(task) + rng.normal(size=len(task.images)))["mass"]
    number = row.numbers["acquisition alone"]
    assert (number.value, number.low, number.high) == (0.5, 0.5, 0.5)
    assert row.verdict == "passes"


def hospital_of(rng, task, ap_with, ap_without):
    """The task's films, and others of 200 labelled patients and 100 that nobody labelled, all AP."""
    count = len(task.images)
    ap = rng.random(count) < np.where(truth_of(task) == 1, ap_with, ap_without)
    films = make_films(task, view=np.where(ap, "AP", "PA"))
    more = films.iloc[np.arange(300) % count].copy()
    more["patient_id"] = [f"other {row}" for row in range(300)]
    more["image_id"] = [f"other film {row}" for row in range(300)]
    more["labels"] = [["mass"] if row % 3 == 0 else [] for row in range(200)] + [None] * 100
    tied = np.where(np.arange(300) % 3 == 0, ap_with, ap_without)
    more["view"] = np.where((rng.random(300) < tied) | (np.arange(300) >= 200), "AP", "PA")
    return pd.concat([films, more], ignore_index=True)


@pytest.mark.parametrize(("ap_with", "ap_without"), [(0.9, 0.3), (0.2, 0.7)])
def test_the_view_alone_is_judged_on_all_labelled_patients_of_the_hospital(ap_with, ap_without):
    rng = np.random.default_rng(0)
    task = make_task(rng, 30, 60)
    table = hospital_of(rng, task, ap_with, ap_without)
    row = judged(task, truth_of(task) * 0.5 + rng.normal(size=len(task.images)), table=table)["mass, by view alone"]
    labelled = table[table["labels"].notna()]
    has = np.array(["mass" in labels for labels in labelled["labels"]])
    ap = (labelled["view"] == "AP").to_numpy()
    counts = [ap[has].sum(), has.sum(), ap[~has].sum(), (~has).sum()]
    value, low, high = difference_of_shares(*map(int, counts), 0.95)
    turned = (value, low, high) if value > 0 else (-value, -high, -low)
    number = row.numbers["view alone"]
    assert (number.value, number.low, number.high) == pytest.approx([(1 + end) / 2 for end in turned])
    words = "AP in {} of {} with the finding and in {} of {} without: an AUC of {:.2f} without any picture."
    assert row.words == words.format(*counts, number.value)
    assert row.verdict == "fails"


def test_a_result_has_to_clear_the_view_too():
    """The view in its direction: a model that is the view fails, one that is the finding passes."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 60, 120)
    for with_finding, without in ((0.9, 0.2), (0.2, 0.9)):
        view = np.where(rng.random(len(task.images)) < np.where(truth_of(task), with_finding, without), "AP", "PA")
        score = (view == "AP") * (1.0 if with_finding > without else -1.0)
        failing = judged(task, score, view=view)["mass, by view alone"]
        gain = failing.numbers["whole minus it"]
        assert (gain.value, gain.low, gain.high) == (0, 0, 0)
        assert failing.verdict == "fails"
        assert judged(task, truth_of(task), view=view)["mass, by view alone"].verdict == "passes"


def test_to_clear_the_view_among_the_few_scored_films_is_not_enough():
    """Among the films that are scored the view is not tied to the finding, among the hospital's others it is."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 60, 120)
    table = hospital_of(rng, task, 0.95, 0.1)
    table.loc[table.index < len(task.images), "view"] = rng.choice(["AP", "PA"], len(task.images))
    row = judged(task, 0.7 * truth_of(task) + rng.normal(size=len(task.images)), table=table)["mass, by view alone"]
    assert row.numbers["whole minus it"].low > 0
    assert row.numbers["view alone"].value > row.numbers["whole picture"].low
    assert row.verdict == "fails"
    assert judged(task, truth_of(task), table=table)["mass, by view alone"].verdict == "passes"


def test_a_result_has_to_clear_the_source_too():
    """As where the films with the finding were collected elsewhere."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 60, 120)
    source = np.where(rng.random(len(task.images)) < np.where(truth_of(task), 0.9, 0.2), "one", "other")
    rows = judged(task, source == "one", source=source)
    assert list(rows) == ["mass", "mass, by source other alone"]  # the commoner of the two
    row = rows["mass, by source other alone"]
    assert (row.verdict, row.numbers["whole minus it"].value) == ("fails", 0)
    assert row.words.startswith("from other in ")
    assert judged(task, truth_of(task), source=source)["mass, by source other alone"].verdict == "passes"


def test_without_views_there_is_no_row_of_them():
    task = make_task(np.random.default_rng(0))
    assert list(judged(task, truth_of(task))) == ["mass"]
