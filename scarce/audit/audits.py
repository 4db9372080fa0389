"""All audits of a result, one after the other, and what they come to together. Read `run_audits` from the top."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scarce.audit.ablations import border_only, lungs_removed
from scarce.audit.acquisition import acquisition_only
from scarce.audit.chance import above_chance
from scarce.audit.corner_markers import corner_markers
from scarce.audit.cross_hospital import cross_hospital
from scarce.audit.encoded import encoded_attributes
from scarce.audit.matched import matched_test
from scarce.audit.robustness import corruption_curves
from scarce.audit.subject import Subject
from scarce.audit.verdicts import Audit, AuditResult, CannotRun, Found, Verdict, judge, worst
from scarce.audit.where_it_looked import where_it_looked
from scarce.audit.yardstick import Number

_SMALL = "any such effect is shown to be smaller than what is tolerated"
_OR_MORE = f"{_SMALL}, or the whole picture is shown to tell more"

AUDITS = (
    Audit(
        *("above_chance", "chance", "Chance"),
        question="Is the result above what the same pipeline reaches on shuffled labels?",
        did="Labels were shuffled among the patients and everything was done again, many times.",
        fails="the AUC is not shown to be above what shuffled labels give",
        passes="the AUC is above what shuffled labels give",
        run=above_chance,
    ),
    Audit(
        *("lungs_removed", "shortcut", "Lungs removed"),
        question="Does the model still find it when it is not shown the lungs?",
        did="The lungs and what lies between them were blacked out in every film, for training and for test.",
        fails="the finding is told from films without lungs",
        passes=_OR_MORE,
        run=lungs_removed,
    ),
    Audit(
        *("border_only", "shortcut", "Only the border"),
        question="Does the model find it in the outermost tenth of the picture alone?",
        did="All but the outermost tenth on each side was blacked out in every film, for training and for test.",
        fails="the finding is told from the border of the film",
        passes=_OR_MORE,
        run=border_only,
    ),
    Audit(
        *("corner_markers", "shortcut", "Corner markers"),
        question="Does the model need the corners, and does a foreign side marker change its mind?",
        did="The corners, where side markers are, were masked in every film; and side markers of another hospital were "
        "pasted into the test films.",
        fails="the score depends on the corners of the film",
        passes=_SMALL,
        run=corner_markers,
    ),
    Audit(
        *("encoded_attributes", "shortcut", "Hospital, view, sex, age"),
        question="What else do the features know, and do the scores follow it?",
        did="It was measured whether the model can tell hospital, view, sex and age, whether these go with the finding "
        "among the test films, and whether patients without the finding score higher because of them.",
        fails="the score follows something that is no sign of the finding, but goes with it at this hospital",
        passes="at least one of the three is shown to be smaller than what is tolerated",
        run=encoded_attributes,
    ),
    Audit(
        *("acquisition_only", "shortcut", "Acquisition only"),
        question="What do exposure, view and file tell without the picture? A result has to clear that floor.",
        did="A model was given the exposure, the view and the properties of the file instead of the picture.",
        fails="how the film was taken tells the finding, and the picture is not shown to tell more",
        passes=_OR_MORE,
        run=acquisition_only,
    ),
    Audit(
        *("matched_test", "shortcut", "Matched test"),
        question="Is the AUC still there among films of the same view, sex and age band?",
        did="Only films of the same view, the same sex or the same age band were compared with each other.",
        fails="part of the AUC is a difference between kinds of patients or films",
        passes=_SMALL,
        run=matched_test,
    ),
    Audit(
        *("corruption_curves", "robustness", "Corruption curves"),
        question="How far may the next hospital's films differ before the model loses what it knew?",
        did="The test films were changed step by step, as another hospital's may differ; the model stayed as it was.",
        fails="a change as mild as between two hospitals costs AUC",
        passes="mild changes are shown to cost less AUC than what is tolerated",
        run=corruption_curves,
    ),
    Audit(
        *("cross_hospital", "robustness", "In-hospital and cross-hospital"),
        question="Does a probe trained on one hospital's films work at the other?",
        did="The few labelled films were taken from one hospital, the test films from the other.",
        fails="labelled films of the other hospital give a lower AUC",
        passes="the drop is shown to be smaller than what is tolerated",
        run=cross_hospital,
    ),
    Audit(
        *("where_it_looked", "look", "Where it looked"),
        question="Which part of the film moved the score?",
        did="Maps of what moved the score were compared with the lungs and, where they are known, the findings' boxes.",
        fails="less of the map lies in the lungs than if it were spread evenly over the film",
        passes="more of the map lies in the lungs than if it were spread evenly over the film",
        run=where_it_looked,
    ),
)


@dataclass(frozen=True, eq=False)
class AuditReport:
    """All audits of one result.

    Attributes:
        headline: the first line of any report.
        verdict: of all shortcut audits together; `by_finding` the same for each finding.
    """

    headline: str
    verdict: Verdict
    by_finding: dict[str, Verdict]
    results: list[AuditResult]
    confidence: float
    left_out: tuple[str, ...] = ()  # findings that can't be audited, each with the reason


def run_audits(subject: Subject, audits: Sequence[Audit] = AUDITS) -> AuditReport:
    """Run the audits; one that can't be run says why, and the others run."""
    results = []
    for audit in audits:
        try:
            found = audit.run(subject)
        except CannotRun as reason:
            found = Found((), missing=(f"{reason}.",))
        results.append(AuditResult(audit, found))
    confidence = subject.protocol.confidence
    results = judge(results, confidence)
    by_finding = {name: _of_finding(results, name) for name in subject.task.findings}
    return AuditReport(
        headline=_headline(subject, results, by_finding),
        verdict=worst(list(by_finding.values())),
        by_finding=by_finding,
        results=results,
        confidence=confidence,
        left_out=subject.left_out,
    )


