"""Who the patients are is in the converted dataset and nowhere else: not in what is printed, nor in a run's folder."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hospital_folders import png, write_csv
from phantom_hospitals import QUICK_AUDITS, small_sweep, write_films, write_hospitals, write_run

from scarce.audit_run import audit_run
from scarce.config import DataConfig
from scarce.data.convert import convert
from scarce.data.folder import scan
from scarce.data.store import Dataset, open_dataset
from scarce.errors import run_or_exit
from scarce.run_sweep import run_sweep
from scarce.settings import search_space

PATIENT, IMAGE = "PATIENT-MARK", "IMAGE-MARK"
MARKS = (PATIENT, IMAGE)


def marked(dataset: Dataset, folder: Path) -> Dataset:
    """The dataset with ids that can be told anywhere; an image's holds its patient's, as the NIH's do."""
    table: pd.DataFrame = dataset.metadata()
    patients = [f"{PATIENT}-{name}" for name in table["patient_id"]]
    images = [f"{IMAGE}-{number:04d}-{name}.png" for number, name in enumerate(patients)]
    table = table.assign(patient_id=patients, image_id=images)
    return write_films(folder, dataset.manifest.hospital, table, dataset.pixels(), dataset.lungs())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("marked")
    for name, source in zip("ab", write_hospitals(path / "plain"), strict=True):
        marked(open_dataset(source), path / name)
    return path


def leaks(folder: Path) -> list[str]:
    """The files below a folder that hold a mark, as their bytes or as a value of their table."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if any(mark.encode() in content or mark.encode("utf-16-le") in content for mark in MARKS):
            found.append(str(path.relative_to(folder)))
    return found


def token() -> str | None:
    """Ray's token on this machine."""
    path = Path.home() / ".ray" / "auth_token"
    return path.read_text().strip() if path.is_file() else None


def test_a_mark_is_found(folder: Path, tmp_path: Path) -> None:
    assert leaks(folder / "a") == ["shard-00000.parquet"]
    (tmp_path / "log.txt").write_text(f"epoch 1 {PATIENT}-3")
    assert leaks(tmp_path) == ["log.txt"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_conversion(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The ids are data of the dataset, and of the list of what was left out of it."""
    rows = [{"image": f"{IMAGE}-{n}.png", "patient": f"{PATIENT}-{n}", "labels": "Mass"} for n in range(3)]
    for number, row in enumerate(rows):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / row["image"]).write_bytes(png(number) if number else b"")
    write_csv(tmp_path / "source" / "t.csv", rows)
    convert(scan(tmp_path / "source"), tmp_path / "out", size=32)
    assert leaks(tmp_path / "out") == ["rejected.parquet", "shard-00000.parquet"]
    assert not any(mark in "".join(capfd.readouterr()) for mark in MARKS)


@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_at_one_hospital(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The held-out patients are left out of pretraining by their ids, and those are in no file of Tune's either."""
    config = small_sweep(folder, "whole", trials=2)
    config = replace(config, data=DataConfig(str(folder / "b"), str(folder / "b")))
    config = replace(config, pretrain=replace(config.pretrain, epochs=2.0, batch_size=16))
    run = run_sweep(config, search_space(config.pretrain))
    printed = "".join(capfd.readouterr())
    assert "findings:" in printed
    assert not any(mark in printed for mark in MARKS)
    assert {path.name for path in run.iterdir()} >= {
        "config.json",
        "summary.md",
        "trials.parquet",
        "tune",
        "tensorboard",
    }
    assert leaks(run) == []
    secret = token()
    assert secret is None or (
        secret not in printed
        and not [path for path in run.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    )


def test_the_audits_and_their_page(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", folder / "a", folder / "b")
    audit_run(run, QUICK_AUDITS)
    assert {path.name for path in (run / "audit").iterdir()} >= {"index.html", "audit.json", "audit.md"}
    assert leaks(run) == []
    assert not any(mark in "".join(capfd.readouterr()) for mark in MARKS)


def test_lung_masks_that_are_missing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever is to mend them is told which, as that is asked for; the report is not."""
    (tmp_path / "masks").mkdir()
    run = write_run(tmp_path / "run", folder / "a", folder / "b")
    audit_run(run, replace(QUICK_AUDITS, masks=str(tmp_path / "masks")))
    assert leaks(run) == []
    assert "found none for" in (run / "audit" / "audit.md").read_text()
    out, err = capsys.readouterr()
    assert IMAGE not in out
    assert IMAGE in err


@pytest.mark.parametrize("command", ["describe", "first_failure"])
def test_what_else_is_printed(
    command: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scarce import cli

    main = cli.main
    arguments = ["describe", str(folder / "b")]
    if command == "first_failure":
        script = Path(__file__).parents[2] / "sweeps" / "first_failure.py"
        spec = importlib.util.spec_from_file_location("sweeps_first_failure", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        main = module.main
        finding = next(iter(open_dataset(folder / "b").manifest.labels))
        arguments = ["--target", str(folder / "b"), "--finding", finding, "--images", "20", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [command, *arguments])
    run_or_exit(main)
    printed = "".join(capfd.readouterr())
    assert "phantom-b" in printed or "Written" in printed
    assert not any(mark in printed for mark in MARKS)
    assert leaks(tmp_path) == []
