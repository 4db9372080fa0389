"""Audits 1 and 2: what a probe still finds when the lungs are blacked out, and when all but the border is.

Maguolo & Nanni (2021, "A critic evaluation of methods for COVID-19 automatic detection from X-ray images", Information
Fusion 76:1) blacked out the lungs at training and test and kept near-perfect scores. So does a probe here that reads
markers, borders, exposure or how the patient lay.
"""

import numpy as np

from scarce.audit.regions import black_out, frame, lung_territory, thorax_box
from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun, Exhibit, Found, Row
from scarce.audit.yardstick import Measured
from scarce.fewshot.statistics import CHANCE

TOLERATED = 0.10  # AUC above chance; passing needs an interval wholly below


def lungs_removed(subject: Subject) -> Found:
    """The AUC of the pipeline when the lungs are black in every picture, training and test."""
    if subject.unusable_masks:
        raise CannotRun(subject.unusable_masks)
    if subject.lungs is None:
        region, where = thorax_box(subject.size), "the central box of the thorax, as there are no lung masks"
    else:
        region, where = lung_territory(subject.lungs), "wherever a film's lungs are, by the lung masks"
    return _ablation(
        subject,
        region,
        f"Blacked out at training and test: {where}.",
    )


def border_only(subject: Subject) -> Found:
    """The AUC of the pipeline when it sees nothing but the outer frame of every picture, training and test."""
    return _ablation(
        subject,
        ~frame(subject.size),
        "Blacked out at training and test: all but the outermost tenth of the picture on each side.",
    )


def _ablation(subject: Subject, region: np.ndarray, note: str) -> Found:
    images = black_out(subject.task.images, region)
    alone = subject.yardstick.auc(subject.with_images(images))
    rows = tuple(evidence_row(subject, alone, finding, "what is left") for finding in range(len(subject.task.findings)))
    example = subject.task.evaluated[0][0]
    return Found(rows, (Exhibit("as the model was shown it", images[example]),), notes=(note,))


def evidence_row(subject: Subject, alone: Measured, finding: int, name: str, cleared: bool = False) -> Row:
    """The claim that a result rests on something which is no anatomy: it is above chance, and so is that alone.

    It is excused if the whole picture is shown to give more, and it is small besides (or `cleared`: a floor may be as
    high as it likes if the result clears it). It is not, however small, if the whole picture gives no more.
    """
    yardstick = subject.yardstick
    number = yardstick.number(alone, finding)
    gain = yardstick.difference(subject.whole.minus(alone), finding)
    small = number.high < CHANCE + TOLERATED
    return Row(
        name=subject.task.findings[finding],
        finding=subject.task.findings[finding],
        numbers={name: number, "whole picture": yardstick.number(subject.whole, finding), "whole minus it": gain},
        p=max(yardstick.p_auc(alone, finding), yardstick.p_auc(subject.whole, finding)),
        small=small,
        excused=(small or cleared) and gain.low > 0,
    )
