"""Small made-up hospitals whose films hold what a test says, and subjects that read them by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from phantom_hospitals import write_films
from torch import nn

from scarce.audit.subject import FrozenPipeline, Pipeline, Subject
from scarce.backbones import Backbone
from scarce.data.splits import image_splits
from scarce.data.store import Dataset
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task

SIZE = 32
FINDING = "mass"
PROTOCOL = ProtocolConfig(shots=(5, 20), test_seeds=2, findings=(FINDING,))


def pixel_backbone(cells: int = 8) -> Backbone:
    """A network whose features are the picture, averaged to cells × cells."""
    as_it_is = nn.Conv2d(1, 1, 1, bias=False)  # something with a weight, as gradients need
    nn.init.ones_(as_it_is.weight)
    stages = [nn.Identity(), nn.Identity(), nn.Identity(), nn.AvgPool2d(SIZE // cells)]
    return Backbone(as_it_is, stages, nn.Flatten(), channels=(1, 1, 1, cells * cells), stride=SIZE // cells).eval()


def pixel_pipeline(probe: ProbeConfig | None = None) -> FrozenPipeline:
    return FrozenPipeline(pixel_backbone(), SIZE, probe or ProbeConfig(normalise="standardise"), torch.device("cpu"))


def read(statistic: Callable[[np.ndarray], np.ndarray]) -> Pipeline:
    """A pipeline that learns nothing: the score of a film is a statistic of its pixels, uint8 [n, S, S] to [n]."""

    def score(task: Task) -> Scores:
        scores = task.empty_scores()
        for values, rows in zip(scores.values, task.evaluated, strict=True):
            values[:] = statistic(task.images[rows])
        return scores

    return score


def films_of(patients: int, rng: np.random.Generator, prevalence: float = 0.5, **columns: object) -> pd.DataFrame:
    """One film a patient, with the finding or without; PA films of men of 50 years unless columns say otherwise."""
    names = [f"{number:05d}" for number in range(patients)]
    table = pd.DataFrame({"image_id": names, "patient_id": names, "view": "PA", "sex": "M", "age": 50.0, **columns})
    has = rng.random(patients) < prevalence
    table["labels"] = pd.Series([[FINDING] if one else [] for one in has], dtype=object)
    return table


def has_it(table: pd.DataFrame, finding: str = FINDING) -> np.ndarray:
    return np.array([finding in labels for labels in table["labels"]])


def splits(table: pd.DataFrame, hospital: str) -> np.ndarray:
    """Where the protocol puts every film."""
    return image_splits(table.assign(hospital=hospital), PROTOCOL.fractions)


def gray_films(count: int, rng: np.random.Generator) -> np.ndarray:
    """Gray noise, uint8 [count, 32, 32], far from black and white."""
    return rng.normal(110, 10, (count, SIZE, SIZE)).clip(60, 160).astype(np.uint8)


def hospital_of(folder: Path, table: pd.DataFrame, images: np.ndarray, name: str = "here") -> Dataset:
    return write_films(folder, name, table, images)


def subject_of(
    hospital: Dataset,
    score: Pipeline | None = None,
    other: Dataset | None = None,
    frozen: FrozenPipeline | None = None,
    protocol: ProtocolConfig = PROTOCOL,
    **values: object,
) -> Subject:
    """The subject of a pipeline, by default the frozen one."""
    task = build_task(hospital, protocol, held_out="test").with_largest_shots()
    if score is None:
        assert frozen is not None
        score = frozen.prepared(task)
    return Subject(task, score, hospital, protocol, frozen, other, **{"count": 200, **values})  # type: ignore[arg-type]
