"""Checkpoint files that are cut short, and file systems that cannot link."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from pretraining import CPU, run, run_until

from scarce.checkpoint import (
    BEST_NAME,
    DamagedError,
    list_checkpoints,
    load_best_checkpoint,
    load_checkpoint,
    load_last_checkpoint,
)
from scarce.errors import UserError


def cut_short(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def scores(*values: float):
    """An evaluation whose reports have these scores."""
    remaining = iter(values)
    return lambda backbone: {"val_auc": next(remaining)}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_run_goes_on_from_the_checkpoint_before_to_the_same_bits(tmp_path: Path, share: float, capsys):
    undisturbed = run(tmp_path / "whole")
    run_until(tmp_path / "cut", 4)
    kept, last = list_checkpoints(tmp_path / "cut")
    cut_short(last, share)
    assert run(tmp_path / "cut") == undisturbed
    assert capsys.readouterr().out.count(f"{last}: damaged (") == 1
    ends = [load_checkpoint(list_checkpoints(tmp_path / name)[-1], CPU) for name in ("whole", "cut")]
    assert ends[0]["step"] == ends[1]["step"] == 8
    for name, value in ends[0]["method"].items():
        assert torch.equal(value, ends[1]["method"][name]), name
    assert kept.name == "step-00000002.pt"


def test_without_any_whole_checkpoint_a_run_begins_again(tmp_path: Path, capsys):
    undisturbed = run(tmp_path / "whole")
    run_until(tmp_path / "cut", 4)
    for path in list_checkpoints(tmp_path / "cut"):
        cut_short(path, 0.5)
    assert run(tmp_path / "cut") == undisturbed
    assert capsys.readouterr().out.count("damaged") == 2


def test_bytes_that_are_no_checkpoint_are_damage(tmp_path: Path):
    (tmp_path / "step-00000002.pt").write_bytes(os.urandom(5000))
    assert load_last_checkpoint(tmp_path, CPU) is None
    with pytest.raises(DamagedError):
        load_checkpoint(tmp_path / "step-00000002.pt", CPU)


@pytest.mark.parametrize("best", [6, 8])
def test_damaged_best_weights_are_taken_from_the_checkpoint_of_their_step(tmp_path: Path, best: int, capsys):
    run(tmp_path, evaluate=scores(0.5, 0.6, 0.9 if best == 6 else 0.7, 0.8))
    whole = load_best_checkpoint(tmp_path, CPU)
    assert whole["step"] == best
    assert capsys.readouterr().out == ""
    _unlinked(tmp_path / BEST_NAME)
    cut_short(tmp_path / BEST_NAME, 0.5)
    instead = load_best_checkpoint(tmp_path, CPU)
    assert f"{BEST_NAME}: damaged (RuntimeError), taking step-0000000{best}.pt instead" in capsys.readouterr().out
    assert instead["step"] == best
    for name, value in whole["method"].items():
        assert torch.equal(value, instead["method"][name]), name


def test_damaged_best_weights_of_a_step_that_is_gone_are_one_line(tmp_path: Path):
    run(tmp_path, evaluate=scores(0.9, 0.6, 0.7, 0.8))
    cut_short(tmp_path / BEST_NAME, 0.5)
    with pytest.raises(UserError, match=r"best.pt: damaged \(Runtime.+step-00000002.pt: damaged \(FileNot"):
        load_best_checkpoint(tmp_path, CPU)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_without_hard_links_the_best_checkpoint_is_a_copy(tmp_path: Path, monkeypatch, code: int):
    def refuse(source: Path, link: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    reports = run(tmp_path, evaluate=scores(0.5, 0.9, 0.6, 0.7))
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == reports[-1]["step"]
    assert load_best_checkpoint(tmp_path, CPU)["step"] == 4
    assert not (tmp_path / BEST_NAME).samefile(list_checkpoints(tmp_path)[0])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_error_of_a_link_is_raised(tmp_path: Path, monkeypatch):
    def refuse(source: Path, link: Path) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PermissionError):
        run(tmp_path)


def _unlinked(path: Path) -> None:
    """Give a file content of its own, that other names do not share."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
