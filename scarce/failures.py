"""What a trial's folder says of its failures, for whichever process works on the trial next.

    failed.json     why it is not tried again: {"reason": one line}

A trial is tried again from its last checkpoint after whatever may have been its machine's fault. A loss that is not
finite and a mistake of the user's would only come again.
"""

import json
from pathlib import Path

from scarce.checkpoint import last_step
from scarce.errors import UserError
from scarce.files import write_json

FAILED_NAME = "failed.json"


def is_final(error: Exception) -> bool:
    """Whether the same would come again from the same checkpoint."""
    return isinstance(error, FloatingPointError | UserError)


def mark_failed(folder: Path, reason: object) -> None:
    """Write down that the trial is not to be tried again, and why: a line, or an error."""
    reason = getattr(reason, "cause", reason)  # Ray makes a remote traceback part of the message
    write_json(folder / FAILED_NAME, {"reason": " ".join(str(reason).split())})


def failure(folder: Path) -> str | None:
    """Why the trial is not to be tried again; None as long as it is."""
    path = folder / FAILED_NAME
    if not path.exists():
        return None
    reason: str = json.loads(path.read_text(encoding="utf-8"))["reason"]
    return reason


def progress(folder: Path) -> tuple[int, ...]:
    """How far the trial has come: what differs from an attempt before got further than it."""
    return (last_step(folder),)
