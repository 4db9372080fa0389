"""Sweeps whose data and results are in a bucket of a local server; one of them loses its head."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bucket_server import bucket_server
from phantom_hospitals import results_of, small_sweep, start_script, write_hospitals, write_run

from scarce.cli import main
from scarce.config import DataConfig, RunConfig, SweepConfig
from scarce.errors import UserError
from scarce.run_sweep import run_sweep
from scarce.settings import search_space

PATIENCE = 500  # seconds
TRIALS = 3

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hospitals, and a bucket that holds them too."""
    path = tmp_path_factory.mktemp("buckets")
    write_hospitals(path)
    (path / "server" / "bucket").mkdir(parents=True)
    for name in ("a", "b"):
        shutil.copytree(path / name, path / "server" / "bucket" / name)
    return path


@pytest.fixture(scope="module")
def query(folder: Path) -> Iterator[str]:
    # The shared cluster's workers were started without credentials.
    with bucket_server(folder / "server") as found:
        yield f"{found}&anonymous=true"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCARCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(config: SweepConfig) -> Path:
    return run_sweep(config, search_space(config.pretrain))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The `scarce` command."""
    monkeypatch.setattr("sys.argv", ["scarce", *arguments])
    main()


def one_at_a_time(folder: Path, name: str) -> SweepConfig:
    """As the script does with `--trials`, `--epochs 4` and `--concurrent 1`, to the same numbers."""
    config = small_sweep(folder, name, trials=TRIALS, concurrent=1)
    return replace(config, pretrain=replace(config.pretrain, epochs=4.0))


def in_bucket(config: SweepConfig, query: str) -> SweepConfig:
    return replace(
        config,
        data=DataConfig(f"s3://bucket/a?{query}", f"s3://bucket/b?{query}"),
        run=replace(config.run, out=f"s3://bucket/runs?{query}"),
    )


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    return run(one_at_a_time(folder, "undisturbed"))


def histories(run: Path) -> dict[str, list[dict[str, float]]]:
    """What every trial reported, but for its speed."""
    return {
        path.parent.name: [
            {key: value for key, value in report.items() if key != "images_per_s"}
            for report in json.loads(path.read_text())
        ]
        for path in run.glob("trials/*/history.json")
    }


def test_a_sweep_from_bucket_to_bucket(
    folder: Path,
    query: str,
    undisturbed: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    working = run(in_bucket(one_at_a_time(folder, "whole"), query))
    assert f"Written to s3://bucket/runs/whole?{query}" in capsys.readouterr().out
    there = folder / "server" / "bucket" / "runs" / "whole"
    assert {path.name for path in there.iterdir()} == {path.name for path in undisturbed.iterdir()}
    pd.testing.assert_frame_equal(results_of(there), results_of(undisturbed))
    assert histories(there) == histories(undisturbed)
    for trial in undisturbed.glob("trials/*"):
        names = {path.name for path in trial.iterdir()}
        assert names == {path.name for path in (there / "trials" / trial.name).iterdir()}
        assert list((there / "tensorboard" / trial.name).iterdir())
    weights = [path / "best" / "backbone.safetensors" for path in (there, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (there / "summary.md").read_text() == (working / "summary.md").read_text()
    assert working.is_relative_to(cache)

    (there / "report.html").unlink()
    call(monkeypatch, "report", f"s3://bucket/runs/whole?{query}")
    assert f"Written to s3://bucket/runs/whole/report.html?{query}" in capsys.readouterr().out
    assert (there / "report.html").exists()
    call(monkeypatch, "compare", f"s3://bucket/runs/whole?{query}", str(undisturbed), "--out", str(cache / "compared"))
    assert "whole" in capsys.readouterr().out
    assert (cache / "compared" / "compare.html").exists()

    with pytest.raises(UserError, match=r"s3://bucket/runs/whole\?.* holds a run already"):
        run(in_bucket(one_at_a_time(folder, "whole"), query))
    again = in_bucket(one_at_a_time(folder, "whole"), query)
    with pytest.raises(UserError, match=r"s3://bucket/runs/whole\?.* was started with other settings"):
        run(replace(again, pretrain=replace(again.pretrain, batch_size=16), run=replace(again.run, resume=True)))


@pytest.mark.long
def test_a_lost_head_loses_no_report(
    folder: Path,
    query: str,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, there = in_bucket(one_at_a_time(folder, "lost"), query), folder / "server" / "bucket" / "runs" / "lost"
    places = ["--pretrain", config.data.pretrain, "--target", config.data.target, "--out", config.run.out]
    search = ["--name", "lost", "--trials", str(TRIALS), "--epochs", "4", "--concurrent", "1"]
    process = start_script(folder, *places, *search)
    deadline = time.monotonic() + PATIENCE
    while sum(map(len, histories(there).values())) < 5 or not list(there.glob("tune/searcher-state-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no report came"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    before = histories(there)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # a trial outlives its driver for a moment
    assert not (there / "summary.json").exists()

    monkeypatch.setenv("SCARCE_CACHE", str(tmp_path / "another machine's"))
    run(replace(config, run=replace(config.run, resume=True)))
    assert histories(there) == histories(undisturbed)
    pd.testing.assert_frame_equal(results_of(there), results_of(undisturbed))
    for identity, reports in before.items():
        assert histories(there)[identity][: len(reports)] == reports
    reported = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line and "loss" in line]
    assert len(reported) <= sum(map(len, histories(there).values()))  # no report is made twice
    for name in ("rungs.jsonl", "spending.json"):  # what Tune has pickled is no longer of the lost folder
        assert not list(tmp_path.glob(f"cache/**/{name}"))
        assert (there / name).exists()
    summaries = [json.loads((path / "summary.json").read_text()) for path in (there, undisturbed)]
    assert summaries[0]["chosen"] == summaries[1]["chosen"]


def test_what_can_t_be_written_to_is_one_line(folder: Path, query: str) -> None:
    config = small_sweep(folder, "bad")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        nobody = f"endpoint_override=127.0.0.1:{unused.getsockname()[1]}&scheme=http"
        for out, words in {
            f"s3://no-bucket/runs?{query}": "NO_SUCH_BUCKET",
            f"s3://bucket/runs?{nobody}": "Could not connect to server",
            "s4://bucket/runs": "found s4://",
        }.items():
            with pytest.raises(UserError, match=words) as caught:
                run(replace(config, run=RunConfig(name="bad", out=out)))
            assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="nothing to resume in s3://bucket/runs/bad"):
        run(replace(config, run=RunConfig(name="bad", out=f"s3://bucket/runs?{query}", resume=True)))
    with pytest.raises(UserError, match="--warm-start: expected a path"):
        run(small_sweep(folder, "bad", warm_start=("s3://bucket/runs/whole",)))


def test_a_run_in_a_bucket_is_audited_there(
    folder: Path, query: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(folder / "server" / "bucket" / "runs" / "made up", folder / "a", folder / "b", shots=(5,))
    url = f"s3://bucket/runs/made up?{query}"
    call(monkeypatch, "audit", url, "--permutations", "39", "--resamples", "100")
    assert f"Written to s3://bucket/runs/made up/audit/index.html?{query}" in capsys.readouterr().out
    assert {path.name for path in (run / "audit").iterdir()} >= {"audit.json", "index.html", "overview.png"}
