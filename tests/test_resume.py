"""kill -9 and Ctrl-C of a sweep's driver, and the same command with --resume."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from phantom_hospitals import results_of, start_script, write_hospitals

# One trial at a time: with two, which of them reports first decides what the sampler knows when it is asked.
FLAGS = ["--trials", "3", "--epochs", "4", "--concurrent", "1"]
# How it is stopped, with the exit code, and the --objective.
STOPS = [
    (signal.SIGKILL, -9, "auc"),
    pytest.param(signal.SIGTERM, 143, "auc", marks=pytest.mark.long),
    pytest.param(signal.SIGINT, 130, "auc,shortcut", marks=pytest.mark.long),
]
PATIENCE = 500  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume")
    write_hospitals(path)
    return path


def reports(run: Path) -> int:
    """Reports of all trials so far."""
    total = 0
    for path in run.glob("trials/*/history.json"):
        total += len(json.loads(path.read_text()))
    return total


def stop_in_second_trial(folder: Path, how: signal.Signals, *flags: str) -> subprocess.Popen[str]:
    name, process = how.name, start_script(folder, "--name", how.name, *flags)
    deadline = time.monotonic() + PATIENCE
    while reports(folder / "runs" / name) < 5:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no report came"
        time.sleep(0.05)
    os.kill(process.pid, how)
    process.wait(PATIENCE)
    return process


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(("how", "code", "objective"), STOPS)
def test_a_stopped_sweep_goes_on_to_the_same_results(folder: Path, how: signal.Signals, code: int, objective: str):
    name, whole, flags = how.name, f"whole-{objective}", [*FLAGS, "--objective", objective]
    if not (folder / "runs" / whole).exists():
        finish(start_script(folder, "--name", whole, *flags))
    undisturbed = results_of(folder / "runs" / whole)
    assert ("val_shortcut" in undisturbed) == ("shortcut" in objective)
    stopped = stop_in_second_trial(folder, how, *flags)
    assert stopped.returncode == code
    if how == signal.SIGTERM:
        said = str(stopped.communicate()[0]).splitlines()[-1]
        assert said == "scarce: ended by SIGTERM; the same command with --resume goes on from here"
    before = reports(folder / "runs" / name)
    resumed = finish(start_script(folder, "--name", name, *flags, "--resume"))
    pd.testing.assert_frame_equal(results_of(folder / "runs" / name), undisturbed)
    assert before >= 5  # four of a finished trial, which are not trained again:
    again = [line for line in resumed.splitlines() if "done" in line]
    assert len(again) <= len(undisturbed)
    summaries = [json.loads((folder / "runs" / run / "summary.json").read_text()) for run in (name, whole)]
    assert summaries[0]["chosen"] == summaries[1]["chosen"]
    assert summaries[0]["search"].get("front") == summaries[1]["search"].get("front")
    assert not ray_processes_of(stopped.pid)


def ray_processes_of(driver: int) -> list[str]:
    """Temporary Ray folders of a driver that has ended; its watcher gets a few seconds to remove them."""
    deadline = time.monotonic() + 20
    while left := [path.name for path in Path("/tmp").glob(f"scarce-ray-{driver}-*")]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return left


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--pretrain", "nowhere"], "no converted dataset"),
        (["--method", "mocco"], "expected one of simclr"),
        (["--preset", "h100"], "expected one of cpu, l4"),
        (["--fix", "views.blurr=1"], "views.blur"),
        (["--min-pool", "50000"], "--min-pool"),
        (["--cpus-per-trial", "999"], "999 CPU"),
        (["--search-seeds", "1"], "--search-seeds"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder: Path, flags: list[str], words: str):
    process = start_script(folder, "--name", "bad", *flags)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, output
    assert words in output
    assert "Traceback" not in output
    assert not (folder / "runs" / "bad" / "trials").exists()
