"""A pretraining run's own folder: its last two checkpoints, its best one, and the history of its reports.

    step-00000120.pt    model, optimiser, RNG, position and history; the last two are kept
    best.pt             the checkpoint with the highest validation AUC so far (a hard link to one of them)
    history.json        the metrics of every report so far, for those who do not want to read a checkpoint

The run finds its checkpoint again by its folder, which is named after its identity, and not by what a scheduler
remembers: after kill -9 that may be older than the files, or gone.
"""

import os
from pathlib import Path
from typing import Any

import torch

from scarce.files import atomic_path, write_json

BEST_NAME = "best.pt"
HISTORY_NAME = "history.json"
KEPT = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], best: bool) -> None:
    """Write the checkpoint of `step` atomically, mark it as the best if it is, and drop all but the last two."""
    path = folder / f"step-{step:08d}.pt"
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
    if best:
        link = folder / f".{BEST_NAME}.tmp"
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, folder / BEST_NAME)
    write_json(folder / HISTORY_NAME, state["history"])
    for old in list_checkpoints(folder)[:-KEPT]:
        old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, without `best.pt`."""
    return sorted(folder.glob("step-*.pt"))


def last_step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    return max((int(path.stem.removeprefix("step-")) for path in list_checkpoints(folder)), default=0)


def load_last_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint of a run that can be read, or None. Only tensors and plain values are unpickled."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path, device)
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            print(f"{path}: damaged, going back to the one before ({type(error).__name__})", flush=True)
    return None


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """One checkpoint file's content, tensors on `device`."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
