"""A run's folder and its copy in a bucket: what is where, whenever either is lost or the network fails."""

import itertools
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from bucket_server import bucket_server

from scarce import mirror as module
from scarce.checkpoint import load_last_checkpoint, save_checkpoint
from scarce.errors import UserError
from scarce.mirror import Mirror, open_mirror
from scarce.storage import Remote, list_files, read_bytes, upload

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("server")
    with bucket_server(folder) as query:
        yield Remote("s3://bucket/runs", query)


@pytest.fixture(params=["s3", "file"])
def run(request: pytest.FixtureRequest, server: Remote, tmp_path: Path) -> Mirror:
    remote = server / tmp_path.name if request.param == "s3" else Remote(f"file://{tmp_path}/other disk")
    return Mirror(tmp_path / "here", remote)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


def report(folder: Path, step: int, best: bool = False) -> None:
    """What a trial leaves at a report: larger than what is kept in memory, and another content at every step."""
    history = [{"step": step, "val_auc": 0.5} for step in range(10, step + 1, 10)]
    save_checkpoint(folder, step, {"step": step, "history": history, "weights": torch.full([300_000], step)}, best)


def trial_of(run: Mirror, where: str = "") -> tuple[Mirror, Path, Path]:
    """The run as another node's process sees it, and a trial's two folders there."""
    here = Mirror(run.folder.with_name(where), run.remote) if where else pickle.loads(pickle.dumps(run))
    return here, here.folder / "trials" / "t", here.folder / "tensorboard" / "t"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def in_bucket(remote: Remote) -> dict[str, bytes]:
    return {name: read_bytes(remote / name) for name in list_files(remote)}


def test_a_trial_goes_on_elsewhere(run: Mirror) -> None:
    here, trial, board = trial_of(run)
    assert run.remote is not None
    remote = run.remote / "trials" / "t"
    here.push_file(write(trial / "trial.json", "{}"))
    here.pull_trial(trial)
    for step, best in ((10, True), (20, False), (30, True), (40, False)):
        report(trial, step, best)
        write(board / "events", "x" * step)
        here.push_trial(trial, board)
        assert in_bucket(remote) == content(trial)
        assert in_bucket(run.remote / "tensorboard" / "t") == content(board)
    assert set(in_bucket(remote)) == {"trial.json", "history.json", "best.pt", "step-00000030.pt", "step-00000040.pt"}

    elsewhere, moved, _ = trial_of(run, "elsewhere")
    elsewhere.pull_trial(moved)
    assert content(moved) == content(trial)
    report(moved, 50)
    elsewhere.push_trial(moved, moved)

    report(trial, 50, best=True)  # of a process that was cut off, and did not know it: the weights may be others
    history = json.loads((trial / "history.json").read_text())
    write(trial / "history.json", json.dumps([*history[:-1], history[-1] | {"val_auc": 0.6}]))
    with pytest.raises(RuntimeError, match="another process"):
        here.push_trial(trial, board)
    here, _, _ = trial_of(run)
    here.pull_trial(trial)
    assert content(trial) == content(moved)


def test_every_worker_adds_what_it_recorded(run: Mirror) -> None:
    assert run.remote is not None
    for node in ("here", "elsewhere"):  # two workers of a trial, of which only the first saves checkpoints
        worker, trial, board = trial_of(run, node)
        worker.pull_trial(trial)
        with worker.bringing_attempts(trial):
            write(trial / "attempts" / f"{node}.json", "null")
            if node == "here":
                board.mkdir(parents=True)
                report(trial, 10, best=True)
                worker.push_trial(trial, board)
            write(trial / "attempts" / f"{node}.json", "1795547889.0")
    there = in_bucket(run.remote / "trials" / "t")
    assert {"attempts/here.json", "attempts/elsewhere.json", "history.json", "best.pt"} < set(there)
    assert there["attempts/here.json"] == b"1795547889.0"
    head = Mirror(run.folder.with_name("head"), run.remote)
    head.pull_reports()
    assert len(list(head.folder.glob("trials/t/attempts/*"))) == 2
    head.pull_trial(head.folder / "trials" / "t")
    head.push_trial(head.folder / "trials" / "t", head.folder)
    assert set(in_bucket(run.remote / "trials" / "t")) == set(there)