def _of_finding(results: Sequence[AuditResult], finding: str) -> Verdict:
    rows = [row for result in results if result.audit.kind == "shortcut" for row in result.found.rows]
    return worst([row.verdict for row in rows if row.finding == finding and row.verdict])


def _headline(subject: Subject, results: Sequence[AuditResult], by_finding: dict[str, Verdict]) -> str:
    """One or two sentences: above chance or not, then anatomy or shortcut."""
    auc, _ = subject.whole.over_findings()
    chance = next((result for result in results if result.audit.key == "above_chance"), None)
    words = [
        row.words
        for result in results
        if result.audit.kind == "shortcut"
        for row in result.found.rows
        if row.verdict == "fails" and row.words
    ][:1]
    if chance is not None and chance.verdict == "fails":
        first = f"Not above chance: the same pipeline reaches the mean AUC of {auc:.3f} on shuffled labels as well."
        return " ".join([first, *words])
    failed = [name for name, verdict in by_finding.items() if verdict == "fails"]
    unclear = [name for name, verdict in by_finding.items() if verdict == "can't tell"]
    if failed:
        titles = [
            result.audit.title.lower()
            for result in results
            if result.audit.kind == "shortcut" and any(row.verdict == "fails" for row in result.found.rows)
        ]
        return (
            f"Unproven for {_listed(failed)}: the AUC may rest on a shortcut ({', '.join(titles)}). "
            f"{' '.join([*words, _rest(by_finding, unclear)])}"
        ).strip()
    if unclear:
        return f"No shortcut was shown, but it can't be ruled out with so few images for {_listed(unclear)}."
    passed = [name for name, verdict in by_finding.items() if verdict == "passes"]
    if passed:
        return f"No shortcut found: all audits that could be run are passed for {_listed(passed)}."
    return "No audit for shortcuts could be run."


def _rest(by_finding: dict[str, Verdict], unclear: Sequence[str]) -> str:
    passed = [name for name, verdict in by_finding.items() if verdict == "passes"]
    words = [f"Passed for {_listed(passed)}."] if passed else []
    words += [f"Too few images to tell for {_listed(unclear)}."] if unclear else []
    return " ".join(words)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:4])} and {len(names) - 4} more findings"


def report_json(report: AuditReport) -> dict[str, Any]:
    """The report as plain JSON values, without pictures."""
    return {
        "headline": report.headline,
        "verdict": report.verdict,
        "by_finding": report.by_finding,
        "confidence": report.confidence,
        "left_out": list(report.left_out),
        "audits": {
            result.audit.key: {
                "title": result.audit.title,
                "question": result.audit.question,
                "kind": result.audit.kind,
                "did": result.audit.did,
                "fails": result.audit.fails,
                "passes": result.audit.passes,
                "verdict": result.verdict,
                "rows": [
                    {
                        "name": row.name,
                        "finding": row.finding,
                        "verdict": row.verdict,
                        "p": row.p,
                        "p_holm": row.p_holm,
                        "words": row.words,
                        "decides": row.decides or next(iter(row.numbers), ""),
                        "numbers": {
                            name: {**_values(number), "scale": number.scale} for name, number in row.numbers.items()
                        },
                    }
                    for row in result.found.rows
                ],
                "curves": {
                    curve.name: [{"level": level, **_values(number)} for level, number in curve.points]
                    for curve in result.found.curves
                },
                "notes": list(result.found.notes),
                "missing": list(result.found.missing),
            }
            for result in report.results
        },
    }


def _values(number: Number) -> dict[str, float | None]:
    """None for what is not known: JSON has no NaN."""
    values = {"value": number.value, "ci_low": number.low, "ci_high": number.high}
    return {name: None if math.isnan(value) else value for name, value in values.items()}
