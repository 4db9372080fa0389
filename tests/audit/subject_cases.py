"""Small tasks and subjects made by hand, whose truth, scores and attributes are known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scarce.audit.subject import Pipeline, Subject
from scarce.fewshot.episodes import Episode
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task


@dataclass(frozen=True)
class Hospital:
    """A dataset of which only the table is asked for."""

    table: pd.DataFrame

    def metadata(self) -> pd.DataFrame:
        return self.table


def make_task(rng, positives=20, negatives=40, findings=("mass",), pool=40, shots=8, seeds=3, images_a_patient=1):
    """Pool patients first, half of them with each finding, then those held out; random 16-pixel images."""
    patients = np.repeat(np.arange(pool + positives + negatives), images_a_patient)
    held_out = np.flatnonzero(patients >= pool)
    ill = np.zeros((patients.max() + 1, len(findings)), dtype=bool)
    for finding in range(len(findings)):
        ill[: pool // 2, finding] = True
        ill[pool + rng.permutation(positives + negatives)[:positives], finding] = True
        ill[:pool, finding] = rng.permutation(ill[:pool, finding])
    labels = ill[patients]
    first = np.flatnonzero(np.diff(patients, prepend=-1))  # an image of every patient

    def draw(finding: int, truth: bool) -> np.ndarray:
        rows = first[(labels[first, finding] == truth) & (patients[first] < pool)]
        return rng.permutation(rows)[:shots]

    return Task(
        held_out="test",
        images=rng.integers(0, 256, (len(patients), 16, 16), dtype=np.uint8),
        image_ids=np.array([f"image {row}" for row in range(len(patients))]),
        patients=np.array([f"patient {number}" for number in patients]),
        labels=labels,
        findings=tuple(findings),
        shots=((shots,),) * len(findings),
        seeds=tuple(range(seeds)),
        episodes=tuple(
            Episode(name, shots, seed, draw(finding, True), draw(finding, False))
            for finding, name in enumerate(findings)
            for seed in range(seeds)
        ),
        evaluated=(held_out,) * len(findings),
        reference=np.flatnonzero(patients < pool),
        skipped=(),
    )


def make_films(task: Task, **columns: Any) -> pd.DataFrame:
    """The hospital's table: a row an image of the task, of 8-bit PNG files, with nothing known of the patients."""
    names = np.array(task.findings)
    constant = {"raw_bits": 8, "stretch_low": 0.0, "stretch_high": 255.0, "raw_width": 16, "raw_height": 16}
    unknown = {"view": None, "sex": None, "age": np.nan, "source": None, "jpeg_quality": np.nan, "boxes": None}
    rows = {
        "image_id": task.image_ids,
        "patient_id": task.patients,
        "labels": [list(names[row]) for row in task.labels],
    }
    return pd.DataFrame({**rows, **constant, **unknown, **columns})


def make_subject(task: Task, score: Pipeline, films: pd.DataFrame | None = None, frozen=None, **settings) -> Subject:
    """A subject of 400 resamples."""
    hospital: Any = Hospital(make_films(task) if films is None else films)
    return Subject(task, score, hospital, ProtocolConfig(), frozen, None, **{"count": 400, **settings})


def scores_of(task: Task, values: np.ndarray) -> Scores:
    """The same score [N] of every image of the task, whatever the episode."""
    cells = (1, len(task.seeds), 1)
    return Scores(tuple(np.tile(values[rows].astype(float), cells) for rows in task.evaluated))


def noisy_scores(rng, task: Task, levels: int = 5) -> Scores:
    """Random scores with many ties, others for every episode."""
    shapes = [(1, len(task.seeds), len(rows)) for rows in task.evaluated]
    return Scores(tuple(rng.integers(levels, size=shape).astype(float) for shape in shapes))


def truth_of(task: Task) -> np.ndarray:
    """1 where the first finding is, 0 elsewhere: float [N]."""
    return task.labels[:, 0].astype(float)
