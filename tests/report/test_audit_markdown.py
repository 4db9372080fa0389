import math
from typing import get_args

import pytest
from audit_cases import EVIL, FINDINGS, REASON, make_report, number

from scarce.audit.audits import AUDITS, AuditReport, report_json
from scarce.audit.verdicts import AuditResult, Found, Row
from scarce.audit.yardstick import Scale
from scarce.report.audit import (
    SCALES,
    audit_markdown,
    main_numbers,
    number_text,
    p_text,
    row_text,
    scale_of,
    verdict_matrix,
    worst_row,
)

REPORT = report_json(make_report())
TEXT = audit_markdown(REPORT)


def cells(title: str) -> list[str]:
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {title} ")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_it_starts_with_the_headline_and_lists_findings_by_verdict():
    lines = TEXT.split("\n\n")
    assert lines[0] == "## Anatomy or shortcut"
    assert lines[1].startswith("**Unproven for hiatal hernia, not for")
    assert lines[2].startswith("Fails: hiatal hernia. Can't tell: reticular interstitial pattern. Passes: ")


def test_every_audit_has_a_line_with_its_worst_row():
    assert cells("Lungs removed") == [
        "Lungs removed",
        "Does the model still find it when it is not shown the lungs?",
        "fails",
        "hiatal hernia: what is left 0.655 (0.605 to 0.705), p (Holm) <0.001",
    ]
    assert cells("Chance")[2:] == ["passes", "mean over findings: AUC 0.660 (0.610 to 0.710)"]
    assert cells("Corner markers")[2:] == [
        "can't tell",
        "hiatal hernia, foreign marker: shift of the score, s.d. –, p (Holm) 1.000",
    ]
    assert cells("Corruption curves")[3] == "blur 0.005: lost +0.070 (+0.060 to +0.080), p (Holm) 0.001"
    assert cells("In-hospital and cross-hospital")[2:] == ["not run", "–"]
    assert len([line for line in TEXT.splitlines() if line.startswith("| ")]) == 2 + len(REPORT["audits"])


def test_every_failing_row_is_explained_with_its_numbers():
    lines = [line for line in TEXT.splitlines() if line.startswith("- ") and " fails (" in line]
    assert lines == [
        "- Lungs removed fails (hiatal hernia): the finding is told from films without lungs. What is left 0.655 "
        "(0.605 to 0.705); whole picture 0.701 (0.651 to 0.751); whole minus it +0.046 (-0.004 to +0.096); "
        "p (Holm) <0.001.",
        "- Corruption curves fails (blur 0.005): a change as mild as between two hospitals costs AUC. AUC 0.700 (0.650 "
        "to 0.750); lost +0.070 (+0.060 to +0.080); p (Holm) 0.001.",
    ]


def test_what_was_not_run_is_said_with_its_reason():
    lines = TEXT.splitlines()
    assert f"- In-hospital and cross-hospital could not be run. {REASON.capitalize()}." in lines
    assert "- Where it looked could not be run." in lines
    (in_part,) = [line for line in lines if line.startswith("- Corner markers, in part: No marker was pasted in: none")]
    assert r"\<script>alert(1)\</script> \| a\*b" in in_part
    assert "Hospital, view, sex, age could not be run" not in TEXT  # it has rows, that only inform
    assert "Lungs removed, in part" not in TEXT


def test_findings_that_are_left_out_are_named_with_the_reason():
    assert TEXT.split("\n\n")[3].startswith(r"Not audited: \<script>alert(1)\</script> \| a\*b")
    assert TEXT.split("\n\n")[3].endswith(" too: 2 test patients, needs 6.")
    assert TEXT.count("Not audited") == 1


def test_the_verdicts_are_explained_at_the_end():
    last = TEXT.rstrip().split("\n\n")[-1]
    assert all(f"{word}: " in last for word in ("Fails", "Passes", "Can't tell"))
    assert "at least 90%" in last


def test_names_are_no_markup_and_do_not_break_the_table():
    assert EVIL not in TEXT
    assert r"\<script>alert(1)\</script> \| a\*b" in TEXT
    table = [line.replace(r"\|", "") for line in TEXT.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in table} == {5}


