"""Atomic writes and stable hashes: the two things every part that touches the disk needs."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scarce.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed over `path`.

    A reader therefore sees the old file or the whole new one, never a part, even after kill -9 or a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which must not exist; on success it is renamed to it, else removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    unfinished.mkdir()
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_run_name(name: str) -> None:
    """`UserError` if the name of a run is none of one folder."""
    if name in (".", "..") or not name.strip() or "/" in name or not name.isprintable() or len(os.fsencode(name)) > 200:
        raise UserError(
            f"--name {name!r}: expected the name of one folder below --out, of at most 200 bytes, without slashes and "
            "line ends"
        )


def folder_of_run(out: str, name: str) -> Path:
    """The absolute path of the folder of a run of this name, which need not exist.

    Raises:
        UserError: the name is none of one folder, or `out` is something else than a folder that can be written to.
    """
    check_run_name(name)
    folder = (Path(out) / name).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file, expected a folder of runs: choose another --out or --name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there} can't be written to, expected a folder of runs: choose another --out")
    return folder


def check_new_file(flag: str, path: Path, suffix: str) -> None:
    """`UserError` where a file can't be written to the path that was given as `flag`: asked before work is done."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if path.suffix.lower() != suffix or path.is_dir():
        raise UserError(f"{flag} {path}: expected the name of a {suffix} file to write")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: {there} is no folder that can be written to, choose another place")


def check_new_folder(flag: str, path: Path) -> None:
    """`UserError` where no folder can be made at the path that was given as `flag`, or there is something already."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if os.path.lexists(path):
        raise UserError(f"{flag} {path} is there already: name a folder that does not exist")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: {there} is no folder that can be written to, choose another place")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented, key-sorted JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def stable_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: the same on every machine and in every Python process."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
