"""A run in a bucket. It needs a folder that renames, links, appends and locks, so it works in one on every node.

That folder is in the cache ($SCARCE_CACHE) and has the same path everywhere; this copies between it and the bucket:

- A trial takes its folder from the bucket when it starts, as it may have been started on another node before, and
  brings it back before every report: checkpoints first, then history.json, then what was dropped goes. So whoever
  reads the bucket never finds a history without its checkpoint, and what Tune was told is in the bucket.
- The driver brings its own files (config.json, Tune's state, the results) a few seconds after they change.

What is not in the bucket did not happen: a folder that is ahead of it, as after a crash between saving and bringing, is
set back to it.
"""

import fcntl
import filecmp
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from scarce.checkpoint import BEST_NAME, HISTORY_NAME
from scarce.data.mapped import cache_folder
from scarce.errors import UserError
from scarce.files import stable_hash
from scarce.storage import (
    Place,
    Remote,
    copy,
    download,
    explained,
    list_files,
    read_bytes,
    reason_of,
    remove,
    side_by_side,
    upload,
)
from scarce.trials.attempts import ATTEMPTS_NAME
from scarce.trials.records import TRIALS

BOARDS = "tensorboard"  # with TRIALS, the folders that the trials bring
NODE_ONLY = "ray_train"  # of no use elsewhere
PUSH_EVERY_S = 3.0
SETTLED_S = 0.1  # a file that did not change for so long is not being written: Tune's are not written atomically
PATIENCE_S = 300.0  # of a trial, with a bucket that can't be reached
_IN_MEMORY = 1 << 20  # bytes; larger files are mapped

Stamp = tuple[int, int, int]  # inode, size and time of the last change: another one, another content


