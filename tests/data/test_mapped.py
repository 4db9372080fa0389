"""The file that holds a selection's pixels: the right bytes, made once, never a part of them, never much in memory."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from phantom_hospitals import write_films
from PIL import Image

from scarce.data.mapped import MappedFile, cache_folder
from scarce.data.selection import Selection
from scarce.data.store import Dataset
from scarce.errors import UserError

SIZE = 20  # 400 bytes an image: images begin anywhere in a page


def write(folder: Path, seed: int = 0, images: int = 700, size: int = SIZE) -> Dataset:
    """Two shards of two row groups each if there are 700 images; ten images a patient."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, size, size), dtype=np.uint8)
    table = pd.DataFrame({"image_id": [f"{n:05d}" for n in range(images)]})
    table["patient_id"] = [f"p{n // 10}" for n in range(images)]
    return write_films(folder, "here", table, pixels, shards=2)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "data")


def mapped(dataset: Dataset, folder: Path, without: tuple[str, ...] = (), size: int = SIZE) -> MappedFile:
    return MappedFile(Selection(dataset, without, size), str(folder))


def content(file: MappedFile) -> np.ndarray:
    """All images, in random order and back."""
    pixels = file.open()
    order = np.random.default_rng(1).permutation(len(pixels))
    return pixels.gather(order)[np.argsort(order)]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize(
    "left_out",
    [range(0), range(3, 40, 7), range(26), range(35), range(1, 70)],
    ids=["none", "some", "a row group", "a shard", "all but one"],
)
def test_images_of_all_other_patients_in_order(dataset: Dataset, tmp_path: Path, left_out: range) -> None:
    file = mapped(dataset, tmp_path / "cache", tuple(sorted(f"p{n}" for n in left_out)))
    kept = [n for n in range(700) if n // 10 not in left_out]
    assert file.selection.images == len(kept)
    np.testing.assert_array_equal(content(file), dataset.pixels(np.array(kept)))


def test_images_are_reduced(dataset: Dataset, tmp_path: Path) -> None:
    one_by_one = [
        np.asarray(Image.fromarray(image).resize((9, 9), Image.Resampling.LANCZOS)) for image in dataset.pixels()
    ]
    np.testing.assert_array_equal(content(mapped(dataset, tmp_path / "cache", size=9)), one_by_one)


def test_an_image_left_out_later_is_still_found_by_its_number(dataset: Dataset, tmp_path: Path) -> None:
    rest = mapped(dataset, tmp_path / "cache").open().without(np.array([0, 5]))
    np.testing.assert_array_equal(rest.gather(np.array([0, 4, 697])), dataset.pixels(np.array([1, 6, 699])))


def start(file: MappedFile, folder: Path, script: str) -> "subprocess.Popen[str]":
    """A process that runs `script`, in which `file` is this file."""
    (folder / "file.pickle").write_bytes(pickle.dumps(file))
    load = f"import pickle; file = pickle.load(open({str(folder / 'file.pickle')!r}, 'rb'))\n"
    command = [sys.executable, "-c", load + textwrap.dedent(script)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_make_it_once(dataset: Dataset, tmp_path: Path) -> None:
    file = mapped(dataset, tmp_path / "cache")
    script = """
        import time
        from scarce.data.mapped import MappedFile
        make, made = MappedFile._make, []
        def make_slowly(self):
            made.append(1)
            time.sleep(0.3)  # long enough for the other one to look
            make(self)
        MappedFile._make = make_slowly
        print("ready", flush=True)
        input()
        file.open()
        print(len(made))
        """
    processes = [start(file, tmp_path, script) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    made = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(made) == [0, 1]
    np.testing.assert_array_equal(content(file), dataset.pixels())


def test_a_writer_that_is_killed_leaves_nothing_that_is_used(dataset: Dataset, tmp_path: Path) -> None:
    file = mapped(dataset, tmp_path / "cache")
    script = """
        import os, signal
        from scarce.data.selection import Selection
        pixels, groups = Selection.pixels, []
        def killed(self, table):
            groups.append(1)
            if len(groups) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return pixels(self, table)
        Selection.pixels = killed
        file.open()
        """
    process = start(file, tmp_path, script)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    [left] = files_in(tmp_path / "cache")
    assert left.endswith(".tmp")
    np.testing.assert_array_equal(content(file), dataset.pixels())
    assert files_in(tmp_path / "cache") == [file.path.name]


def test_a_writer_that_fails_leaves_nothing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = mapped(dataset, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(Selection, "pixels", lambda self, table: np.zeros((table.num_rows - 1, SIZE, SIZE), np.uint8))
        with pytest.raises(RuntimeError, match="bytes of pixels"):
            file.open()
    assert files_in(tmp_path / "cache") == []


@pytest.mark.parametrize("change", [-1, 400])
def test_a_file_of_another_length_is_made_again(dataset: Dataset, tmp_path: Path, change: int) -> None:
    file = mapped(dataset, tmp_path / "cache")
    file.open()
    os.truncate(file.path, file.path.stat().st_size + change)
    np.testing.assert_array_equal(content(file), dataset.pixels())


def test_a_whole_file_is_used_again(dataset: Dataset, tmp_path: Path) -> None:
    file = mapped(dataset, tmp_path / "cache")
    file.open()
    before = file.path.stat()
    mapped(dataset, tmp_path / "cache").open()
    assert (file.path.stat().st_ino, file.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_only_earlier_versions_of_the_same_dataset_go(dataset: Dataset, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", write(tmp_path / "other", seed=1)
    stays, goes = mapped(other, cache), [mapped(dataset, cache), mapped(dataset, cache, size=9)]
    for file in (stays, *goes):
        file.open()
    assert len(files_in(cache)) == 3
    opened = goes[0].open()

    shutil.rmtree(dataset.path)
    new = write(dataset.path, seed=2)
    files = [mapped(new, cache), mapped(new, cache, size=9)]
    for file in files:
        file.open()
    assert files_in(cache) == sorted(file.path.name for file in (stays, *files))
    np.testing.assert_array_equal(content(files[0]), new.pixels())
    assert not np.array_equal(opened.gather(np.arange(700)), new.pixels())  # who has it mapped keeps it

    with pytest.raises(UserError, match="converted anew"):
        goes[0].open()


def test_a_disk_that_is_too_small(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = mapped(dataset, tmp_path / "cache")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=file.selection.bytes - 1))
    with pytest.raises(UserError, match="SCARCE_CACHE"):
        file.open()
    assert files_in(tmp_path / "cache") == []


def test_a_folder_that_is_none(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="SCARCE_CACHE"):
        mapped(dataset, tmp_path / "cache").open()


@contextmanager
def arrow_pool() -> Iterator[pa.MemoryPool]:
    """Arrow's allocations, counted from zero."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


@pytest.mark.parametrize("size", [64, 32])
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path, size: int) -> None:
    dataset = write(tmp_path / "data", images=8000, size=64)
    file = mapped(dataset, tmp_path / "cache", without=("p1",), size=size)
    tracemalloc.start()
    try:
        with arrow_pool() as pool:
            file.open()
        in_python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    group = 256 * 64 * 64
    assert pool.max_memory() > group  # it is measured at all
    assert pool.max_memory() + in_python < 6 * group < 8000 * 64 * 64 / 5


def test_the_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCARCE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == "~/.cache/scarce"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == "/elsewhere/scarce"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCARCE_CACHE", "here")
    assert cache_folder() == str(tmp_path / "here")
