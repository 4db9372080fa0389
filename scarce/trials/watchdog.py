"""Ends a training process that hangs, so that its trial is tried again by another.

The standard library's `faulthandler` keeps the time in a thread that needs no Python: it writes what every thread of
the process was at, then exits with code 1, also where a call into CUDA or a collective holds the interpreter.
"""

import faulthandler
import time
from pathlib import Path

HANG_NAME = "hang.txt"


class Watchdog:
    """Within its block, the process ends once `beat` was not called for so long. There can be one in a process."""

    def __init__(self, folder: Path, minutes: float) -> None:
        """Write to hang.txt in `folder` after `minutes` without a beat; 0: never."""
        self._seconds = minutes * 60
        self._path = folder / HANG_NAME
        self._set = -float("inf")

    def beat(self) -> None:
        """Something was done."""
        now = time.monotonic()
        if self._seconds and now - self._set > self._seconds / 50:  # setting it starts a thread
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)
            self._set = now

    def __enter__(self) -> "Watchdog":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a")  # closed when the block is left
        self.beat()
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        if self._path.exists() and self._path.stat().st_size == 0:
            self._path.unlink(missing_ok=True)


def hang_size(folder: Path) -> int:
    """Bytes that hanging processes have written to a trial's folder so far."""
    path = folder / HANG_NAME
    return path.stat().st_size if path.exists() else 0
