import json
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from subject_cases import make_films, make_subject, make_task, scores_of, truth_of

from scarce.audit.audits import AUDITS, report_json, run_audits
from scarce.audit.verdicts import Audit, CannotRun, Found, Row
from scarce.audit.yardstick import Number, Scale

FINDINGS = ("hernia", "mass", "nodule")
SHORTCUT = Audit("lungs", "shortcut", "Lungs removed", "Is it?", "It was done.", "it is", "it is not", lambda _: 0)
OTHER = replace(SHORTCUT, key="border", title="Only the border")
CHANCE = replace(SHORTCUT, key="above_chance", kind="chance", title="Chance")
LOOK = replace(SHORTCUT, key="look", kind="look", title="Where it looked")


@pytest.fixture(scope="module")
def subject():
    task = make_task(np.random.default_rng(0), findings=FINDINGS)
    return make_subject(task, lambda variant: scores_of(variant, truth_of(task)), count=50)


def saying(audit, by_finding, words=""):
    """The audit with a row of this verdict for every finding."""
    numbers = {"AUC": Number(0.6, 0.5, 0.7)}
    rows = tuple(
        Row(f"{name}, by view", name, numbers, verdict=verdict, words=words if verdict == "fails" else "")
        for name, verdict in by_finding.items()
    )
    return replace(audit, run=lambda subject: Found(rows))


def chance(verdict):
    row = Row("mean over findings", None, {"AUC": Number(0.6, 0.5, 0.7)}, verdict=verdict)
    return replace(CHANCE, run=lambda subject: Found((row,)))


def test_not_above_chance_comes_first(subject):
    failing = saying(SHORTCUT, dict.fromkeys(FINDINGS, "fails"), words="AP in 9 of 10.")
    report = run_audits(subject, [failing, chance("fails")])
    auc = subject.whole.values.mean()
    assert report.headline.startswith(f"Not above chance: the same pipeline reaches the mean AUC of {auc:.3f} on ")
    assert "Unproven" not in report.headline
    assert report.headline.endswith(" AP in 9 of 10.")
    assert report.verdict == "fails"
    passing = run_audits(subject, [saying(SHORTCUT, dict.fromkeys(FINDINGS, "passes")), chance("fails")])
    assert passing.headline.startswith("Not above chance")
    assert passing.verdict == "passes"  # of the shortcut audits


def test_a_shortcut_leaves_the_result_unproven_for_its_findings(subject):
    report = run_audits(
        subject,
        [
            saying(SHORTCUT, {"hernia": "fails", "mass": "passes", "nodule": "passes"}, words="AP in 9 of 10."),
            saying(OTHER, {"hernia": "can't tell", "mass": "passes", "nodule": "can't tell"}),
            chance("passes"),
        ],
    )
    assert report.headline == (
        "Unproven for hernia: the AUC may rest on a shortcut (lungs removed). AP in 9 of 10. "
        "Passed for mass. Too few images to tell for nodule."
    )
    assert report.by_finding == {"hernia": "fails", "mass": "passes", "nodule": "can't tell"}
    assert report.verdict == "fails"


def test_every_audit_that_fails_is_named_once(subject):
    report = run_audits(subject, [saying(audit, dict.fromkeys(FINDINGS, "fails")) for audit in (SHORTCUT, OTHER, LOOK)])
    assert report.headline == (
        "Unproven for hernia, mass, nodule: the AUC may rest on a shortcut (lungs removed, only the border)."
    )


def test_too_few_images_are_no_clean_bill(subject):
    report = run_audits(subject, [saying(SHORTCUT, {"hernia": "passes", "mass": "can't tell", "nodule": "passes"})])
    assert report.headline == "No shortcut was shown, but it can't be ruled out with so few images for mass."
    assert report.verdict == "can't tell"


def test_nothing_found_is_said_of_the_audits_that_were_run(subject):
    report = run_audits(subject, [saying(SHORTCUT, dict.fromkeys(FINDINGS, "passes")), chance("passes")])
    assert report.headline == ("No shortcut found: all audits that could be run are passed for hernia, mass, nodule.")
    assert report.verdict == "passes"


def test_findings_that_no_audit_judged_are_not_passed(subject):
    report = run_audits(subject, [saying(SHORTCUT, {"hernia": "passes", "mass": "passes"})])
    assert report.headline == "No shortcut found: all audits that could be run are passed for hernia, mass."
    assert report.by_finding["nodule"] == "not run"


def test_other_audits_do_not_decide(subject):
    report = run_audits(subject, [saying(LOOK, dict.fromkeys(FINDINGS, "fails"))])
    assert report.headline == "No audit for shortcuts could be run."
    assert report.verdict == "not run"


def test_many_findings_are_counted():
    findings = tuple(f"finding {number}" for number in range(6))
    task = make_task(np.random.default_rng(0), findings=findings)
    subject = make_subject(task, lambda variant: scores_of(variant, truth_of(task)), count=20)
    report = run_audits(subject, [saying(SHORTCUT, dict.fromkeys(findings, "passes"))])
    assert report.headline.endswith("for finding 0, finding 1, finding 2, finding 3 and 2 more findings.")