class Mirror:
    """A run's folder, and the bucket's that it is a copy of, if it is one: else nothing here does anything."""

    def __init__(self, folder: Path, remote: Remote | None = None) -> None:
        self.folder = folder
        self.remote = remote
        self._pushed: dict[Path, Stamp] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """What was pushed is of no concern to another process."""
        return Mirror, (self.folder, self.remote)

    def __str__(self) -> str:
        return str(self.remote or self.folder)

    def __truediv__(self, part: str) -> "Mirror":
        return Mirror(self.folder / part, self.remote / part if self.remote else None)

    def place(self, path: Path) -> Place:
        """Where a file or folder below `folder` is to be found: by others, if the run is in a bucket."""
        return self._there(self.remote, path) if self.remote else path

    # What the driver does.

    def pull(self) -> None:
        """Set the folder to what the bucket holds, but for checkpoints and TensorBoard's files."""
        if self.remote is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        names = [name for name in list_files(self.remote) if not _is_large(name)]
        self._download(self.remote, self.folder, names)
        self._pushed = dict(self._own_files())

    def push(self) -> None:
        """Bring the driver's files that have changed since they were pulled or pushed.

        Raises:
            UserError: the bucket could not be reached for minutes.
        """
        if self.remote is None:
            return
        try:
            self._patiently(self._push_own)
        except OSError as error:
            raise UserError(
                f"the results are whole in {self.folder}, but {self.remote} can't be written ({reason_of(error)}): "
                "copy them, or give the same command with --resume once it can"
            ) from error

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Push every few seconds while the block runs, and once more after it. An error is said and tried again."""
        if self.remote is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._keep_pushing, args=[ended], name=f"push to {self}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def pull_reports(self) -> None:
        """Fetch what the trials have reported, wherever they ran."""
        if self.remote is not None:
            remote, folder = self.remote / TRIALS, self.folder / TRIALS

            def fetch() -> None:
                names = [name for name in list_files(remote) if name.endswith(".json")]
                self._download(remote, folder, names)

            self._patiently(fetch)

    def pull_file(self, path: Path) -> None:
        """Fetch one file."""
        if self.remote is not None:
            remote = self._there(self.remote, path)
            self._patiently(lambda: download(remote, path))

    def push_file(self, path: Path) -> None:
        """Bring one file."""
        if self.remote is not None:
            remote = self._there(self.remote, path)
            self._patiently(lambda: _upload_file(path, remote))

    def push_first(self, path: Path) -> None:
        """Bring a run's first file, without patience: `UserError` if the bucket can't be written."""
        if self.remote is not None:
            with explained(self.remote):
                _upload_file(path, self._there(self.remote, path))

    # What a trial does, wherever it runs.

    def pull_trial(self, folder: Path) -> None:
        """Set a trial's folder to what the bucket holds of it. Of a trial's workers on one node one does it."""
        if self.remote is None:
            return
        remote = self._there(self.remote, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".pull.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._patiently(lambda: _set_back(folder, remote))
        self._pushed = _stamps(folder)

    def push_trial(self, folder: Path, board: Path) -> None:
        """Bring a trial's folder and its TensorBoard folder, if the former has changed."""
        if self.remote is None or self._pushed == (stamps := _stamps(folder)):
            return
        for each in (folder, board):
            if each.is_dir():  # a trial that failed before it began has no board
                self._patiently(partial(_bring, each, self._there(self.remote, each)))
        self._push_attempts(folder)
        self._pushed = stamps

    @contextmanager
    def bringing_attempts(self, folder: Path) -> Iterator[None]:
        """Bring what is recorded of a trial's attempts when one ends."""
        try:
            yield
        finally:
            self._push_attempts(folder)

    def _push_attempts(self, folder: Path) -> None:
        """Each worker adds its own, on whichever node it is."""
        attempts = folder / ATTEMPTS_NAME
        if self.remote is not None and attempts.is_dir():
            remote = self._there(self.remote, attempts)
            self._patiently(lambda: _add(attempts, remote))

    def _there(self, remote: Remote, path: Path) -> Remote:
        for part in path.relative_to(self.folder).parts:
            remote = remote / part
        return remote

    def _download(self, remote: Remote, folder: Path, names: Iterable[str]) -> None:
        side_by_side(lambda name: download(remote / name, folder / name), names)

    def _own_files(self) -> Iterator[tuple[Path, Stamp]]:
        """The driver's files with their stamps, the one that changed first first."""
        found = []
        for path in self.folder.rglob("*"):
            parts = path.relative_to(self.folder).parts
            if path.is_file() and not {TRIALS, BOARDS, NODE_ONLY} & {*parts} and not parts[-1].startswith("."):
                found.append((path, _stamp(path)))
        yield from sorted(found, key=lambda file: file[1][-1])

    def _push_own(self) -> None:
        changed = {path: stamp for path, stamp in self._own_files() if self._pushed.get(path) != stamp}
        if not changed or self.remote is None:
            return
        time.sleep(SETTLED_S)
        for path, stamp in self._own_files():
            if changed.get(path) == stamp:
                _upload_file(path, self._there(self.remote, path))
                self._pushed[path] = stamp

    def _keep_pushing(self, ended: threading.Event) -> None:
        failing = last = False
        while not last:
            last = ended.wait(PUSH_EVERY_S)
            try:
                self._push_own()
                failing = False
            except FileNotFoundError:
                continue  # a file went while it was being pushed
            except OSError as error:
                if not failing:
                    print(f"{self.remote} can't be written ({reason_of(error)}): trying again", flush=True)
                failing = True

    def _patiently(self, action: Callable[[], None]) -> None:
        """Do it, again and again while the bucket can't be reached: what is wrong with a disk has an error number."""
        started, pause = time.monotonic(), 1.0
        while True:
            try:
                return action()
            except OSError as error:
                if error.errno is not None or time.monotonic() - started + pause > PATIENCE_S:
                    raise
                print(f"{self.remote} can't be used ({reason_of(error)}): trying again in {pause:.0f} s", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 30.0)


NOT_MIRRORED = Mirror(Path())


