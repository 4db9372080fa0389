from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from subject_cases import make_films, make_subject, make_task, scores_of, truth_of

from scarce.audit.audits import AUDITS
from scarce.audit.matched import FEWEST, matched_test
from scarce.audit.verdicts import AuditResult, CannotRun, judge

(MATCHED,) = [audit for audit in AUDITS if audit.run is matched_test]


def tied_view(rng, task, share=0.85):
    """AP in this share of the patients with the finding and PA in as many of those without: bool [N]."""
    ap = rng.random(len(task.images)) < np.where(truth_of(task) == 1, share, 1 - share)
    return np.where(ap, "AP", "PA")


def judged(subject):
    found = matched_test(subject)
    (result,) = judge([AuditResult(MATCHED, found)], 0.95)
    return found, {row.name: row for row in result.found.rows}


def subject_of(task, values, **columns):
    return make_subject(task, lambda variant: scores_of(variant, values), make_films(task, **columns))


def test_a_score_that_is_the_view_fails():
    """The pooled AUC is the view's; among films of one view nothing is left, and that is said with its interval."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 60, 120)
    view = tied_view(rng, task)
    found, rows = judged(subject_of(task, (view == "AP").astype(float), view=view))
    row = rows["mass, by view"]
    rows_scored = task.evaluated[0]
    assert row.numbers["pooled"].value == pytest.approx(roc_auc_score(task.truth(0), view[rows_scored] == "AP"))
    assert row.numbers["pooled"].low > 0.75
    matched, gap = row.numbers["matched"], row.numbers["pooled minus matched"]
    assert (matched.value, matched.low, matched.high) == (0.5, 0.5, 0.5)
    assert gap.value == pytest.approx(row.numbers["pooled"].value - 0.5)
    assert gap.scale == "difference"
    assert [row.numbers[name].value for name in ("AP", "PA")] == [0.5, 0.5]
    assert row.verdict == "fails"
    assert row.decides == "pooled minus matched"
    assert found.missing == ("No strata by sex: not known of any film.", "No strata by age: not known of any film.")


def test_a_score_that_is_the_truth_passes_however_the_view_is_tied():
    rng = np.random.default_rng(0)
    task = make_task(rng, 60, 120)
    _, rows = judged(subject_of(task, truth_of(task), view=tied_view(rng, task)))
    row = rows["mass, by view"]
    gap = row.numbers["pooled minus matched"]
    assert (gap.value, gap.low, gap.high, row.p) == (0, 0, 0, 1)
    assert row.numbers["matched"].value == row.numbers["AP"].value == row.numbers["PA"].value == 1
    assert row.verdict == "passes"


def test_a_score_of_both_view_and_finding_fails_and_keeps_the_rest():
    rng = np.random.default_rng(1)
    task = make_task(rng, 60, 120)
    view, noise = tied_view(rng, task), rng.normal(size=len(task.images))
    _, rows = judged(subject_of(task, truth_of(task) + 2 * (view == "AP") + noise, view=view))
    row = rows["mass, by view"]
    assert row.verdict == "fails"
    assert row.numbers["matched"].low > 0.55
    assert row.numbers["AP"].value == pytest.approx(row.numbers["matched"].value, abs=0.15)


def test_few_films_can_tell_nothing():
    rng = np.random.default_rng(0)
    task = make_task(rng, 6, 12)
    _, rows = judged(subject_of(task, truth_of(task) + rng.normal(size=len(task.images)), view=tied_view(rng, task)))
    assert rows["mass, by view"].verdict == "can't tell"


def test_the_auc_within_a_stratum_is_that_of_its_films():
    rng = np.random.default_rng(2)
    task = make_task(rng, 60, 120)
    view, values = tied_view(rng, task, 0.6), rng.normal(size=len(task.images)) + truth_of(task)
    _, rows = judged(subject_of(task, values, view=view))
    for name in ("AP", "PA"):
        number = rows["mass, by view"].numbers[name]
        here = task.evaluated[0][view[task.evaluated[0]] == name]
        assert number.value == pytest.approx(roc_auc_score(task.labels[here, 0], values[here]))
        assert 0.02 < number.value - number.low < 0.25
        assert number.low < number.value < number.high


def test_strata_too_small_to_stand_alone_are_named_with_their_patients():
    rng = np.random.default_rng(0)
    task = make_task(rng, 20, 40, images_a_patient=2)
    view = np.full(len(task.images), "PA", dtype=object)
    ill = np.unique(task.patients[task.evaluated[0][task.truth(0)]])[: FEWEST - 1]
    well = np.unique(task.patients[task.evaluated[0][~task.truth(0)]])[:20]
    view[np.isin(task.patients, [*ill, *well])] = "AP"
    found, rows = judged(subject_of(task, rng.normal(size=len(task.images)), view=view))
    assert "AP" not in rows["mass, by view"].numbers
    assert "PA" in rows["mass, by view"].numbers
    assert found.missing[-1] == (
        "Too few to say anything by themselves (under 5 patients a class): mass, AP (4 with, 20 without)."
    )


def test_a_view_that_is_the_finding_leaves_nothing_to_match():
    task = make_task(np.random.default_rng(0), 30, 60)
    view = np.where(truth_of(task) == 1, "AP", "PA")
    found, rows = judged(subject_of(task, truth_of(task), view=view))
    row = rows["mass, by view"]
    assert row.verdict == "can't tell"
    assert row.p is None
    assert "No two films of the same view" in row.words
    assert row.numbers["whole picture"].value == 1
    assert "mass, AP (30 with, 0 without); mass, PA (0 with, 60 without)." in found.missing[-1]


def test_films_of_unknown_view_are_in_neither_auc():
    rng = np.random.default_rng(3)
    task = make_task(rng, 30, 60)
    view = tied_view(rng, task).astype(object)
    unknown = rng.random(len(view)) < 0.3
    view[unknown] = None
    values = rng.normal(size=len(view)) + truth_of(task)
    _, rows = judged(subject_of(task, np.where(unknown, 100 * truth_of(task), values), view=view))
    here = task.evaluated[0][~unknown[task.evaluated[0]]]
    pooled = rows["mass, by view"].numbers["pooled"]
    assert pooled.value == pytest.approx(roc_auc_score(task.labels[here, 0], values[here]))


def test_every_finding_is_matched_by_every_attribute():
    rng = np.random.default_rng(0)
    task = make_task(rng, 30, 60, ("hernia", "mass"))
    count = len(task.images)
    columns = {
        "view": rng.choice(["AP", "PA"], count),
        "sex": rng.choice(["F", "M"], count),
        "age": rng.choice([40.0, 80.0], count),
    }
    found, rows = judged(subject_of(task, rng.normal(size=count), **columns))
    assert list(rows) == [f"{name}, by {by}" for by in ("view", "sex", "age") for name in ("hernia", "mass")]
    assert {row.finding for row in rows.values()} == {"hernia", "mass"}
    assert {"60 or older", "younger"} <= set(rows["mass, by age"].numbers)
    assert not found.missing
    # Another finding beside it changes nothing for the first.
    alone = replace(
        task, labels=task.labels[:, 1:], findings=("mass",), shots=task.shots[1:], evaluated=task.evaluated[1:]
    )
    alone = replace(alone, episodes=tuple(episode for episode in task.episodes if episode.finding == "mass"))
    values = rng.normal(size=count)
    for by, row in judged(subject_of(alone, values, **columns))[1].items():
        both = judged(subject_of(task, values, **columns))[1][by]
        assert both.numbers == row.numbers


def test_nothing_known_of_the_films_is_said():
    task = make_task(np.random.default_rng(0))
    with pytest.raises(CannotRun, match="unknown or the same"):
        matched_test(subject_of(task, truth_of(task)))
