"""The projector's files, as TensorBoard's own plugin finds and serves them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from google.protobuf import text_format
from phantom_hospitals import PROTOCOL, write_hospitals
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from scarce.backbones import Backbone, create_backbone
from scarce.data.store import open_dataset
from scarce.fewshot.features import extract_features
from scarce.fewshot.task import Task, build_task
from scarce.mirror import BOARDS, Mirror
from scarce.pairing import Hospitals
from scarce.watching import projector

MOST = 40


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    return Hospitals(*map(open_dataset, write_hospitals(tmp_path_factory.mktemp("projector"))))


@pytest.fixture(scope="module")
def tasks(hospitals: Hospitals) -> list[Task]:
    return [build_task(hospitals.target, PROTOCOL, held_out=held_out) for held_out in ("val", "test")]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return create_backbone("resnet_small", 0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "MOST_IMAGES", MOST)


def write(run: Path, backbone: Backbone, hospitals: Hospitals, tasks: list[Task]) -> tuple[np.ndarray, pd.DataFrame]:
    """Features and metadata as the configuration names them."""
    projector.project(Mirror(run), backbone, hospitals, tasks, 32, torch.device("cpu"))
    folder = run / BOARDS / "chosen"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    table = pd.read_csv(folder / embedding.metadata_path, sep="\t", keep_default_na=False)
    width, height = embedding.sprite.single_image_dim
    assert Image.open(folder / embedding.sprite.image_path).width % width == 0
    assert (width, height) == (48, 48)
    assert list(folder.glob("events*"))  # by which TensorBoard knows it as a run
    return np.loadtxt(folder / embedding.tensor_path, delimiter="\t"), table


def test_films_of_both_hospitals_with_what_is_known_of_them(
    tmp_path: Path, hospitals: Hospitals, tasks: list[Task], backbone: Backbone, few: None
):
    features, table = write(tmp_path, backbone, hospitals, tasks)
    assert list(table.columns) == ["finding", "hospital", "split", "view"]  # and no patient
    assert table.groupby(["hospital", "split"]).size().to_dict() == {
        ("phantom-a", "pretraining"): MOST,
        ("phantom-b", "test"): MOST // 2,
        ("phantom-b", "val"): MOST // 2,
    }
    assert set(table["view"]) <= {"PA", "AP"}
    pretraining = hospitals.pretraining
    labels = pretraining.metadata()["labels"][:MOST]
    expected = ["unlabelled" if each is None else ", ".join(each) or "none" for each in labels]
    assert table["finding"][-MOST:].tolist() == expected
    theirs = extract_features(backbone, pretraining.pixels(np.arange(MOST)), 32, "cpu")
    np.testing.assert_allclose(features[-MOST:], theirs, atol=1e-5)


def test_a_patient_s_id_is_nowhere(tmp_path: Path, hospitals: Hospitals, tasks: list[Task], backbone: Backbone):
    write(tmp_path, backbone, hospitals, tasks)
    text = (tmp_path / BOARDS / "chosen" / "00000" / "features" / "metadata.tsv").read_text()
    metadata = hospitals.target.metadata()
    assert not any(name in text for name in {*metadata["patient_id"], *metadata["image_id"]})


def test_one_hospital_is_shown_once(tmp_path: Path, hospitals: Hospitals, tasks: list[Task], backbone: Backbone):
    one = Hospitals(hospitals.target, hospitals.target)
    write(tmp_path, backbone, one, tasks)
    _, table = write(tmp_path, backbone, one, tasks)  # again, as after a resume
    held_out = sum(len(np.unique(np.concatenate(task.evaluated))) for task in tasks)
    assert len(table) == held_out
    assert set(table["split"]) == {"val", "test"}
