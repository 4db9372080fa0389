"""What a run keeps of its one look at test, so that two runs can be compared episode by episode and film by film.

AUC depends on the order of scores alone, so their ranks are kept: whole numbers, which are small on the disk and give
every AUC to the bit. Patients are numbered, and no id of a patient or a film is written.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scarce.errors import UserError
from scarce.fewshot.task import Scores, Task
from scarce.files import atomic_path

SCORES_NAME = "test_scores.parquet"
SCHEMA = pa.schema(
    {
        "finding": pa.string(),
        "shots": pa.int32(),  # of the episode; as is its seed
        "seed": pa.int32(),
        "patient": pa.list_(pa.int32()),  # of every film that is scored, numbered
        "positive": pa.list_(pa.bool_()),  # whether it shows the finding
        "rank": pa.list_(pa.int32()),  # of its score, from 0; equal scores share one
    }
)


def write_scores(path: Path, task: Task, scores: Scores) -> None:
    """Write a model's scores of every episode of `task` to `path`, atomically."""
    rows = []
    numbers = patient_numbers(task)
    for finding, (name, values) in enumerate(zip(task.findings, scores.values, strict=True)):
        patients = numbers[finding]
        for shots, of_shots in zip(task.shots[finding], values, strict=True):
            for seed, of_seed in zip(task.seeds, of_shots, strict=True):
                ranks = np.unique(of_seed, return_inverse=True)[1]
                rows.append((name, shots, seed, patients, task.truth(finding), ranks))
    columns = {
        field.name: pa.array(column, field.type) for field, column in zip(SCHEMA, zip(*rows, strict=True), strict=True)
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary, compression="zstd")


def patient_numbers(task: Task) -> list[np.ndarray]:
    """The patients of the films scored for each finding, by their place in the order of all scored ones' names."""
    scored = [task.patients[films] for films in task.evaluated]
    names = np.unique(np.concatenate(scored))
    return [np.searchsorted(names, patients) for patients in scored]


def read_scores(path: Path) -> tuple[Task, Scores]:
    """A test task without pictures and episodes, and the scores as ranks.

    Resamples of it are those of the task that was written: patients keep their order, findings and seeds their names.

    Raises:
        UserError: the file is not what `write_scores` writes.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA).to_pandas()
        findings = tuple(table["finding"].unique())
        seeds = tuple(int(seed) for seed in table["seed"].unique())
        evaluated, patients, labels, shots, values, start = [], [], [], [], [], 0
        for index, name in enumerate(findings):
            rows = table[table["finding"] == name]
            able = tuple(int(count) for count in rows["shots"].unique())
            count = len(rows["rank"].iloc[0])
            truth = np.zeros((count, len(findings)), dtype=bool)
            truth[:, index] = rows["positive"].iloc[0]
            shots.append(able)
            evaluated.append(np.arange(start, start + count))
            patients += [f"{number:010d}" for number in rows["patient"].iloc[0]]
            labels.append(truth)
            values.append(np.stack(rows["rank"].to_list()).astype(float).reshape(len(able), len(seeds), count))
            start += count
        joined = np.concatenate(labels)
    except (OSError, ValueError, KeyError, IndexError, pa.ArrowException) as error:
        raise UserError(f"{path} does not hold the scores of a run ({error}): run the sweep again") from error
    task = Task(
        held_out="test",
        images=np.empty((start, 0, 0), dtype=np.uint8),
        image_ids=np.arange(start).astype(str),
        patients=np.array(patients),
        labels=joined,
        findings=findings,
        shots=tuple(shots),
        seeds=seeds,
        episodes=(),
        evaluated=tuple(evaluated),
        reference=np.empty(0, dtype=int),
        skipped=(),
    )
    return task, Scores(tuple(values))
