"""Audit 7: how the AUC falls as held-out films move away from those that the probe was trained on."""

from collections.abc import Sequence
from dataclasses import replace

from scarce.audit.corruptions import CORRUPTIONS, Corruption
from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun, Curve, Exhibit, Found, Row
from scarce.audit.yardstick import Measured, Number, interval, p_above

TOLERATED = 0.05  # of AUC, at a mild level


def corruption_curves(subject: Subject, corruptions: Sequence[Corruption] = CORRUPTIONS) -> Found:
    """The AUC, the mean over findings, at every level of every corruption of the held-out films."""
    if subject.frozen is None:
        raise CannotRun("every level would take a fine-tuning of its own")
    rows, curves, exhibits = [], [], []
    example = subject.task.images[subject.task.evaluated[0][:1]]
    for corruption in corruptions:
        points = []
        for level in corruption.levels:
            measured = subject.whole
            if level != corruption.neutral:
                scores = subject.with_held_out(lambda films, c=corruption, x=level: c.apply(films, x))  # type: ignore[misc]
                measured = subject.yardstick.auc(scores)
            points.append((level, _mean(subject, measured)))
            if level in corruption.mild:
                rows.append(_loss(subject, measured, f"{corruption.name} {level:g}"))
        curves.append(Curve(corruption.name, corruption.unit, tuple(points), corruption.mild))
        furthest = max(corruption.levels, key=lambda level: abs(level - corruption.neutral))
        exhibits.append(Exhibit(f"{corruption.name} {furthest:g}", corruption.apply(example, furthest)[0]))
    note = "The probe is trained on films as they are; only held-out ones change. AUC is the mean over findings."
    return Found(tuple(rows), tuple(exhibits), tuple(curves), (note,))


def _mean(subject: Subject, measured: Measured) -> Number:
    return interval(*measured.over_findings(), subject.protocol.confidence)


def _loss(subject: Subject, measured: Measured, name: str) -> Row:
    lost = subject.whole.minus(measured)
    number = replace(_mean(subject, lost), scale="difference")
    fewest = min(subject.yardstick.patients, key=min)
    return Row(
        name=name,
        finding=None,
        numbers={"AUC": _mean(subject, measured), "lost": number},
        decides="lost",
        p=p_above(*lost.over_findings(), TOLERATED, fewest),
        small=number.high < TOLERATED,
    )
