"""A pretraining run's own folder: its last two checkpoints, its best one, and the history of its reports.

    step-00000120.pt    model, optimiser, RNG, position and history; the last two are kept
    best.pt             the checkpoint with the highest validation AUC so far (a hard link to one of them, or a copy)
    history.json        the metrics of every report so far, for those who do not want to read a checkpoint

The run finds its checkpoint again by its folder, which is named after its identity, and not by what a scheduler
remembers: after kill -9 that may be older than the files, or gone.
"""

import errno
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scarce.errors import UserError
from scarce.files import atomic_path, write_json
from scarce.memory import is_out_of_memory

BEST_NAME = "best.pt"
HISTORY_NAME = "history.json"
KEPT = 2
FULL = {errno.ENOSPC, errno.EDQUOT}
PATIENCE_S = 600.0  # to wait for room on a full disk
RETRY_S = 3.0
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV}


class DamagedError(Exception):
    """A checkpoint file cannot be read."""


def save_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Any],
    best: bool,
    patience_s: float = PATIENCE_S,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Write the checkpoint of `step` atomically, mark it as the best if it is, and drop all but the last two.

    On a full disk nothing is left half-written, and it is tried again every few seconds.

    Args:
        folder: of the run.
        step: how many steps the run has made.
        state: what a resumed run needs; `history` in it are its reports.
        best: whether this is the best checkpoint so far.
        patience_s: how long to wait for room, in seconds.
        beat: called at every try.

    Raises:
        OSError: there was no room in all that time, or the disk failed otherwise.
    """
    content = io.BytesIO()
    torch.save(state, content)  # not into the file: at a full disk PyTorch's writer raises a RuntimeError without errno
    deadline, waiting = time.monotonic() + patience_s, False
    while True:
        beat()
        try:
            _write(folder, step, content.getbuffer(), state["history"], best)
            return
        except OSError as error:
            if error.errno not in FULL or time.monotonic() > deadline:
                raise
        if not waiting:
            print(
                f"{folder}: the disk is full, the checkpoint of step {step} needs {content.tell() / 1e6:.3g} MB; "
                f"free some room within {patience_s / 60:.3g} minutes and the trial goes on by itself",
                flush=True,
            )
        waiting = True
        time.sleep(min(RETRY_S, patience_s))


def _write(folder: Path, step: int, content: memoryview, history: list[dict[str, Any]], best: bool) -> None:
    for left in folder.glob(".*.pt.*tmp"):  # by a process that was killed while it wrote
        left.unlink(missing_ok=True)
    path = _path(folder, step)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    if best:
        _link_or_copy(path, folder / BEST_NAME)
    write_json(folder / HISTORY_NAME, history)
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()


def _link_or_copy(path: Path, to: Path) -> None:
    """Give a file another name as well, atomically; where links can't be made, as in mounted buckets, copy it."""
    link = to.with_name(f".{to.name}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with atomic_path(to) as temporary:
            shutil.copyfile(path, temporary)
    else:
        os.replace(link, to)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, without `best.pt`."""
    return sorted(folder.glob("step-*.pt"))


def load_last_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint of a run that can be read, or None. Only tensors and plain values are unpickled."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path, device)
        except DamagedError as error:
            print(f"{error}, going back to the one before", flush=True)
    return None


def mend_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Bring history.json up to its checkpoint: it is a report behind after a crash between the two files."""
    path = folder / HISTORY_NAME
    if not path.exists() or json.loads(path.read_text()) != history:
        write_json(path, history)


def load_best_checkpoint(folder: Path, device: torch.device) -> dict[str, Any]:
    """The best checkpoint; if its file is damaged, the one of the same step, if that is still kept.

    Raises:
        UserError: neither can be read.
    """
    history = json.loads((folder / HISTORY_NAME).read_text())
    step = int(max((metrics["val_auc"], metrics["step"]) for metrics in history)[1])
    reasons = []
    for path in (folder / BEST_NAME, _path(folder, step)):
        try:
            state = load_checkpoint(path, device)
        except DamagedError as error:
            reasons.append(str(error))
            continue
        if reasons:
            print(f"{reasons[0]}, taking {path.name} instead", flush=True)
        return state
    raise UserError(
        f"expected the best weights of a trial, found none that can be read ({'; '.join(reasons)}): "
        f"delete {folder} and go on with --resume, which chooses among the other trials"
    )


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """One checkpoint file's content, tensors on `device`.

    Raises:
        DamagedError: the file is not there, or not whole. What PyTorch raises then depends on the bytes that it finds.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise DamagedError(f"{path}: damaged ({type(error).__name__})") from error
    return state
