"""What an audit says: rows of numbers, and a verdict a row that accounts for all the others.

An audit claims for every row that something is wrong, with a p-value. The verdict is

    fails         the claim is shown (Holm-corrected over all deciding rows of the report), and nothing excuses it
    passes        the effect is shown to be smaller than what the audit tolerates, or it is excused
    can't tell    neither: too few images

so that the probability that a report has any `fails` in it where no shortcut is to be had is at most 1 - confidence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scarce.audit.subject import Subject
from scarce.audit.yardstick import Number
from scarce.fewshot.statistics import holm

Verdict = Literal["passes", "fails", "can't tell", "not run"]
Kind = Literal["chance", "shortcut", "robustness", "look"]
ORDER: tuple[Verdict, ...] = ("fails", "can't tell", "passes", "not run")


class CannotRun(Exception):
    """An audit, or a row of one, has nothing to work on. The message says why, in a sentence for the report."""


@dataclass(frozen=True)
class Row:
    """One claim of an audit."""

    name: str  # the finding, and what else it is about
    finding: str | None  # None where the row is about all of them
    numbers: dict[str, Number]
    p: float | None = None  # of the hypothesis that nothing is wrong; None: the row only informs
    small: bool = False  # shown to be smaller than tolerated
    excused: bool = False  # whatever p says
    words: str = ""  # what else there is to say, in a sentence
    decides: str = ""  # the name of the number that the claim is about; by default the first one's
    verdict: Verdict | None = None  # given by `judge`
    p_holm: float | None = None


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A picture: a film as the model was shown it, possibly with a heat map in [0, 1] over it and a box."""

    caption: str
    image: np.ndarray  # uint8 [S, S]
    heat: np.ndarray | None = None  # float [S, S]
    outline: np.ndarray | None = None  # bool [S, S]
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom, shares of the side


@dataclass(frozen=True)
class Curve:
    """A quantity along a scale: one (x, number) a level."""

    name: str
    unit: str
    points: tuple[tuple[float, Number], ...]
    marked: tuple[float, ...] = ()  # levels that the verdict is about


@dataclass(frozen=True, eq=False)
class Found:
    """What an audit found, before it is judged beside the others."""

    rows: tuple[Row, ...]
    exhibits: tuple[Exhibit, ...] = ()
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # what could not be run, and why


@dataclass(frozen=True)
class Audit:
    """One audit: what it is called and asks, what it does and what its verdicts say, for a reader of films."""

    key: str
    kind: Kind
    title: str
    question: str
    did: str  # in a sentence
    fails: str  # completes "it fails: ..."
    passes: str
    run: Callable[[Subject], Found]


@dataclass(frozen=True, eq=False)
class AuditResult:
    """An audit with what it found and its verdict."""

    audit: Audit
    found: Found
    verdict: Verdict = "not run"


def judge(results: Sequence[AuditResult], confidence: float) -> list[AuditResult]:
    """Give every row and every audit its verdict.

    Rows of the shortcut audits share one Holm correction; those of every other audit have their own.
    """
    groups: dict[str, list[tuple[int, int]]] = {}
    for number, result in enumerate(results):
        group = "shortcut" if result.audit.kind == "shortcut" else result.audit.key
        groups.setdefault(group, []).extend((number, i) for i, row in enumerate(result.found.rows) if row.p is not None)
    rows = [list(result.found.rows) for result in results]
    for places in groups.values():
        p_values = [float(rows[number][i].p or 0.0) for number, i in places]
        for (number, i), p in zip(places, holm(p_values), strict=True):
            row = rows[number][i]
            shown = p < 1 - confidence and not row.excused
            verdict: Verdict = "fails" if shown else "passes" if row.small or row.excused else "can't tell"
            rows[number][i] = replace(row, p_holm=p, verdict=verdict)
    return [
        replace(
            result,
            found=replace(result.found, rows=tuple(judged)),
            verdict=worst([row.verdict for row in judged if row.verdict]),
        )
        for result, judged in zip(results, rows, strict=True)
    ]


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Fails before can't tell before passes; "not run" where there is none."""
    return min(verdicts, key=ORDER.index, default="not run")
