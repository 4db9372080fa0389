import numpy as np
import pytest
from subject_cases import make_subject, make_task, scores_of, truth_of

from scarce.audit.ablations import TOLERATED, border_only, evidence_row, lungs_removed
from scarce.audit.audits import AUDITS
from scarce.audit.regions import black_out, frame, lung_territory, thorax_box
from scarce.audit.verdicts import AuditResult, CannotRun, judge
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig

CORNER, CENTRE = (0, 0), (8, 8)


def film_task(rng, positives=60, negatives=120, **signals):
    """Films of gray noise; `corner` and `centre` pixels are brighter by so many levels with the finding, s.d. 20."""
    task = make_task(rng, positives, negatives)
    for place, name in ((CORNER, "corner"), (CENTRE, "centre")):
        levels = 120 + signals.get(name, 0) * truth_of(task) + rng.normal(0, 20, len(task.images))
        task.images[:, *place] = np.clip(levels, 1, 255).astype(np.uint8)
    return task


def reads(*places):
    """A pipeline that sums these pixels."""
    return lambda task: scores_of(task, sum(task.images[:, *place].astype(float) for place in places))


def verdicts(subject):
    """Verdict and row of either ablation, judged together as a report does."""
    audits = [audit for audit in AUDITS if audit.run in (lungs_removed, border_only)]
    results = judge([AuditResult(audit, audit.run(subject)) for audit in audits], 0.95)
    return {result.audit.key: (result.verdict, result.found.rows[0]) for result in results}


def test_a_pipeline_that_reads_the_corner_fails_both():
    subject = make_subject(film_task(np.random.default_rng(0), corner=40), reads(CORNER))
    for verdict, row in verdicts(subject).values():
        assert verdict == "fails"
        assert row.numbers["what is left"] == row.numbers["whole picture"]
        gain = row.numbers["whole minus it"]
        assert (gain.value, gain.low, gain.high, gain.scale) == (0, 0, 0, "difference")
        assert row.numbers["what is left"].low > 0.75


def test_a_pipeline_that_reads_the_centre_passes_both():
    subject = make_subject(film_task(np.random.default_rng(0), centre=40), reads(CENTRE))
    for verdict, row in verdicts(subject).values():
        assert verdict == "passes"
        left = row.numbers["what is left"]
        assert (left.value, left.low, left.high, row.p) == (0.5, 0.5, 0.5, 1)
        assert row.excused  # the whole picture is shown to give more
        assert row.small


def test_a_pipeline_that_reads_both_fails_although_the_whole_picture_gives_more():
    subject = make_subject(film_task(np.random.default_rng(0), corner=30, centre=30), reads(CORNER, CENTRE))
    for verdict, row in verdicts(subject).values():
        assert row.numbers["whole minus it"].low > 0
        assert row.numbers["what is left"].high > 0.5 + TOLERATED
        assert verdict == "fails"


def test_a_trace_of_a_shortcut_is_excused_where_the_rest_is_shown_to_give_more():
    """Of 1,000 patients with it an AUC of 0.54 is shown, and that it is under 0.6."""
    task = film_task(np.random.default_rng(0), 1000, 2000, corner=3, centre=60)
    for verdict, row in verdicts(make_subject(task, reads(CORNER, CENTRE), count=100)).values():
        assert row.numbers["what is left"].low > 0.5
        assert row.numbers["what is left"].high < 0.5 + TOLERATED
        assert row.p < 0.01
        assert verdict == "passes"
    # The same trace is all that this pipeline has: it is not small beside that.
    for verdict, row in verdicts(make_subject(task, reads(CORNER), count=100)).values():
        assert row.small
        assert verdict == "fails"


