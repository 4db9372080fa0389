"""Notice that this machine is about to go: who gives it, who heeds it, and how one knows that nothing is lost.

A notice is a file, whose path is in the environment variable SCARCE_NOTICE of all processes of a machine: training runs
in a thread, where Python handles no signals, and in other processes than the one that is told.
`scarce.cluster.node_notice` gives it on a spot machine, `sigterm_is_notice` in a script on a laptop or under Slurm. A
training process holds a file beside it, named after its process id, as long as ending it would lose work.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scarce.cluster.environment import environment
from scarce.cluster.processes import is_running
from scarce.errors import Terminated

VARIABLE = "SCARCE_NOTICE"
STALE_S = 300.0  # a machine that is still there by then was not ended
_UNSAVED = ".unsaved-"


class Notice:
    """A training process's view of the notice of its machine; without the variable there never is one."""

    def __init__(self) -> None:
        self._path = os.environ.get(VARIABLE)

    def given(self) -> bool:
        """Whether this machine is about to go. Takes a microsecond."""
        return self._path is not None and os.path.exists(self._path) and not self._is_stale()

    def wait_out(self, seconds: float = 60.0) -> None:
        """Wait, where there is nothing to be done but to end with the machine: at most so long."""
        deadline = time.monotonic() + seconds
        while self.given() and time.monotonic() < deadline:
            time.sleep(0.2)

    @contextmanager
    def unsaved(self) -> Iterator[None]:
        """Within the block, ending the process would lose work."""
        self._hold()
        try:
            yield
        finally:
            self._let_go()

    @contextmanager
    def saved(self) -> Iterator[None]:
        """A part of that block in which it would not."""
        self._let_go()
        try:
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        if self._path is not None:
            with suppress(FileNotFoundError):  # whoever would give the notice has ended
                Path(f"{self._path}{_UNSAVED}{os.getpid()}").touch()

    def _let_go(self) -> None:
        if self._path is not None:
            Path(f"{self._path}{_UNSAVED}{os.getpid()}").unlink(missing_ok=True)

    def _is_stale(self) -> bool:
        assert self._path is not None
        with suppress(FileNotFoundError):
            return time.time() - os.stat(self._path).st_mtime > STALE_S
        return True


def give_notice(path: Path, seconds: float) -> bool:
    """Give notice and wait until all work is saved, at most so long; whether it is."""
    path.touch()
    deadline = time.monotonic() + seconds
    while waiting := unsaved_processes(path):
        if time.monotonic() > deadline:
            print(f"{len(waiting)} training process(es) had not saved within {seconds:.0f} s", flush=True)
            return False
        time.sleep(0.05)
    return True


def unsaved_processes(path: Path) -> list[int]:
    """The running training processes whose work is not saved."""
    found = (int(file.name.rpartition("-")[2]) for file in path.parent.glob(f"{path.name}{_UNSAVED}*"))
    return [process for process in found if is_running(process)]


@contextmanager
def sigterm_is_notice(seconds: float = 15.0) -> Iterator[Callable[[], None]]:
    """Within the block SIGTERM gives notice to the trials of a cluster that is started in it, then ends the script.

    What it yields is to be called once the cluster runs: Ray takes SIGTERM for itself as it starts.

    The variable is for processes that are started in the block: trials on a cluster that ran before heed their own
    machines' notice only.

    Raises:
        Terminated: on SIGTERM, once the trials have saved what they did, or after so many seconds.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled in no other
        yield lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="scarce-notice-") as directory:
        path, told = Path(directory) / "notice", list[int]()

        def handle(number: int, frame: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            told.append(number)
            give_notice(path, seconds)
            raise Terminated

        def listen() -> None:
            signal.signal(signal.SIGTERM, handle)

        before = signal.getsignal(signal.SIGTERM)
        listen()
        try:
            with environment(**{VARIABLE: str(path)}):
                yield listen
        except KeyboardInterrupt as stopped:
            if told:  # Ray makes any exception of a signal handler this one
                raise Terminated from stopped
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