def open_mirror(place: Place) -> Mirror:
    """The run in this folder; of a bucket, with what is there of it fetched.

    Raises:
        UserError: the bucket can't be used.
    """
    if isinstance(place, Path):
        return Mirror(place)
    folder = Path(cache_folder()).expanduser() / "runs" / stable_hash(str(place))[:8] / place.name
    mirror = Mirror(folder, place)
    with explained(place):
        mirror.pull()
    return mirror


def _is_large(name: str) -> bool:
    """Whether a file of a run, by its name in the bucket, is only fetched by who needs it."""
    parts = PurePosixPath(name).parts
    return BOARDS in parts or (TRIALS in parts and not name.endswith(".json"))


def _set_back(folder: Path, remote: Remote) -> None:
    """Make a trial's folder what the bucket has. Equal histories are of equal checkpoints, where these are whole."""
    there, history = _in_folder(remote), folder / HISTORY_NAME
    is_current = (
        HISTORY_NAME in there and history.exists() and read_bytes(remote / HISTORY_NAME) == history.read_bytes()
    )
    if not is_current:
        history.unlink(missing_ok=True)  # first, so that a crash from here on leaves no folder that looks current
    for path in _files(folder).values():
        if path.name not in there:
            path.unlink()
    for name in sorted(there, key=lambda name: name == HISTORY_NAME):
        path = folder / name
        if not (is_current and path.exists() and path.stat().st_size == there[name]):
            download(remote / name, path)


def _bring(folder: Path, remote: Remote) -> None:
    """Make the bucket's folder what this one is, so that its history never is without a checkpoint.

    A checkpoint never changes, and an event file only grows: those of the same size are there already. The best
    checkpoint is one of the others: the bucket makes the copy.

    Raises:
        RuntimeError: what is there is no earlier state of this folder. A process that outlives the loss of its head
            must not undo what the run has done since.
    """
    there, files = _in_folder(remote), _files(folder)
    if HISTORY_NAME in there:
        before, now = json.loads(read_bytes(remote / HISTORY_NAME)), json.loads(files[HISTORY_NAME].read_bytes())
        if now[: len(before)] != before:
            raise RuntimeError(f"another process has worked on {remote}: this one must not go on")
    new = {name for name, path in files.items() if name.endswith(".json") or there.get(name) != path.stat().st_size}
    best = files.get(BEST_NAME)
    twins = {name for name in new - {BEST_NAME} if best is not None and _same(files[name], best)}
    # The best one goes before its twin: while that is missing, both are brought.
    for name in sorted(new | ({BEST_NAME} if twins else set()), key=lambda name: (name == HISTORY_NAME, name)):
        if name in twins:
            copy(remote / BEST_NAME, remote / name)
        else:
            _upload_file(files[name], remote / name)
    for name in there.keys() - files.keys():
        remove(remote / name)


def _add(folder: Path, remote: Remote) -> None:
    """Bring the files of another size than in the bucket, and take none away."""
    there = list_files(remote)
    for name, path in _files(folder).items():
        if there.get(name) != path.stat().st_size:
            _upload_file(path, remote / name)


def _in_folder(remote: Remote) -> dict[str, int]:
    """The files in a folder of the bucket with their sizes, without those in folders below it."""
    return {name: size for name, size in list_files(remote).items() if "/" not in name}


def _files(folder: Path) -> dict[str, Path]:
    """What there is to bring; an empty file, such as a watchdog holds open, tells nothing."""
    visible = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: path for path in visible if path.stat().st_size}


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stamps(folder: Path) -> dict[Path, Stamp]:
    return {path: _stamp(path) for path in _files(folder).values()}


def _same(one: Path, other: Path) -> bool:
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def _upload_file(path: Path, remote: Remote) -> None:
    if path.stat().st_size < _IN_MEMORY:
        upload(path.read_bytes(), remote)
    else:
        with pa.memory_map(str(path)) as mapped:
            upload(mapped.read_buffer(), remote)