def test_only_what_changed_is_moved(run: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    here, trial, board = trial_of(run)
    moved: list[str] = []
    for name in ("upload", "download", "copy"):
        original = getattr(module, name)

        def counted(source: object, target: object, original: Callable = original, name: str = name) -> None:
            moved.append(f"{name} {(source if name == 'download' else target).name}")  # type: ignore[attr-defined]
            original(source, target)

        monkeypatch.setattr(module, name, counted)
    board.mkdir(parents=True)
    here.pull_trial(trial)
    report(trial, 10, best=True)
    here.push_trial(trial, board)
    assert moved == ["upload best.pt", "copy step-00000010.pt", "upload history.json"]
    moved.clear()
    report(trial, 20)
    here.push_trial(trial, board)
    assert moved == ["upload step-00000020.pt", "upload history.json"]
    moved.clear()
    here.push_trial(trial, board)  # as when reports are replayed
    again, _, _ = trial_of(run)
    again.pull_trial(trial)
    again.push_trial(trial, board)
    assert moved == []
    os.truncate(trial / "step-00000020.pt", 1000)
    again.pull_trial(trial)
    assert moved == ["download step-00000020.pt"]
    (trial / "history.json").unlink()  # it no longer says what the checkpoints are of
    again.pull_trial(trial)
    assert len(moved) == 5
    assert moved[-1] == "download history.json"


class CutOff(BaseException):
    """The process ends here."""


def cut_off_after(allowed: int, *names: str) -> dict[str, Callable]:
    """These functions of the module, which together may be called so often."""
    calls = itertools.count()

    def limited(original: Callable) -> Callable:
        def call(*arguments: object) -> None:
            if next(calls) >= allowed:
                raise CutOff
            original(*arguments)

        return call

    return {name: limited(getattr(module, name)) for name in names}


@pytest.mark.parametrize("best", [False, True])
def test_wherever_a_push_is_cut_off_the_bucket_holds_its_history_s_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: bool
) -> None:
    run = Mirror(tmp_path / "here", Remote(f"file://{tmp_path}/other disk"))
    remote, cut_offs = Remote(f"file://{tmp_path}/other disk/trials/t"), 0
    for allowed in range(100):
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        shutil.rmtree(tmp_path / "other disk", ignore_errors=True)
        here, trial, board = trial_of(run)
        board.mkdir(parents=True)
        for step in (10, 20, 30):
            report(trial, step, best=step == 10)
            here.push_trial(trial, board)
        report(trial, 40, best)
        with monkeypatch.context() as patch:
            for name, limited in cut_off_after(allowed, "upload", "copy", "remove").items():
                patch.setattr(module, name, limited)
            try:
                here.push_trial(trial, board)
                done = True
            except CutOff:
                done = False
                cut_offs += 1
        there = in_bucket(remote)
        assert f"step-{json.loads(there['history.json'])[-1]['step']:08d}.pt" in there
        # Another node goes on from there, and then the bucket is as if nothing had happened.
        elsewhere, moved, board = trial_of(run, "elsewhere")
        elsewhere.pull_trial(moved)
        state = load_last_checkpoint(moved, CPU)
        assert state is not None
        assert state["step"] in (30, 40)
        assert float(state["weights"][0]) == state["step"]
        if state["step"] == 30:
            report(moved, 40, best)
        report(moved, 50)
        board.mkdir(parents=True, exist_ok=True)
        elsewhere.push_trial(moved, board)
        there = in_bucket(remote)
        assert set(there) == {"history.json", "best.pt", "step-00000040.pt", "step-00000050.pt"}
        assert there == content(moved)
        assert [report["step"] for report in json.loads(there["history.json"])] == [10, 20, 30, 40, 50]
        assert float(torch.load(moved / "best.pt", weights_only=True)["weights"][0]) == (40 if best else 10)
        if done:
            break
    assert cut_offs >= 3


