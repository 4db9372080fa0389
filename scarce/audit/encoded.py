"""Audit 4: what else the features know, whether it is tied to a finding, and whether the scores follow it.

That features tell hospitals, views or the sexes apart is no failure by itself (Glocker et al. 2023, "Algorithmic
encoding of protected characteristics in chest X-ray disease detection models", eBioMedicine 89). It takes three things
for a shortcut: the features know the attribute, the attribute is tied to the finding among the films that are scored,
and the score follows the attribute among patients without the finding, in the direction of that tie. A row fails only
if each of the three is shown, so its p is the largest of theirs (an intersection-union test, Berger 1982).
"""

from dataclasses import dataclass, replace

import numpy as np

from scarce.audit.attributes import Attribute, Tie, attributes_of, missing_attributes, tie
from scarce.audit.subject import FrozenPipeline, Subject
from scarce.audit.verdicts import CannotRun, Found, Row
from scarce.audit.yardstick import Number, Yardstick
from scarce.data.pixels import reduce_images
from scarce.data.splits import image_splits
from scarce.fewshot.episodes import Episode, label_matrix
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.statistics import CHANCE
from scarce.fewshot.task import Scores, Task
from scarce.files import stable_hash

TOLERATED = 0.10  # AUC above chance
PROBE = ProbeConfig(normalise="standardise")
FEWEST_TRAINING, FEWEST_TEST = 10, 5  # patients of either kind
MOST = 300  # films of either hospital that its probe is trained on, and again tested on


@dataclass(frozen=True, eq=False)
class _Films:
    """Films with the features that a probe may use, and what it must not be able to use."""

    features: np.ndarray  # float32 [N, D]
    patients: np.ndarray  # str [N]
    image_ids: np.ndarray  # str [N]
    held_out: np.ndarray  # bool [N]
    values: np.ndarray  # the attribute: 1, 0, NaN
    strata: list[tuple[object, ...]]  # films are matched within these: their findings


def encoded_attributes(subject: Subject) -> Found:
    """How well a probe on the features tells hospitals, AP from PA, the sexes and age bands; and who follows them."""
    rows = []
    missing = [f"Not asked: {reason}." for reason in missing_attributes(subject.films)]
    known: dict[str, tuple[Number, float]] = {}
    attributes = attributes_of(subject.films)
    if subject.frozen is None:
        missing.append("Fine-tuned networks have no features without labels: only ties and scores are judged.")
    else:
        features = subject.frozen.features(subject.task.images)
        for attribute in attributes:
            try:
                known[attribute.name] = _tell(_from_task(subject, features, attribute), attribute.name, subject)
            except CannotRun as reason:
                missing.append(f"{attribute.name}: {reason}.")
        try:
            number, _ = _tell(_both_hospitals(subject, subject.frozen), "hospital", subject)
            words = "All labels come from one hospital, so this can't have been used; labels of both must not be mixed."
            rows.append(_informing("hospital", number, words))
        except CannotRun as reason:
            missing.append(f"hospital: {reason}.")
    rows += [_informing(name, number, "") for name, (number, _) in known.items()]
    for attribute in attributes:
        rows += _followed(subject, attribute, known.get(attribute.name))
    if not rows:
        raise CannotRun("; ".join(reason.rstrip(".") for reason in missing))
    return Found(tuple(rows), missing=tuple(missing))


def _informing(name: str, number: Number, words: str) -> Row:
    return Row(name=f"{name}, told from the features", finding=None, numbers={"AUC": number}, words=words)


def _from_task(subject: Subject, features: np.ndarray, attribute: Attribute) -> _Films:
    task = subject.task
    labelled = subject.films["labels"].notna().to_numpy()
    return _Films(
        features,
        task.patients,
        task.image_ids,
        np.isin(np.arange(len(task.images)), subject.held_out),
        np.where(labelled, attribute.values, np.nan),
        [tuple(row) for row in task.labels.tolist()],
    )


def _both_hospitals(subject: Subject, frozen: FrozenPipeline) -> _Films:
    """Films of both hospitals, to be matched by the labels that both use and by view."""
    if subject.other is None:
        raise CannotRun("there is one hospital only")
    tables = [dataset.metadata() for dataset in (subject.hospital, subject.other)]
    names = [{label for labels in table["labels"].dropna() for label in labels} for table in tables]
    shared = sorted(names[0] & names[1])
    features, patients, ids, held_out, values, strata = [], [], [], [], [], []
    for value, (dataset, table) in enumerate(zip((subject.hospital, subject.other), tables, strict=True)):
        split = image_splits(table, subject.protocol.fractions)
        order = np.argsort([stable_hash(["hospital", name]) for name in table["image_id"]], kind="stable")
        for part in ("pool", subject.task.held_out):
            rows = np.sort(order[(split == part)[order]][:MOST])
            if not len(rows):
                continue
            images = dataset.pixels(rows)
            if images.shape[1] > subject.size:
                images = reduce_images(images, subject.size)
            features.append(frozen.features(images))
            patients += [f"{value} {name}" for name in table["patient_id"].iloc[rows]]
            ids += [f"{value} {name}" for name in table["image_id"].iloc[rows]]
            held_out += [part != "pool"] * len(rows)
            values += [float(value)] * len(rows)
            labels = label_matrix(table.iloc[rows], shared)
            strata += [(view, *row) for view, row in zip(table["view"].iloc[rows], labels.tolist(), strict=True)]
    return _Films(
        np.concatenate(features), np.array(patients), np.array(ids), np.array(held_out), np.array(values), strata
    )


