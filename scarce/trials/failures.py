"""What a trial's folder says of its failures, for whichever process works on the trial next.

    failed.json     why it is not tried again: {"reason": one line}
    preempted.json  how often its machine gave notice: {"times": number}
    memory.json     after it ran out of memory, how many images it trains on at a time: {"micro_batch": number}

A trial is tried again from its last checkpoint after whatever may have been its machine's fault. A loss that is not
finite and a mistake of the user's would only come again.
"""

import json
import math
from pathlib import Path

from scarce.checkpoint import HISTORY_NAME
from scarce.errors import UserError, one_line
from scarce.files import write_json

FAILED_NAME = "failed.json"
MEMORY_NAME = "memory.json"
PREEMPTED_NAME = "preempted.json"
LEAST_ON_A_WORKER = 8  # images: batch-norm statistics of fewer say little
MOST_PARTS = 16  # of a batch


def is_final(error: Exception) -> bool:
    """Whether the same would come again from the same checkpoint."""
    return isinstance(error, FloatingPointError | UserError)


def mark_failed(folder: Path, reason: object) -> None:
    """Write down that the trial is not to be tried again, and why: a line, or an error."""
    reason = getattr(reason, "cause", reason)  # Ray makes a remote traceback part of the message
    write_json(folder / FAILED_NAME, {"reason": one_line(reason)})


def failure(folder: Path) -> str | None:
    """Why the trial is not to be tried again; None as long as it is."""
    path = folder / FAILED_NAME
    if not path.exists():
        return None
    reason: str = json.loads(path.read_text(encoding="utf-8"))["reason"]
    return reason


def progress(folder: Path) -> tuple[int, ...]:
    """How far the trial has come, first the step of its last report; as long as it stays, failures count."""
    history = folder / HISTORY_NAME
    reports = json.loads(history.read_text(encoding="utf-8")) if history.exists() else []
    return int(reports[-1]["step"]) if reports else 0, micro_batch(folder) or 0, preemptions(folder)


def preemptions(folder: Path) -> int:
    """How often the trial had to leave a machine."""
    path = folder / PREEMPTED_NAME
    return int(json.loads(path.read_text(encoding="utf-8"))["times"]) if path.exists() else 0


def mark_preempted(folder: Path) -> None:
    """Count one more, which is no failure of the trial's."""
    write_json(folder / PREEMPTED_NAME, {"times": preemptions(folder) + 1})


def micro_batch(folder: Path) -> int | None:
    """How many images, over all workers, the trial trains on at a time; None as long as that is a whole batch."""
    path = folder / MEMORY_NAME
    if not path.exists():
        return None
    images: int = json.loads(path.read_text(encoding="utf-8"))["micro_batch"]
    return images


def mark_out_of_memory(folder: Path, batch: int, tried: int | None, workers: int) -> None:
    """Write down that the next attempt is to train on half as many images at a time, or that there is none.

    Args:
        folder: of the trial.
        batch: images a step, over all workers.
        tried: how many of them at a time were too many; None: all.
        workers: of the trial.
    """
    tried = tried or batch
    smaller = max(tried // 2, LEAST_ON_A_WORKER * workers, math.ceil(batch / MOST_PARTS))
    if smaller < tried:
        write_json(folder / MEMORY_NAME, {"micro_batch": smaller})
        print(f"{folder.name}: out of memory with {tried} images at a time, next with {smaller}", flush=True)
    else:
        mark_failed(
            folder,
            f"out of memory with {tried} images at a time, the fewest that are tried with a batch of {batch}: lower "
            "--image-size or take a smaller --backbone, or give a trial more memory (--gpus-per-trial, --concurrent)",
        )
