"""Images too many for the object store: decoded once per node into a plain file, which every trial maps.

The only memory this takes is the kernel's page cache, which all trials share and which gives way when memory is short.
A file is named after the dataset's folder and the hash of all that shapes its pixels, so later sweeps use it again.
The one of an earlier version of the dataset goes when a new one is made. Others may be deleted at any time: a trial
that runs keeps what it has mapped, and a missing file is made again.
"""

import fcntl
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scarce.data.pixels import Pixels
from scarce.data.selection import COLUMNS, Selection
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.files import atomic_path, stable_hash


def cache_folder() -> str:
    """$SCARCE_CACHE, or `scarce` in the user's cache folder: "~" is then the home of whoever opens a file there."""
    if chosen := os.environ.get("SCARCE_CACHE"):
        return os.path.abspath(os.path.expanduser(chosen))
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "scarce")


def map_pixels(file: int, size: int) -> Pixels:
    """The images of an open file, which may be closed afterwards."""
    mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # else the kernel reads megabytes around every image that it does not hold

    def prefetch(index: np.ndarray) -> None:
        """Let the disk fetch a batch's images side by side, not one after the other as they are copied."""
        for number in index.tolist():
            start = number * size**2 // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, start, (number + 1) * size**2 - start)

    return Pixels([np.frombuffer(mapped, np.uint8).reshape(-1, size, size)], prefetch)


@dataclass(frozen=True)
class MappedFile:
    """A selection's pixels in a file: images in order, rows top to bottom, one byte a pixel and nothing else."""

    selection: Selection
    folder: str

    @property
    def path(self) -> Path:
        """Where it lies on this node."""
        return Path(self.folder).expanduser() / f"{self._dataset_key}-{self._version}-{self.selection.identity}.pixels"

    def open(self) -> Pixels:
        """The images, mapped; the file is made first if this node does not have it whole.

        Whoever comes first makes it, others wait meanwhile.

        Raises:
            UserError: the disk is too small, the folder can't be written, or the dataset was changed.
        """
        with self._lock():
            if not self.path.exists() or self.path.stat().st_size != self.selection.bytes:
                self._make()
            with open(self.path, "rb") as file:
                return map_pixels(file.fileno(), self.selection.size)

    def _make(self) -> None:
        """Write the file, with no more of the dataset in memory than one row group, or a few shards of a bucket."""
        dataset = self.selection.dataset
        if open_dataset(dataset.path).manifest.digest != dataset.manifest.digest:
            raise UserError(f"{dataset.path} was converted anew since this run began: start another run")
        self._remove_stale()
        free = shutil.disk_usage(self.path.parent).free
        if free < self.selection.bytes:
            raise UserError(
                f"the pretraining images need {self.selection.bytes / 1e9:.1f} GB of disk in {self.path.parent}, which "
                f"has {free / 1e9:.1f} GB left: free some, or set SCARCE_CACHE to a folder on a larger local disk"
            )
        with atomic_path(self.path) as temporary:
            with open(temporary, "wb") as file:
                for part in dataset.parts(COLUMNS):
                    file.write(self.selection.pixels(part).data)
            if temporary.stat().st_size != self.selection.bytes:
                written, expected = temporary.stat().st_size, self.selection.bytes
                raise RuntimeError(f"{dataset.path} gave {written} bytes of pixels, expected {expected}")

    def _remove_stale(self) -> None:
        """Remove this dataset's files of earlier versions, and what a killed writer left half-written."""
        for path in self.path.parent.glob(f"{self._dataset_key}-*.pixels"):
            if not path.name.startswith(f"{self._dataset_key}-{self._version}-"):
                path.unlink()
        for path in self.path.parent.glob(f".{self._dataset_key}-*.tmp"):
            path.unlink()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold this dataset's lock on this node; the kernel lets go of it when its holder is killed."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = open(self.path.parent / f"{self._dataset_key}.lock", "w")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"expected a folder to keep decoded images in, found {self.path.parent}: {error.strerror}; "
                "set SCARCE_CACHE to a folder on a local disk"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def _dataset_key(self) -> str:
        return stable_hash(str(self.selection.dataset.path))[:16]

    @property
    def _version(self) -> str:
        return self.selection.dataset.manifest.digest[:16]