def test_a_pipeline_at_chance_is_not_accused():
    """What is left may tell the finding: a model that is no better than chance has no AUC that it would explain."""
    task = film_task(np.random.default_rng(0), corner=40, centre=-40)
    for verdict, row in verdicts(make_subject(task, reads(CORNER, CENTRE))).values():
        assert row.numbers["what is left"].low > 0.7
        assert row.numbers["whole picture"].low < 0.5
        assert verdict == "can't tell"


def test_few_patients_can_tell_nothing():
    task = film_task(np.random.default_rng(1), 6, 12, centre=10)
    _, row = verdicts(make_subject(task, lambda task: scores_of(task, task.images.mean(axis=(1, 2)))))["lungs_removed"]
    assert row.verdict == "can't tell"


def test_a_probe_is_trained_on_the_pictures_that_it_is_tested_on():
    """It learns the corner only where it is shown nothing else: what is left is what a probe can find there."""
    rng = np.random.default_rng(0)
    task = film_task(rng, corner=40, centre=90)
    shown = []

    def score(variant):
        shown.append(variant.images)
        pixels = variant.images.reshape(len(variant.images), -1).astype(np.float32)
        return score_task(variant, pixels, ProbeConfig(normalise="standardise"))

    subject = make_subject(task, score)
    found = lungs_removed(subject)
    assert len(shown) == 2  # as they are, and without the lungs
    assert any(np.array_equal(images, task.images) for images in shown)
    hidden = next(images for images in shown if not np.array_equal(images, task.images))
    assert not hidden[:, thorax_box(16)].any()  # of the films that are trained on and of those tested on
    np.testing.assert_array_equal(hidden[:, ~thorax_box(16)], task.images[:, ~thorax_box(16)])
    (exhibit,) = found.exhibits
    np.testing.assert_array_equal(exhibit.image, hidden[task.evaluated[0][0]])
    assert "central box" in found.notes[0]
    border_only(subject)
    np.testing.assert_array_equal(shown[-1], black_out(task.images, ~frame(16)))


def test_lung_masks_say_where_the_lungs_are():
    """Lungs in the corner: a pipeline that reads it then reads lungs."""
    task = film_task(np.random.default_rng(0), corner=40)
    lungs = np.zeros(task.images.shape, dtype=bool)
    lungs[:, :4, :4] = True
    subject = make_subject(task, reads(CORNER), lungs=lungs)
    assert verdicts(subject)["lungs_removed"][0] == "passes"
    found = lungs_removed(subject)
    region = lung_territory(lungs)
    assert region[CORNER]
    assert not region[CENTRE]
    example = task.evaluated[0][0]
    np.testing.assert_array_equal(found.exhibits[0].image == 0, region | (task.images[example] == 0))
    assert "by the lung masks" in found.notes[0]


def test_masks_that_cannot_be_used_are_no_lungs_and_no_box():
    subject = make_subject(
        film_task(np.random.default_rng(0), centre=40), reads(CENTRE), unusable_masks="3 masks are missing"
    )
    with pytest.raises(CannotRun, match="3 masks are missing"):
        lungs_removed(subject)
    assert border_only(subject).rows


@pytest.mark.parametrize("cleared", [False, True])
def test_a_floor_may_be_high_if_the_result_clears_it(cleared):
    rng = np.random.default_rng(0)
    task = make_task(rng, 60, 120)
    subject = make_subject(task, lambda variant: scores_of(variant, truth_of(task)))
    floor = subject.yardstick.auc(scores_of(task, truth_of(task) + rng.normal(size=len(task.images))))
    row = evidence_row(subject, floor, 0, "the floor", cleared=cleared)
    assert row.numbers["the floor"].low > 0.5 + TOLERATED
    assert row.numbers["whole minus it"].low > 0
    assert not row.small
    assert row.excused == cleared


def test_every_finding_has_its_row():
    task = make_task(np.random.default_rng(0), findings=("hernia", "mass"))
    rows = border_only(make_subject(task, reads(CENTRE))).rows
    assert [(row.name, row.finding) for row in rows] == [("hernia", "hernia"), ("mass", "mass")]