def test_a_report_without_audits_has_a_headline_and_no_more_than_it_needs():
    text = audit_markdown(report_json(AuditReport("Nothing.", "not run", {}, [], 0.95)))
    assert text.startswith("## Anatomy or shortcut\n\n**Nothing.**\n\n| audit")
    assert "- " not in text.split("\n\n")[3]


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_unknown_numbers_are_dashes(unknown):
    assert number_text({"value": unknown, "ci_low": 0.1, "ci_high": 0.2, "scale": "AUC"}) == "–"
    assert number_text({"value": 0.2, "ci_low": unknown, "ci_high": unknown, "scale": "difference"}) == "+0.200 (–)"
    assert p_text(unknown) == "–"
    assert p_text(0.00099) == "<0.001"


def test_the_worst_row_is_the_worst_verdict_with_the_smallest_p():
    rows = [
        {"verdict": verdict, "p": p, "finding": finding}
        for verdict, p, finding in (
            (None, None, None),
            ("passes", 0.001, "a"),
            ("can't tell", 0.5, "a"),
            ("can't tell", 0.3, "b"),
            ("can't tell", None, "b"),
        )
    ]
    assert worst_row(rows) is rows[3]
    assert worst_row(rows, "a") is rows[2]
    assert worst_row(rows, "c") is None
    assert worst_row(rows[:1]) is None


def test_the_matrix_has_shortcut_audits_only():
    matrix = verdict_matrix(REPORT)
    assert list(matrix) == list(FINDINGS)
    assert matrix["hiatal hernia"] == {
        "lungs_removed": "fails",
        "corner_markers": "can't tell",
        "encoded_attributes": "not run",
    }
    assert [row["lungs_removed"] for row in matrix.values()] == ["fails", "can't tell", "passes"]
    assert matrix[EVIL]["corner_markers"] == "not run"


def test_a_row_is_told_by_the_number_that_its_verdict_is_about():
    numbers = {name: {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "scale": "AUC"} for name in ("pooled", "matched")}
    numbers["pooled minus matched"] = {"value": 0.01, "ci_low": 0, "ci_high": 0.02, "scale": "difference"}
    row = {"name": "a", "numbers": numbers, "decides": "pooled", "p_holm": None, "words": "So."}
    assert row_text(row) == "a: pooled 0.500 (0.400 to 0.600), So"
    row |= {"decides": "pooled minus matched", "p_holm": 0.2}
    assert row_text(row) == "a: pooled minus matched +0.010 (+0.000 to +0.020), p (Holm) 0.200"
    numbers["AP"] = numbers["pooled"]
    assert list(main_numbers(row)) == ["pooled", "matched", "pooled minus matched"]
    row = {"name": "a", "numbers": {}, "decides": "", "p_holm": 0.04, "words": ""}
    assert row_text(row) == "a: p (Holm) 0.040"


def test_a_row_that_does_not_say_is_about_its_first_number():
    numbers = {"first": number(0.6), "second": number(0.1, scale="excess")}
    rows = (Row("a", "a", numbers), Row("b", "b", numbers, decides="second"), Row("c", "c", {}))
    described = report_json(AuditReport("", "not run", {}, [AuditResult(AUDITS[1], Found(rows))], 0.95))
    rows = described["audits"][AUDITS[1].key]["rows"]
    assert [row["decides"] for row in rows] == ["first", "second", ""]
    assert rows[0]["numbers"]["second"] == pytest.approx(
        {"value": 0.1, "ci_low": 0.05, "ci_high": 0.15, "scale": "excess"}
    )
    assert row_text(rows[1]).startswith("b: second +0.100 (+0.050 to +0.150)")


def test_scales():
    assert set(SCALES) == set(get_args(Scale))
    rows = {row["name"]: row["numbers"] for audit in REPORT["audits"].values() for row in audit["rows"]}
    numbers = rows["hiatal hernia"]
    assert [scale_of(numbers[name]).null for name in ("what is left", "whole minus it", "in women")] == [0.5, 0, 0.5]
    assert scale_of(rows["hiatal hernia, foreign marker"]["shift of the score, s.d."]) is SCALES["shift"]


def test_every_audit_says_what_it_did_and_what_its_verdicts_mean():
    for audit in AUDITS:
        assert audit.question.endswith(("?", "."))
        assert audit.did.endswith(".")
        assert audit.did[0].isupper()
        assert not audit.fails.endswith(".")  # "it fails: ..."
        assert not audit.passes.endswith(".")
        assert audit.fails != audit.passes
    for key, audit in REPORT["audits"].items():
        (known,) = [one for one in AUDITS if one.key == key]
        assert (audit["did"], audit["fails"], audit["passes"]) == (known.did, known.fails, known.passes)
