"""Audit 10: is the result above what the same pipeline reaches on shuffled labels?

Labels are shuffled among the patients of the pool and among those held out, and everything from the choice of the few
labelled films to the AUC is done again (a permutation test of the whole pipeline: Ojala & Garriga 2010, JMLR 11:1833,
test 1). Pretraining saw no labels and stays.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun, Found, Row
from scarce.audit.yardstick import Number, interval
from scarce.fewshot.episodes import Episode, draw_episodes, negative_images
from scarce.fewshot.evaluate import auc_by_cell
from scarce.fewshot.task import Task
from scarce.files import stable_hash

ATTEMPTS = 100  # at a shuffle that can be used


def above_chance(subject: Subject) -> Found:
    """The mean AUC over findings against its distribution under shuffled labels."""
    confidence = subject.protocol.confidence
    observed, draws = subject.whole.over_findings()
    shuffled = []
    for number in range(subject.permutations):
        if subject.frozen is None:  # fine-tuning on every shuffle would take hours
            variant = shuffle_held_out(subject.task, number)
            scores = subject.scores
        else:
            variant = shuffle_labels(subject.task, number)
            scores = subject.score(variant)
        shuffled.append(float(np.concatenate(auc_by_cell(variant, scores)).mean()))
    p = (1 + sum(value >= observed for value in shuffled)) / (1 + len(shuffled))
    low, high = np.quantile(shuffled, [(1 - confidence) / 2, (1 + confidence) / 2])
    above = p < 1 - confidence
    row = Row(
        name="mean over findings",
        finding=None,
        numbers={
            "AUC": interval(observed, draws, confidence),
            "on shuffled labels": Number(float(np.mean(shuffled)), float(low), float(high)),
        },
        words=f"{len(shuffled)} shuffles, p = {p:.2g}.",
        verdict="passes" if above else "fails",
    )
    note = "Shuffled among the pool's patients and among the held-out ones; probes were trained anew on every shuffle."
    if subject.frozen is None:
        note = "Shuffled among the held-out patients only: fine-tuning anew on every shuffle would take hours."
    return Found((row,), notes=(note,))


def shuffle_held_out(task: Task, number: int) -> Task:
    """The task with the labels of every finding's held-out patients shuffled; what is trained stays the same.

    Only the number of positive films, not that of positive patients, may change a little with patients of several
    films.
    """
    labels = task.labels.copy()
    for finding, rows in enumerate(task.evaluated):
        for rng in _generators(number):
            shuffled = _shuffled(task.labels[rows, finding], task.patients[rows], rng)
            if shuffled.any() and not shuffled.all():
                break
        labels[rows, finding] = shuffled
    return replace(task, labels=labels)


def shuffle_labels(task: Task, number: int) -> Task:
    """The task with the labels of its patients shuffled, within the pool and within those held out.

    A patient gets all labels of another one, so findings keep their company and a patient's films stay alike. The few
    labelled films are drawn again from those that the task's episodes hold. A shuffle that leaves a finding without
    films of either class, where few patients have it and they have many films, is drawn again.
    """
    in_episodes = [rows for episode in task.episodes for rows in (episode.positives, episode.negatives)]
    pool, held_out = np.unique(np.concatenate(in_episodes)), np.unique(np.concatenate(task.evaluated))
    for rng in _generators(number):
        labels = np.zeros_like(task.labels)
        for rows in (pool, held_out):
            labels[rows] = _shuffled(task.labels[rows], task.patients[rows], rng)
        if all(_has_both_classes(labels[rows], task.patients[rows]) for rows in (pool, held_out)):
            break
    evaluated, shots, episodes = [], [], list[Episode]()
    labelled = np.ones(len(labels), dtype=bool)
    for finding, name in enumerate(task.findings):
        positive = labels[:, finding]
        negative = {
            part: rows[negative_images(positive[rows], labelled[rows], task.patients[rows])]
            for part, rows in (("pool", pool), ("held out", held_out))
        }
        evaluated.append(np.sort(np.concatenate([held_out[positive[held_out]], negative["held out"]])))
        known = pool[positive[pool]]
        supply = min(len(np.unique(task.patients[rows])) for rows in (known, negative["pool"]))
        able = (min(task.shots[finding][-1], supply),)
        shots.append(able)
        episodes += draw_episodes(name, known, negative["pool"], task.patients, able, task.seeds)
    return replace(task, labels=labels, evaluated=tuple(evaluated), shots=tuple(shots), episodes=tuple(episodes))


def _has_both_classes(labels: np.ndarray, patients: np.ndarray) -> bool:
    """Whether every finding is left with positive films, and with patients who have none: bool [n, F], [n]."""
    return all(positive.any() and not np.isin(patients, patients[positive]).all() for positive in labels.T)


def _generators(number: int) -> Iterator[np.random.Generator]:
    """Generators for one shuffle, to be tried in turn until it can be used.

    Raises:
        CannotRun: none of a hundred could.
    """
    for attempt in range(ATTEMPTS):
        yield np.random.default_rng(int(stable_hash(["shuffled labels", number, attempt]), 16))
    raise CannotRun("with so few patients no shuffle leaves every finding both classes")


def _shuffled(labels: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels [n, ...] with each patient's images given those of another patient, over and over where it has more."""
    names, owner = np.unique(patients, return_inverse=True)
    images = [np.flatnonzero(owner == number) for number in range(len(names))]
    result = np.empty_like(labels)
    for mine, other in zip(images, rng.permutation(len(names)), strict=True):
        result[mine] = labels[np.resize(images[other], len(mine))]
    return result
