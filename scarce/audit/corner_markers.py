"""Audit 3: what the corners are worth to the model, and what another hospital's side marker does to its scores."""

import numpy as np

from scarce.audit.markers import cut_markers, paste
from scarce.audit.regions import black_out, corners
from scarce.audit.subject import Subject
from scarce.audit.verdicts import Exhibit, Found, Row
from scarce.audit.yardstick import interval, p_above
from scarce.data.pixels import reduce_images
from scarce.data.store import Dataset
from scarce.fewshot.task import Scores
from scarce.files import stable_hash

TOLERATED_LOSS = 0.05  # of AUC: masking anything costs a little, whatever lay below
TOLERATED_SHIFT = 0.5  # standard deviations of the score
DONORS = 200  # films of the other hospital that are searched for a marker


def corner_markers(subject: Subject) -> Found:
    """The AUC that is lost with the corners masked, training and test; and the shift of scores by a pasted marker."""
    images = black_out(subject.task.images, corners(subject.size))
    masked = subject.yardstick.auc(subject.with_images(images))
    lost = subject.whole.minus(masked)
    rows = []
    for finding, name in enumerate(subject.task.findings):
        loss = subject.yardstick.difference(lost, finding)
        rows.append(
            Row(
                name=f"{name}, corners masked",
                finding=name,
                numbers={
                    "whole picture": subject.yardstick.number(subject.whole, finding),
                    "corners masked": subject.yardstick.number(masked, finding),
                    "lost": loss,
                },
                decides="lost",
                p=subject.yardstick.p_difference(lost, finding, null=TOLERATED_LOSS),
                small=loss.high < TOLERATED_LOSS,
            )
        )
    example = subject.task.evaluated[0][0]
    exhibit = Exhibit("corners masked", images[example])
    if subject.other is None:
        return Found(tuple(rows), (exhibit,), missing=("No marker was pasted in: there is one hospital only.",))
    markers = cut_markers(_donors(subject, subject.other))
    if not markers:
        note = f"No marker was pasted in: none was found in films of {subject.other.manifest.hospital}."
        return Found(tuple(rows), (exhibit,), missing=(note,))
    pasted = subject.with_held_out(lambda films: paste(films, markers))
    rows += [_shift(subject, pasted, finding) for finding in range(len(subject.task.findings))]
    foreign = Exhibit("a foreign marker pasted in", paste(subject.task.images[[example]], markers)[0])
    note = f"{len(markers)} markers were cut from films of {subject.other.manifest.hospital}."
    return Found(tuple(rows), (exhibit, foreign), notes=(note,))


def _donors(subject: Subject, other: Dataset) -> np.ndarray:
    """Films of the other hospital, at the size of the task's: uint8 [at most 200, S, S]."""
    names = other.metadata()["image_id"]
    chosen = np.argsort([stable_hash(["donor", name]) for name in names], kind="stable")[:DONORS]
    return reduce_images(other.pixels(np.sort(chosen)), subject.size)


def _shift(subject: Subject, pasted: Scores, finding: int) -> Row:
    """The mean change of a film's score, in standard deviations of its probe's scores; crossed bootstrap as for AUC."""
    before, after = (scores.values[finding][0] for scores in (subject.scores, pasted))  # [seeds, images]
    deviation = before.std(axis=1, keepdims=True)
    change = (after - before) / np.where(deviation > 0, deviation, 1)
    resamples = subject.yardstick.resamples
    weights = resamples.patients[:, resamples.codes[subject.task.evaluated[finding]]].astype(float)
    draws = np.einsum("br,ri,bi->b", resamples.seeds[finding], change, weights) / weights.sum(axis=1)
    value = float(change.mean())
    name = subject.task.findings[finding]
    number = interval(value, draws, subject.protocol.confidence, "shift")
    away = np.sign(value) or 1.0
    patients = subject.yardstick.patients[finding]
    return Row(
        name=f"{name}, foreign marker",
        finding=name,
        numbers={"shift of the score, s.d.": number},
        p=p_above(abs(value), away * draws, TOLERATED_SHIFT, (sum(patients) // 2, sum(patients) // 2)),
        small=max(abs(number.low), abs(number.high)) < TOLERATED_SHIFT,
    )