def test_the_driver_s_files_come_back_without_checkpoints(run: Mirror) -> None:
    assert run.remote is not None
    here, trial, board = trial_of(run)
    here.push_file(write(trial / "trial.json", "{}"))
    report(trial, 10, best=True)
    write(board / "events", "x")
    here.push_trial(trial, board)
    for name in ("config.json", "tune/state.json", "tune/trial_1/result.json", "best/card.json"):
        write(run.folder / name, name)
    write(run.folder / "ray_train" / "x", "of this node only")
    write(run.folder / ".hidden", "half a file")
    run.push()
    own = {"config.json", "tune/state.json", "tune/trial_1/result.json", "best/card.json"}
    kept = {"trials/t/trial.json", "trials/t/history.json"}
    assert own | kept < set(list_files(run.remote))
    assert not any("ray_train" in name or "hidden" in name for name in list_files(run.remote))

    write(run.folder / "tune/later.json", "never pushed")
    lost = Mirror(run.folder, run.remote)
    lost.pull()
    assert {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()} == own | kept
    lost.pull_file(trial / "best.pt")
    assert (trial / "best.pt").read_bytes() == read_bytes(run.remote / "trials" / "t" / "best.pt")

    elsewhere, moved, board = trial_of(run, "elsewhere")
    elsewhere.pull_trial(moved)
    report(moved, 20)
    board.mkdir(parents=True)
    elsewhere.push_trial(moved, board)
    lost.pull_reports()
    assert len(json.loads((trial / "history.json").read_text())) == 2


def test_a_run_pushes_while_it_goes_on(run: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.remote is not None
    monkeypatch.undo()
    monkeypatch.setattr(module, "PUSH_EVERY_S", 0.05)
    with run.pushing():
        for text in ("one", "another"):
            write(run.folder / "tune" / "state.json", text)
            deadline = time.monotonic() + 60
            while list_files(run.remote).get("tune/state.json") != len(text):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        write(run.folder / "last.json", "{}")
    assert read_bytes(run.remote / "last.json") == b"{}"
    assert not any(thread.name.startswith("push to") for thread in threading.enumerate())


def test_a_network_that_comes_back(
    server: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, failures = Mirror(tmp_path / "here", server / tmp_path.name), [3]

    def fails(*arguments: object) -> None:
        if failures[0]:
            failures[0] -= 1
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7; Details: no")
        upload(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "upload", fails)
    run.push_file(write(run.folder / "x.json", "{}"))
    assert read_bytes(server / tmp_path.name / "x.json") == b"{}"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert "NETWORK_CONNECTION" in said[0]

    failures[0] = -1
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        run.push_file(run.folder / "x.json")
    write(run.folder / "y.json", "{}")
    with pytest.raises(UserError, match=r"results are whole in .*--resume"):
        run.push()


def test_what_is_wrong_with_the_disk_is_not_tried_again(run: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(FileNotFoundError):
        run.push_file(run.folder / "nothing.json")


def test_the_working_folder_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARCE_CACHE", str(tmp_path / "cache"))
    place = Remote(f"file://{tmp_path}/runs/one")
    upload(b"{}", place / "config.json")
    run = open_mirror(place)
    assert str(run) == str(place)
    assert run.folder.name == "one"
    assert run.folder.is_relative_to(tmp_path / "cache" / "runs")
    assert (run.folder / "config.json").read_text() == "{}"
    assert open_mirror(Remote(f"file://{tmp_path}/other/one")).folder != run.folder


def test_a_plain_folder_is_left_alone(tmp_path: Path) -> None:
    run, path = open_mirror(tmp_path), write(tmp_path / "trials" / "t" / "x.json", "{}")
    before = path.stat()
    run.pull()
    with run.pushing():
        run.pull_trial(path.parent)
        run.push_trial(path.parent, path.parent)
        run.push_file(path)
        run.pull_file(path)
        run.pull_reports()
    run.push()
    assert [path.name for path in tmp_path.rglob("*")] == ["trials", "t", "x.json"]
    assert path.stat() == before
    assert (str(run), run.place(path)) == (str(tmp_path), path)


def test_a_bucket_whose_names_lead_elsewhere_is_refused(server: Remote, tmp_path: Path) -> None:
    class Listing:
        path, is_file, size = "bucket/runs/../../.bashrc", True, 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "scarce.storage.connect",
            lambda place: (type("", (), {"get_file_info": lambda *_: [Listing]})(), "bucket/runs"),
        )
        with pytest.raises(UserError, match=r"expected none with \.\. in it"):
            Mirror(tmp_path / "here", server).pull()
