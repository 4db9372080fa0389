from dataclasses import replace
from itertools import product

import pytest

from scarce.audit.audits import AUDITS
from scarce.audit.verdicts import ORDER, AuditResult, Found, Row, judge, worst
from scarce.audit.yardstick import Number

BY_KIND = {kind: [audit for audit in AUDITS if audit.kind == kind] for kind in ("chance", "shortcut", "robustness")}
NUMBERS = {"AUC": Number(0.6, 0.5, 0.7)}


def row(p, **settings):
    return Row("a, by view", "a", NUMBERS, p, **settings)


def result(audit, *rows, **settings):
    return AuditResult(audit, Found(tuple(rows), **settings))


def rows_of(results):
    return [one for each in results for one in each.found.rows]


def test_holm_counts_the_rows_of_all_shortcut_audits_together():
    """0.004, 0.01, 0.02, 0.03 and 0.5 of five rows: 5 × 0.004, 4 × 0.01, 3 × 0.02, then no less than that, 0.5."""
    first, second, third = BY_KIND["shortcut"][:3]
    judged = judge(
        [result(first, row(0.03), row(0.004)), result(second, row(0.5)), result(third, row(0.01), row(0.02))], 0.95
    )
    assert [one.p_holm for one in rows_of(judged)] == pytest.approx([0.06, 0.02, 0.5, 0.04, 0.06])
    assert [one.verdict for one in rows_of(judged)] == ["can't tell", "fails", "can't tell", "fails", "can't tell"]
    assert [each.verdict for each in judged] == ["fails", "can't tell", "fails"]


def test_every_other_audit_has_its_own_correction():
    """The p-values of a shortcut audit beside them count for nothing, nor do those of the other one."""
    one, other = BY_KIND["robustness"]
    judged = judge(
        [result(one, row(0.02), row(0.03)), result(other, row(0.04)), result(BY_KIND["shortcut"][0], row(0.04))], 0.95
    )
    assert [each.p_holm for each in rows_of(judged)] == pytest.approx([0.04, 0.04, 0.04, 0.04])
    together = judge([result(audit, row(0.02), row(0.03)) for audit in BY_KIND["shortcut"][:2]], 0.95)
    assert [each.p_holm for each in rows_of(together)] == pytest.approx([0.08] * 4)


def test_rows_that_only_inform_take_no_part_in_the_correction():
    audit = BY_KIND["shortcut"][0]
    judged = judge([result(audit, row(0.03), row(None), row(None, words="It is known."))], 0.95)
    assert [each.p_holm for each in rows_of(judged)] == [0.03, None, None]
    assert [each.verdict for each in rows_of(judged)] == ["fails", None, None]


@pytest.mark.parametrize(("p", "small", "excused"), list(product((0.001, 0.06, 0.9), (False, True), (False, True))))
def test_excused_comes_before_shown_and_shown_before_small(p, small, excused):
    (judged,) = judge([result(BY_KIND["shortcut"][0], row(p, small=small, excused=excused))], 0.95)
    if excused:
        expected = "passes"
    elif p < 0.05:
        expected = "fails"
    else:
        expected = "passes" if small else "can't tell"
    assert judged.found.rows[0].verdict == judged.verdict == expected


def test_the_confidence_decides():
    assert [
        judge([result(BY_KIND["shortcut"][0], row(0.03))], confidence)[0].verdict for confidence in (0.95, 0.99)
    ] == ["fails", "can't tell"]


@pytest.mark.parametrize("verdict", ORDER)
def test_rows_with_a_verdict_of_their_own_keep_it(verdict):
    own = row(None, verdict=verdict, words="Two films.")
    (judged,) = judge([result(BY_KIND["shortcut"][0], own, row(0.001, excused=True))], 0.95)
    assert judged.found.rows[0] == own
    assert judged.verdict == worst([verdict, "passes"])


def test_what_else_was_found_is_kept():
    audit = BY_KIND["shortcut"][0]
    before = result(audit, row(0.2), notes=("A note.",), missing=("No strata.",))
    (after,) = judge([before], 0.95)
    assert after.audit is audit
    assert (after.found.notes, after.found.missing) == (("A note.",), ("No strata.",))
    assert after.found.rows == (replace(row(0.2), p_holm=0.2, verdict="can't tell"),)


def test_an_audit_without_rows_that_have_a_verdict_was_not_run():
    audit = BY_KIND["shortcut"][0]
    assert [each.verdict for each in judge([result(audit), result(audit, row(None))], 0.95)] == ["not run", "not run"]


def test_the_worst_verdict():
    assert worst([]) == "not run"
    assert worst(["not run", "passes"]) == "passes"
    assert worst(["passes", "can't tell", "not run"]) == "can't tell"
    assert worst(["passes", "can't tell", "fails", "passes"]) == "fails"
