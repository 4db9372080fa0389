"""The scores that a run keeps: every number of the comparison comes back from them, and no id is among them."""

from pathlib import Path

import numpy as np
import pytest
from phantom_hospitals import PROTOCOL, write_hospitals

from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.fewshot.compare import compare
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.task import Scores, Task, build_task
from scarce.kept_scores import read_scores, write_scores


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task, Scores]:
    folder = tmp_path_factory.mktemp("scores")
    task = build_task(open_dataset(write_hospitals(folder)[1]), PROTOCOL, held_out="test")
    features = np.random.default_rng(0).normal(size=(len(task.images), 8)).astype(np.float32)
    features[:, 0] += task.labels.sum(axis=1)
    scores = score_task(task, features, ProbeConfig())
    write_scores(folder / "scores.parquet", task, scores)
    return folder / "scores.parquet", task, scores


def test_every_number_comes_back_to_the_bit(scored: tuple[Path, Task, Scores]):
    path, task, scores = scored
    kept, ranks = read_scores(path)
    now, then = compare(kept, {"chosen": ranks}, PROTOCOL), compare(task, {"chosen": scores}, PROTOCOL)
    assert now["chosen"] == then["chosen"]
    assert now["protocol"]["patients"] == then["protocol"]["patients"]


def test_no_id_is_written(scored: tuple[Path, Task, Scores]):
    path, task, _ = scored
    content = path.read_bytes()
    for name in (*task.patients.tolist(), *task.image_ids.tolist()):
        assert name.encode() not in content


def test_another_file_is_refused_in_a_line(tmp_path: Path):
    (tmp_path / "scores.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="does not hold the scores of a run") as caught:
        read_scores(tmp_path / "scores.parquet")
    assert "\n" not in str(caught.value)
