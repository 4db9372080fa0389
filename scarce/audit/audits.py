"""All audits of a result, one after the other, and what they come to together. Read `run_audits` from the top."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarce.audit.ablations import border_only, lungs_removed
from scarce.audit.acquisition import acquisition_only
from scarce.audit.chance import above_chance
from scarce.audit.corner_markers import corner_markers
from scarce.audit.cross_hospital import cross_hospital
from scarce.audit.encoded import encoded_attributes
from scarce.audit.matched import matched_test
from scarce.audit.robustness import corruption_curves
from scarce.audit.subject import Subject
from scarce.audit.verdicts import AuditResult, CannotRun, Found, Kind, Verdict, judge, worst
from scarce.audit.where_it_looked import where_it_looked


@dataclass(frozen=True)
class Audit:
    """One audit: what it is called and asks, and how it is run."""

    key: str
    kind: Kind
    title: str
    question: str
    run: Callable[[Subject], Found]


AUDITS = (
    Audit(
        *("above_chance", "chance", "Chance"),
        "Is the result above what the same pipeline reaches on shuffled labels?",
        above_chance,
    ),
    Audit(
        *("lungs_removed", "shortcut", "Lungs removed"),
        "Does the model still find it when it is not shown the lungs?",
        lungs_removed,
    ),
    Audit(
        *("border_only", "shortcut", "Only the border"),
        "Does the model find it in the outermost tenth of the picture alone?",
        border_only,
    ),
    Audit(
        *("corner_markers", "shortcut", "Corner markers"),
        "Does the model need the corners, and does a foreign side marker change its mind?",
        corner_markers,
    ),
    Audit(
        *("encoded_attributes", "shortcut", "Hospital, view, sex, age"),
        "What else do the features know, and do the scores follow it?",
        encoded_attributes,
    ),
    Audit(
        *("acquisition_only", "shortcut", "Acquisition only"),
        "What do exposure, view and file tell without the picture? A result has to clear that floor.",
        acquisition_only,
    ),
    Audit(
        *("matched_test", "shortcut", "Matched test"),
        "Is the AUC still there among films of the same view, sex and age band?",
        matched_test,
    ),
    Audit(
        *("corruption_curves", "robustness", "Corruption curves"),
        "How far may the next hospital's films differ before the model loses what it knew?",
        corruption_curves,
    ),
    Audit(
        *("cross_hospital", "robustness", "In-hospital and cross-hospital"),
        "Does a probe trained on one hospital's films work at the other?",
        cross_hospital,
    ),
    Audit(
        *("where_it_looked", "look", "Where it looked"),
        "Which part of the film moved the score?",
        where_it_looked,
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


def run_audits(subject: Subject, audits: Sequence[Audit] = AUDITS) -> AuditReport:
    """Run the audits; one that can't be run says why, and the others run."""
    results = []
    for audit in audits:
        try:
            found = audit.run(subject)
        except CannotRun as reason:
            found = Found((), notes=(f"Not run: {reason}.",))
        results.append(AuditResult(audit.key, audit.title, audit.question, audit.kind, found))
    confidence = subject.protocol.confidence
    results = judge(results, confidence)
    by_finding = {name: _of_finding(results, name) for name in subject.task.findings}
    return AuditReport(
        headline=_headline(subject, results, by_finding),
        verdict=worst(list(by_finding.values())),
        by_finding=by_finding,
        results=results,
        confidence=confidence,
    )


def _of_finding(results: Sequence[AuditResult], finding: str) -> Verdict:
    rows = [row for result in results if result.kind == "shortcut" for row in result.found.rows]
    return worst([row.verdict for row in rows if row.finding == finding and row.verdict])


def _headline(subject: Subject, results: Sequence[AuditResult], by_finding: dict[str, Verdict]) -> str:
    """One or two sentences: above chance or not, then anatomy or shortcut."""
    auc = float(np.mean(subject.whole.values))
    chance = next((result for result in results if result.key == "above_chance"), None)
    if chance is not None and chance.verdict == "fails":
        return f"Not above chance: the mean AUC of {auc:.3f} is what the same pipeline reaches on shuffled labels."
    failed = [name for name, verdict in by_finding.items() if verdict == "fails"]
    unclear = [name for name, verdict in by_finding.items() if verdict == "can't tell"]
    if failed:
        titles = [
            result.title.lower()
            for result in results
            if result.kind == "shortcut" and any(row.verdict == "fails" for row in result.found.rows)
        ]
        return (
            f"Unproven for {_listed(failed)}: a shortcut explains the AUC, or part of it ({', '.join(titles)}). "
            f"{_rest(by_finding, unclear)}"
        ).strip()
    if unclear:
        return f"No shortcut was shown, but it can't be ruled out with so few images for {_listed(unclear)}."
    if all(verdict == "passes" for verdict in by_finding.values()):
        return f"No shortcut found: all audits that could be run are passed for {_listed(list(by_finding))}."
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
        "audits": {
            result.key: {
                "title": result.title,
                "question": result.question,
                "kind": result.kind,
                "verdict": result.verdict,
                "rows": [
                    {
                        "name": row.name,
                        "finding": row.finding,
                        "verdict": row.verdict,
                        "p": row.p,
                        "p_holm": row.p_holm,
                        "words": row.words,
                        "numbers": {
                            name: {"value": number.value, "ci_low": number.low, "ci_high": number.high}
                            for name, number in row.numbers.items()
                        },
                    }
                    for row in result.found.rows
                ],
                "curves": {
                    curve.name: [
                        {"level": level, "auc": number.value, "ci_low": number.low, "ci_high": number.high}
                        for level, number in curve.points
                    ]
                    for curve in result.found.curves
                },
                "notes": list(result.found.notes),
            }
            for result in report.results
        },
    }
