"""Audit 8: what becomes of the AUC when the few labelled films come from the other hospital."""

from dataclasses import replace

import numpy as np

from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun, Found, Row
from scarce.audit.yardstick import Yardstick
from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.fewshot.task import Task, build_task

TOLERATED = 0.05  # of AUC


def cross_hospital(subject: Subject) -> Found:
    """In-hospital against cross-hospital AUC on the same test films, in both directions, and the drop."""
    if subject.other is None:
        raise CannotRun("there is one hospital only, and a result of one hospital says nothing of the next")
    here, there, left_out = _tasks(subject, subject.other)
    names = [dataset.manifest.hospital for dataset in (subject.hospital, subject.other)]
    rows = [*_compare(subject, here, there, *names), *_compare(subject, there, here, *reversed(names))]
    note = "The test films are the same; only where the few labelled films come from differs."
    return Found(tuple(rows), notes=(note,), missing=tuple(left_out))


def _tasks(subject: Subject, other: Dataset) -> tuple[Task, Task, list[str]]:
    """Both hospitals' tasks over the findings that both can supply, with equal shots; and why others are left out."""
    usable, left_out = [], []
    for name in subject.task.findings:
        try:
            _task(subject, other, (name,))
            usable.append(name)
        except UserError as reason:
            left_out.append(f"{name} is left out: at {other.manifest.hospital}, {reason}.")
    if not usable:
        raise CannotRun(
            f"too few films at {other.manifest.hospital} with any of {', '.join(subject.task.findings)} (the "
            "same finding must have the same name at both hospitals)"
        )
    here, there = (_task(subject, dataset, tuple(usable)) for dataset in (subject.hospital, other))
    if here.images.shape[1:] != there.images.shape[1:]:
        raise CannotRun(
            f"the films are {here.images.shape[1]} pixels a side here and {there.images.shape[1]} there: convert both "
            "at the same size"
        )
    common = tuple(max(set(a) & set(b)) for a, b in zip(here.shots, there.shots, strict=True))
    return here.with_shots(common), there.with_shots(common), left_out


def _task(subject: Subject, dataset: Dataset, findings: tuple[str, ...]) -> Task:
    protocol = replace(subject.protocol, findings=findings)
    held_out, seeds = subject.task.held_out, subject.task.seeds
    return build_task(dataset, protocol, held_out=held_out, seeds=seeds, largest_size=subject.size)


def _compare(subject: Subject, test: Task, training: Task, here: str, there: str) -> list[Row]:
    yardstick = Yardstick(test, subject.count, subject.protocol.confidence)
    inside = yardstick.auc(subject.score(test))
    outside = yardstick.auc(subject.score(borrowed(test, training)))
    drop = inside.minus(outside)
    rows = []
    for finding, name in enumerate(test.findings):
        lost = yardstick.difference(drop, finding)
        numbers = {
            "in-hospital": yardstick.number(inside, finding),
            "cross-hospital": yardstick.number(outside, finding),
            "drop": lost,
        }
        words = f"Tested at {here}; labelled films from there, and from {there}."
        p = yardstick.p_difference(drop, finding, null=TOLERATED)
        rows.append(
            Row(f"{name} at {here}", name, numbers, p, small=lost.high < TOLERATED, words=words, decides="drop")
        )
    return rows


def borrowed(test: Task, training: Task) -> Task:
    """The held-out films of one task, with the episodes and the reference films of another over the same findings."""
    offset = len(training.images)
    return replace(
        test,
        images=np.concatenate([training.images, test.images]),
        image_ids=np.concatenate([training.image_ids, test.image_ids]),
        patients=np.concatenate([np.char.add("training ", training.patients), test.patients]),
        labels=np.concatenate([training.labels, test.labels]),
        episodes=training.episodes,
        evaluated=tuple(rows + offset for rows in test.evaluated),
        reference=training.reference,
    )