def test_an_audit_that_cannot_be_run_is_reported_and_the_others_run(subject):
    def refuse(subject):
        raise CannotRun("there is one hospital only")

    audits = [replace(OTHER, run=refuse), saying(SHORTCUT, dict.fromkeys(FINDINGS, "passes"))]
    refused, done = run_audits(subject, audits).results
    assert (refused.verdict, refused.found.rows) == ("not run", ())
    assert refused.found.missing == ("there is one hospital only.",)
    assert (done.verdict, len(done.found.rows)) == ("passes", 3)


def test_an_error_is_no_reason_not_to_run(subject):
    def fail(subject):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_audits(subject, [replace(OTHER, run=fail)])


def test_findings_left_out_and_the_confidence_are_reported(subject):
    protocol = replace(subject.protocol, confidence=0.9)
    report = run_audits(replace(subject, left_out=("fibrosis: 2 patients",), protocol=protocol), [])
    assert report.left_out == ("fibrosis: 2 patients",)
    assert report_json(report)["left_out"] == ["fibrosis: 2 patients"]
    assert report_json(report)["confidence"] == 0.9


def test_numbers_that_are_not_known_are_null(subject):
    row = Row("a", None, {"AUC": Number(0.5, math.nan, math.nan), "lost": Number(0.1, 0.0, 0.2, "difference")}, 0.5)
    report = run_audits(subject, [replace(SHORTCUT, run=lambda _: Found((row,), missing=("No strata.",)))])
    audit = report_json(report)["audits"]["lungs"]
    assert audit["rows"][0]["numbers"] == {
        "AUC": {"value": 0.5, "ci_low": None, "ci_high": None, "scale": "AUC"},
        "lost": {"value": 0.1, "ci_low": 0.0, "ci_high": 0.2, "scale": "difference"},
    }
    assert (audit["rows"][0]["decides"], audit["missing"]) == ("AUC", ["No strata."])
    json.dumps(report_json(report), allow_nan=False)


def real_report(reads_the_corner: bool):
    """All audits that need no network, of two findings and everything known of the films."""
    rng = np.random.default_rng(0)
    task = make_task(rng, 80, 300, ("hernia", "mass"), images_a_patient=2)
    count = len(task.images)
    columns = {
        "view": rng.choice(["AP", "PA"], count),
        "sex": rng.choice(["F", "M"], count),
        "age": rng.choice([40.0, 80.0], count),
    }
    for finding, place in enumerate(((0, 0), (8, 8)) if reads_the_corner else ((8, 7), (8, 8))):
        levels = 100 + 60 * task.labels[:, finding] + rng.normal(0, 20, count)
        task.images[:, *place] = levels.clip(1, 255).astype(np.uint8)

    def score(variant):
        places = ((0, 0), (8, 8)) if reads_the_corner else ((8, 7), (8, 8))
        scores = variant.empty_scores()
        for values, rows, place in zip(scores.values, variant.evaluated, places, strict=True):
            values[:] = variant.images[rows][:, *place]
        return scores

    films = make_films(task, **columns)
    return run_audits(make_subject(task, score, films), AUDITS)


def test_all_audits_of_a_model_that_reads_the_corner_for_one_finding():
    report = real_report(reads_the_corner=True)
    assert report.by_finding["hernia"] == "fails"
    assert report.by_finding["mass"] == "passes"
    assert report.headline.startswith("Unproven for hernia: the AUC may rest on a shortcut (lungs removed,")
    assert "corner markers" in report.headline
    assert "Passed for mass." in report.headline
    verdicts = {result.audit.key: result.verdict for result in report.results}
    assert verdicts["above_chance"] == "passes"
    assert verdicts["cross_hospital"] == verdicts["where_it_looked"] == "not run"  # one hospital; no frozen backbone


def test_all_audits_of_a_model_that_reads_no_corner():
    report = real_report(reads_the_corner=False)
    assert report.headline == "No shortcut found: all audits that could be run are passed for hernia, mass."


def test_reports_repeat_and_every_row_says_what_it_is_about():
    report = report_json(real_report(reads_the_corner=True))
    assert json.dumps(report, allow_nan=False) == json.dumps(report_json(real_report(reads_the_corner=True)))
    assert list(report["audits"]) == [audit.key for audit in AUDITS]
    for audit in report["audits"].values():
        assert bool(audit["rows"]) or audit["missing"]
        for row in audit["rows"]:
            assert row["decides"] in row["numbers"]
            assert row["finding"] in (None, "hernia", "mass")
            assert {number["scale"] for number in row["numbers"].values()} <= set(get_args(Scale))
            assert row["verdict"] is None or row["p_holm"] is not None or row["words"]
        assert all(reason.endswith(".") and not reason.endswith("..") for reason in audit["missing"])
