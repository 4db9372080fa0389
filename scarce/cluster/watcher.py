"""Cleans up after one local Ray cluster when its driver has ended, however it ended.

Most of Ray's processes die with the driver, even after kill -9; its two node agents wait a minute or more for a control
store that is gone, and nobody removes the session's directory. So `cluster.py` starts this file as a detached process
(standard library only, nothing of scarce is imported) and writes to its stdin which processes it started; the end of
that stream is the driver's end.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path


def start_time(pid: int) -> str | None:
    """When the process was started, in clock ticks since boot; None if there is none or no /proc to ask.

    A process id alone may have been given to another process since; the pair may not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22; the command's name before it may hold blanks


def remove_tree(directory: Path, patience_s: float = 30.0) -> None:
    """Remove `directory`, again while dying processes still write their last lines into it."""
    deadline = time.monotonic() + patience_s
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


def starting_workers(directory: Path) -> list[int]:
    """Workers of the cluster in `directory` that have not got as far as giving themselves another title."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # it has ended since
            continue
        if b"/ray/_private/workers/" in command and os.fsencode(directory) in command:
            found.append(int(path.parent.name))
    return found


def end(pid: int) -> None:
    """Kill a process unless it has ended by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def watch(directory: Path) -> None:
    """Wait for the driver's end, then end what is left of its cluster and remove the directory."""
    for line in sys.stdin.read().splitlines():
        pid, started = line.split()
        if start_time(int(pid)) == started:
            end(int(pid))
    # A worker that was starting when the driver was killed is in no list, and would make the directory anew.
    while starting := starting_workers(directory):
        for pid in starting:
            end(pid)
        time.sleep(0.05)
    remove_tree(directory)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
