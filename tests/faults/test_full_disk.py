"""A worker's disk that is full when a checkpoint is due: a real one, of 48 megabytes."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pretraining import CPU, run, run_until

from scarce import checkpoint
from scarce.checkpoint import load_last_checkpoint, save_checkpoint

SIZE = 48 * 2**20  # room for four checkpoints


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_trial_waits_for_room_and_goes_on_to_the_same_bits(disk: Path, tmp_path: Path, monkeypatch, capsys):
    undisturbed = run(tmp_path / "whole")
    run_until(disk / "trial", 4)
    before = files(disk / "trial")
    filler, beats = fill(disk), []
    monkeypatch.setattr(checkpoint, "RETRY_S", 0.01)

    def beat() -> None:
        """Make room once it has been tried a few times."""
        beats.append(files(disk / "trial") == before)
        if len(beats) == 6:
            filler.unlink()

    assert run(disk / "trial", beat=beat) == undisturbed
    assert beats[:6] == [True] * 6  # two steps and four tries: nothing was half-written, nothing lost
    output = capsys.readouterr().out
    assert output.count("the disk is full, the checkpoint of step 6 needs") == 1
    assert f"{disk / 'trial'}: " in output
    assert "free some room within 10 minutes" in output


def test_without_room_in_time_the_last_good_checkpoint_stays(disk: Path, monkeypatch):
    run_until(disk / "trial", 4)
    before = files(disk / "trial")
    state = load_last_checkpoint(disk / "trial", CPU)
    assert state is not None
    fill(disk)
    monkeypatch.setattr(checkpoint, "RETRY_S", 0.01)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(disk / "trial", 6, state, best=True, patience_s=0.1)
    assert files(disk / "trial") == before
    again = load_last_checkpoint(disk / "trial", CPU)
    assert again is not None
    assert again["step"] == 4


def test_what_a_killed_writer_left_goes_with_the_next_checkpoint(tmp_path: Path):
    (tmp_path / ".step-00000002.pt.4711.tmp").write_bytes(b"half")
    run(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
