"""The folder of good input that the tables of bad input spoil."""

import json
from pathlib import Path

import pytest
from hospital_folders import nih_row, png, write_csv
from phantom_hospitals import write_hospitals, write_run
from refusals import linked_copy

PADCHEST_CSV = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `a` and `b`, a finished run `run` over them, and a source of each kind: `nih`, `padchest`, `folder`."""
    folder = tmp_path_factory.mktemp("good")
    write_hospitals(folder)
    config = write_run(folder / "run", folder / "a", folder / "b") / "config.json"
    config.write_text(config.read_text().replace(f"{folder}/", ""))  # the datasets of the folder it is copied to
    names = [f"{patient:08d}_000.png" for patient in range(1, 4)]
    for seed, name in enumerate(names):
        for place in ("nih/images", "padchest/3", "folder"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_bytes(png(seed))
    write_csv(folder / "nih" / "Data_Entry_2017_v2020.csv", [nih_row(name) for name in names])
    row = {"ImageDir": 3, "PatientID": "p", "Projection": "PA", "Labels": "['normal']"}
    write_csv(folder / "padchest" / PADCHEST_CSV, [{"ImageID": name} | row for name in names])
    write_csv(
        folder / "folder" / "table.csv", [{"image": name, "patient": name[:8], "labels": "Mass"} for name in names]
    )
    return folder


@pytest.fixture
def world(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `good` that a test may spoil, and which it runs in; Ray can't start."""
    import ray

    folder = linked_copy(good, tmp_path / "world")
    assert json.loads((folder / "run" / "config.json").read_text())["config"]["data"] == {
        "pretrain": "a",
        "target": "b",
    }
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # as it is if tests that use Ray came before
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    return folder