def _tell(films: _Films, name: str, subject: Subject) -> tuple[Number, float]:
    """The AUC of a probe for the attribute, with its interval, and its one-sided p against chance.

    Trained and tested on films matched for their findings: of every combination equally many of either kind, one film
    a patient.
    """
    chosen = {part: _matched_films(films, films.held_out == part, name) for part in (False, True)}
    counts = [len(yes) for yes, _ in chosen.values()]
    if counts[0] < FEWEST_TRAINING or counts[1] < FEWEST_TEST:
        raise CannotRun(
            f"{counts[0]} pairs of films matched for their findings to learn from and {counts[1]} to test on, "
            f"{FEWEST_TRAINING} and {FEWEST_TEST} are needed"
        )
    tested = np.sort(np.concatenate(chosen[True]))
    task = Task(
        held_out=subject.task.held_out,
        images=np.empty((0, 1, 1), np.uint8),
        image_ids=films.image_ids,
        patients=films.patients,
        labels=(films.values == 1)[:, None],
        findings=(name,),
        shots=((counts[0],),),
        seeds=(0,),
        episodes=(Episode(name, counts[0], 0, *chosen[False]),),
        evaluated=(tested,),
        reference=np.flatnonzero(~films.held_out),
        skipped=(),
    )
    yardstick = Yardstick(task, subject.count, subject.protocol.confidence)
    measured = yardstick.auc(score_task(task, films.features, PROBE))
    return yardstick.number(measured, 0), yardstick.p_auc(measured, 0)


def _matched_films(films: _Films, here: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of equally many films with and without the attribute in every stratum, one a patient."""
    order = np.argsort([stable_hash(["matched", name, image]) for image in films.image_ids], kind="stable")
    seen: set[str] = set()
    groups: dict[tuple[object, ...], tuple[list[int], list[int]]] = {}
    for row in order.tolist():
        if here[row] and not np.isnan(films.values[row]) and films.patients[row] not in seen:
            seen.add(films.patients[row])
            groups.setdefault(films.strata[row], ([], []))[0 if films.values[row] else 1].append(row)
    pairs = [(yes[: len(no)], no[: len(yes)]) for yes, no in groups.values()]
    yes, no = ([row for pair in pairs for row in pair[kind]] for kind in (0, 1))
    return np.array(yes, dtype=int), np.array(no, dtype=int)


def _followed(subject: Subject, attribute: Attribute, known: tuple[Number, float] | None) -> list[Row]:
    """For every finding: is the attribute tied to it, and do scores of patients without it follow the attribute?

    The tie is that of the films that are scored: where there is none, no AUC gains by it.
    """
    task, rows = subject.task, []
    for finding, name in enumerate(task.findings):
        scored = np.isin(np.arange(len(task.images)), task.evaluated[finding])
        tied = tie(attribute, task.labels[:, finding], scored, subject.films, subject.protocol.confidence)
        try:
            leaning, p_leaning = _leaning(subject, attribute, finding, tied)
        except CannotRun as reason:
            numbers = {"attribute alone": tied.auc}
            words = f"{tied.words}. {reason}, so whether scores follow it can't be told."
            rows.append(Row(f"{name}, by {attribute.name}", name, numbers, words=words, verdict="can't tell"))
            continue
        numbers = {"attribute alone": tied.auc, "score among those without it": leaning}
        p, small = max(tied.p, p_leaning), min(tied.auc.high, leaning.high) < CHANCE + TOLERATED
        if known is not None:
            numbers = {"features know it": known[0], **numbers}
            p, small = max(p, known[1]), small or known[0].high < CHANCE + TOLERATED
        words, decides = f"{tied.words}.", "score among those without it"
        rows.append(Row(f"{name}, by {attribute.name}", name, numbers, p, small, words=words, decides=decides))
    return rows


def _leaning(subject: Subject, attribute: Attribute, finding: int, tied: Tie) -> tuple[Number, float]:
    """The AUC of the finding's score for the attribute, among films without the finding, in the tie's direction."""
    task = subject.task
    without = ~task.truth(finding) & ~np.isnan(attribute.values[task.evaluated[finding]])
    rows = task.evaluated[finding][without]
    has = attribute.values[rows] == (1 if tied.sign > 0 else 0)
    if min(len(np.unique(task.patients[rows[has]])), len(np.unique(task.patients[rows[~has]]))) < FEWEST_TEST:
        raise CannotRun(f"Under {FEWEST_TEST} test patients without the finding are of either kind")
    labels = np.zeros((len(task.images), 1), dtype=bool)
    labels[rows[has]] = True
    part = replace(Yardstick(task).only(finding, rows), labels=labels)
    yardstick = Yardstick(part, subject.count, subject.protocol.confidence)
    measured = yardstick.auc(Scores((subject.scores.values[finding][..., without],)))
    return yardstick.number(measured, 0), yardstick.p_auc(measured, 0)
