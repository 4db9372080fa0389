"""Memory that runs out, by a real limit of the process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scarce.trials.failures import failure, mark_out_of_memory, micro_batch


def attempts(folder: Path, mebibytes: int) -> tuple[list[dict], str]:
    """The reports of the attempts under a limit, and what else they printed."""
    script = Path(__file__).parent / "attempts.py"
    command = [sys.executable, str(script), str(folder), str(mebibytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")], done.stdout


def test_a_batch_that_does_not_fit_is_trained_in_the_largest_parts_that_do(tmp_path: Path):
    reports, output = attempts(tmp_path / "run", 450)
    (report,) = reports
    assert report["micro_batch"] in (128, 64, 32)
    assert report["micro_batch"] == micro_batch(tmp_path / "run")
    assert report["step"] == 1  # one optimiser step, of the whole batch
    assert "run: out of memory with 256 images at a time, next with 128" in output
    assert failure(tmp_path / "run") is None


def test_what_never_fits_fails_with_a_line_that_says_so(tmp_path: Path):
    reports, output = attempts(tmp_path / "run", 20)
    assert not reports
    assert "next with 16" in output
    assert str(failure(tmp_path / "run")).startswith(
        "out of memory with 16 images at a time, the fewest that are tried with a batch of 256: lower --image-size"
    )
    assert not list((tmp_path / "run").glob("step-*"))


@pytest.mark.parametrize(
    ("batch", "workers", "sizes"),
    [(256, 1, [128, 64, 32, 16]), (100, 1, [50, 25, 12, 8]), (64, 2, [32, 16]), (8, 1, [])],
)
def test_parts_are_halved_down_to_a_floor(tmp_path: Path, batch: int, workers: int, sizes: list[int]):
    tried = []
    while failure(tmp_path) is None:
        mark_out_of_memory(tmp_path, batch, micro_batch(tmp_path), workers)
        tried.append(micro_batch(tmp_path))
    assert [size for size in tried[:-1] if size is not None] == sizes
