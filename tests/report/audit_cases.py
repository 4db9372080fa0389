"""A made-up audit report with every verdict, every kind of picture, and what is hard to print."""

import math

import numpy as np

from scarce.audit.audits import AUDITS, AuditReport
from scarce.audit.verdicts import AuditResult, Curve, Exhibit, Found, Row, judge, worst
from scarce.audit.yardstick import Number, Scale

EVIL = "<script>alert(1)</script> | a*b $x_1$"
FINDINGS = ("hiatal hernia", "reticular interstitial pattern", EVIL)
NAN = Number(math.nan, math.nan, math.nan, "shift")
REASON = "there is one hospital only"
IN_PART = f"No marker was pasted in: none was found in films of {EVIL}."
LEFT_OUT = f"{EVIL} too: 2 test patients, needs 6"


def number(value: float, reach: float = 0.05, scale: Scale = "AUC") -> Number:
    return Number(value, value - reach, value + reach, scale)


def ablation(name: str, left: float, p: float, small: bool) -> Row:
    numbers = {
        "what is left": number(left),
        "whole picture": number(0.701),
        "whole minus it": number(0.701 - left, scale="difference"),
        "in women": number(left - 0.123),
    }
    return Row(name, name, numbers, p, small)


def shift(name: str, value: Number) -> Row:
    return Row(f"{name}, foreign marker", name, {"shift of the score, s.d.": value}, 1.0)


def film(side: int = 64) -> np.ndarray:
    return np.linspace(0, 255, side * side).reshape(side, side).astype(np.uint8)


def exhibits(count: int) -> tuple[Exhibit, ...]:
    heat, outline = film() / 255, film() > 128
    marked = Exhibit(f"{EVIL}: a caption of two lines at least", film(), heat, outline, (0.2, 0.3, 0.6, 0.5))
    return (Exhibit("a film as it is", film()), *[marked] * (count - 1))


def curves(count: int) -> tuple[Curve, ...]:
    points = tuple((level, number(0.7 - level, 0.04)) for level in (0.0, 0.005, 0.01, 0.02, 0.04))
    return tuple(Curve(f"corruption {i}", "share of the range", points, (0.005,)) for i in range(count))


def many_rows(count: int) -> Found:
    names = [f"{FINDINGS[i % 2]} {i}, corners masked" for i in range(count)]
    return Found(tuple(ablation(name, 0.5 + i / 200, 0.5, i % 3 == 0) for i, name in enumerate(names)))


def make_report() -> AuditReport:
    """Fails for the first finding, can't tell for the second, and passes for the third."""
    first, second, third = FINDINGS
    chance = Row("mean over findings", None, {"AUC": number(0.66), "on shuffled labels": number(0.5)}, verdict="passes")
    lost = {"AUC": number(0.7), "lost": number(0.07, 0.01, "difference")}
    blurred = Row("blur 0.005", None, lost, 0.001, decides="lost")
    found = {
        "above_chance": Found((chance,)),
        "lungs_removed": Found(
            (
                ablation(first, 0.655, 1e-6, False),
                ablation(second, 0.56, 0.4, False),
                ablation(third, 0.512, 0.5, True),
            ),
            exhibits(1),
            notes=(f"Masks of {EVIL}.",),
        ),
        "corner_markers": Found(
            (shift(first, NAN), shift(second, Number(0.31, math.nan, math.nan, "shift"))), missing=(IN_PART,)
        ),
        "encoded_attributes": Found(
            (Row("sex, told from the features", None, {"AUC": number(0.844)}, words="It is known."),)
        ),
        "corruption_curves": Found((blurred,), curves=curves(2)),
        "cross_hospital": Found((), missing=(f"{REASON}.",)),
        "where_it_looked": Found((), exhibits(2)),
    }
    audits = [audit for audit in AUDITS if audit.key in found]
    results = [AuditResult(one, found[one.key]) for one in audits]
    results = judge(results, 0.9)
    rows = [row for result in results if result.audit.kind == "shortcut" for row in result.found.rows]
    by_finding = {
        name: worst([row.verdict for row in rows if row.finding == name and row.verdict]) for name in FINDINGS
    }
    return AuditReport(f"Unproven for {first}, not for {EVIL}.", "fails", by_finding, results, 0.9, (LEFT_OUT,))
