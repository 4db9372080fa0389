import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from phantom_hospitals import write_hospitals, write_run

from scarce.audit.subject import FrozenPipeline
from scarce.data.store import Dataset, open_dataset
from scarce.looking.backbone import open_backbone
from scarce.publishing.features import write_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_run(path / "run", *write_hospitals(path))
    return path


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_dataset(folder / "b")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> FrozenPipeline:
    return open_backbone(folder / "run")


def test_every_image_has_its_features(dataset: Dataset, pipeline: FrozenPipeline, tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    assert write_features(path, dataset, pipeline, "run") == dataset.manifest.images
    table, known = pq.read_table(path), dataset.metadata()
    assert table.column_names == ["image_id", "labels", "view", "features"]
    for name in ("image_id", "labels"):
        assert table[name].to_pylist() == known[name].tolist()
    stored = table["features"].combine_chunks().flatten().to_numpy().reshape(len(known), -1)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, pipeline.features(dataset.pixels()), rtol=1e-4, atol=1e-5)
    about = json.loads(table.schema.metadata[b"scarce"])
    assert about["dataset_digest"] == dataset.manifest.digest
    assert about["image_size"] == 32


def test_patients_are_there_only_if_asked_for(dataset: Dataset, pipeline: FrozenPipeline, tmp_path: Path) -> None:
    write_features(tmp_path / "with.parquet", dataset, pipeline, "run", with_patients=True)
    patients = pq.read_table(tmp_path / "with.parquet")["patient_id"].to_pylist()
    assert patients == dataset.metadata()["patient_id"].tolist()


def test_an_end_in_the_middle_leaves_nothing(
    dataset: Dataset, pipeline: FrozenPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cut")

    monkeypatch.setattr(FrozenPipeline, "features", broken)
    with pytest.raises(RuntimeError, match="cut"):
        write_features(tmp_path / "features.parquet", dataset, pipeline, "run")
    assert list(tmp_path.iterdir()) == []
