"""Trials as MLflow and Weights & Biases keep them, in local stores."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from mlflow import MlflowClient
from wandb.proto.wandb_internal_pb2 import Record

from scarce.config import RunConfig
from scarce.errors import UserError
from scarce.watching.trackers import Tracker, Tracking, check_trackers, open_trackers

BLOCK, WHOLE, LAST = 2**15, 1, 4
SAMPLED = {"views.noise": 0.05, "method.dim": 256}


def result(trial: str, epoch: float, auc: float) -> dict[str, object]:
    tunes_own = {"training_iteration": 1, "pid": 5, "done": False, "config": SAMPLED, "hostname": "h"}
    return {"trial": trial, "epoch": epoch, "step": 10 * epoch, "val_auc": auc, "probe.name": "ridge", **tunes_own}


def tell(trackers: list[Tracker], trial: str, *reports: tuple[float, float], failed: bool = False) -> None:
    """As Tune does: the reports, each with its epoch and AUC, and the end."""
    tracking, told = Tracking(trackers, epochs=4), SimpleNamespace(config=SAMPLED, last_result={})
    for epoch, auc in reports:
        told.last_result = result(trial, epoch, auc)
        tracking.on_trial_result(1, [], told, told.last_result)
    (tracking.on_trial_error if failed else tracking.on_trial_complete)(1, [], told)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def test_mlflow_has_a_run_a_trial_and_goes_on_with_it(store: str):
    check_trackers(RunConfig(mlflow=store))
    first = open_trackers(RunConfig(mlflow=store), "runs/mine")
    tell(first, "aaa", (2, 0.6), (4, 0.7))
    tell(first, "bbb", (1, 0.5))
    tell(first, "ccc", (1, 0.5), failed=True)
    tell(open_trackers(RunConfig(mlflow=store), "runs/mine"), "bbb", (1, 0.5), (2, 0.55))  # a resumed search repeats
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("runs/mine")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: (run.data.tags["ending"], run.info.status) for name, run in runs.items()} == {
        "aaa": ("done", "FINISHED"),
        "bbb": ("pruned", "FINISHED"),
        "ccc": ("failed", "FAILED"),
    }
    assert runs["aaa"].data.params == {"views.noise": "0.05", "method.dim": "256"}
    assert runs["aaa"].data.metrics == {"val_auc": 0.7, "epoch": 4.0, "step": 40.0}
    history = client.get_metric_history(runs["bbb"].info.run_id, "val_auc")
    assert [(metric.step, metric.value) for metric in history] == [(10, 0.5), (20, 0.55)]


def records(folder: Path) -> Iterator[Record]:
    """What an offline run wrote: a LevelDB log (blocks of 32 KiB, 7 bytes before every part), 7 bytes before it."""
    (file,) = folder.glob("*.wandb")
    content, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (room := BLOCK - place % BLOCK) < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


def test_weights_and_biases_has_a_run_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    check_trackers(RunConfig(wandb="mine"))
    trackers = open_trackers(RunConfig(wandb="mine"), "runs/mine")
    tracker = trackers[0]
    tracker.report("bbb", SAMPLED, {"val_auc": 0.5}, 10)  # two at a time
    tell(trackers, "aaa", (2, 0.6), (4, 0.7))
    tracker.end("bbb", "pruned")
    wandb.teardown()  # its own process has written all that it was told
    found = {}
    for folder in (tmp_path / "wandb").glob("offline-run-*"):
        whole = list(records(folder))
        run = next(record.run for record in whole if record.HasField("run"))
        config = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
        history = [
            {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in whole
            if record.HasField("history")
        ]
        found[run.display_name] = history
        assert (run.project, run.run_group) == ("mine", "runs/mine")
        assert config.items() >= SAMPLED.items()
    assert [(row["_step"], row["val_auc"]) for row in found["aaa"]] == [(20, 0.6), (40, 0.7)]
    assert [(row["_step"], row["val_auc"]) for row in found["bbb"]] == [(10, 0.5)]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scarce.watching.trackers.find_spec", lambda package: None if package == name else object())
    with pytest.raises(UserError, match=rf"pip install 'scarce\[{name}\]'"):
        check_trackers(RunConfig(**{name: "x"}))
    check_trackers(RunConfig())


def test_a_store_that_is_none_is_one_line():
    with pytest.raises(UserError, match="--mlflow nonsense://x can't be used"):
        check_trackers(RunConfig(mlflow="nonsense://x"))


def test_a_tracker_that_fails_is_told_no_more(capsys: pytest.CaptureFixture[str]):
    asked = []

    class Broken:
        name = "broken"

        def report(self, *what: object) -> None:
            asked.append(what)
            raise ConnectionError("nobody\nthere")

        def end(self, *what: object) -> None:
            asked.append(what)

    tell([Broken()], "aaa", (1, 0.5), (4, 0.6))
    assert len(asked) == 1
    assert capsys.readouterr().out == "broken can't be told (nobody there): the search goes on without it\n"


def test_without_a_flag_there_is_none():
    assert open_trackers(RunConfig(), "runs/mine") == []
