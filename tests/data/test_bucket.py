"""A dataset in a bucket: the same to the byte as on the disk, and plain words where it can't be had."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from bucket_server import bucket_server
from phantom_hospitals import write_films

from scarce.cli import main
from scarce.data.describe import describe
from scarce.data.feed import load_feed
from scarce.data.mapped import MappedFile
from scarce.data.selection import Selection
from scarce.data.store import Dataset, open_dataset
from scarce.errors import UserError

SIZE, IMAGES = 24, 700
HELD_OUT = tuple(f"p{n}" for n in (*range(30), 44, 69))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a local server, which has one bucket, and how to reach it."""
    folder = tmp_path_factory.mktemp("server")
    with bucket_server(folder) as query:
        yield folder, query


@pytest.fixture(scope="module")
def there(server: tuple[Path, str]) -> tuple[Dataset, Dataset]:
    """A dataset as the server's disk holds it, and the same in the bucket: five shards, nobody left of the first."""
    folder, query = server
    random = np.random.default_rng(0)
    table = pd.DataFrame({"image_id": [f"{n:05d}" for n in range(IMAGES)], "sex": "F", "view": "PA", "age": 50.0})
    table["patient_id"] = [f"p{n // 10}" for n in range(IMAGES)]
    table["labels"] = [["Effusion"] if n % 3 else None for n in range(IMAGES)]
    pixels = random.integers(0, 256, (IMAGES, SIZE, SIZE), dtype=np.uint8)
    here = write_films(folder / "bucket" / "nih", "here", table, pixels, pixels > 127, shards=5)
    return here, open_dataset(f"s3://bucket/nih?{query}")


def test_it_is_the_same_to_the_byte(there: tuple[Dataset, Dataset]) -> None:
    here, remote = there
    assert remote.manifest == here.manifest
    pd.testing.assert_frame_equal(remote.metadata(), here.metadata())
    rows = np.random.default_rng(1).permutation(IMAGES)[:50]
    np.testing.assert_array_equal(remote.pixels(), here.pixels())
    np.testing.assert_array_equal(remote.pixels(rows), here.pixels(rows))
    np.testing.assert_array_equal(remote.lungs(rows), here.lungs(rows))
    assert describe(remote) == describe(here)
    for one, other in zip(remote.parts(["image_id"]), here.parts(["image_id"]), strict=True):
        assert one.equals(other)


@pytest.mark.parametrize("size", [SIZE, 11])
def test_a_mapped_file_is_decoded_straight_from_the_bucket(
    there: tuple[Dataset, Dataset], tmp_path: Path, size: int
) -> None:
    contents = []
    for dataset in there:
        file = MappedFile(Selection(dataset, HELD_OUT, size), str(tmp_path / "cache"))
        contents.append(file.open().gather(np.arange(file.selection.images)))
    np.testing.assert_array_equal(*contents)
    assert len(list(tmp_path.glob("cache/*.pixels"))) == 2  # a name each, as either may be converted anew


def test_the_object_store_holds_the_same(
    ray_cluster: str, there: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCARCE_CACHE", str(tmp_path))
    here, remote = there
    arguments = {"without_patients": HELD_OUT, "largest_size": SIZE}
    feeds = [load_feed(remote, **arguments), load_feed(remote, **arguments, store_bytes=0)]
    kept = np.array([n for n in range(IMAGES) if f"p{n // 10}" not in HELD_OUT])
    for feed, in_file in zip(feeds, (False, True), strict=True):
        assert isinstance(feed.source, MappedFile) == in_file
        assert feed.images == len(kept)
        np.testing.assert_array_equal(feed.open().gather(np.arange(len(kept))), here.pixels(kept))

    @ray.remote(num_cpus=0)
    def first(feed: object) -> int:
        return int(feed.open().gather(np.arange(1)).sum())  # type: ignore[attr-defined]

    assert len({ray.get(first.remote(feed)) for feed in feeds}) == 1


def test_a_changed_or_damaged_one_is_refused(
    there: tuple[Dataset, Dataset], server: tuple[Path, str], tmp_path: Path
) -> None:
    folder, query = server
    copied = Path(shutil.copytree(there[0].path, folder / "bucket" / "other"))
    url = f"s3://bucket/other?{query}"
    file = MappedFile(Selection(open_dataset(url), (), SIZE), str(tmp_path))
    manifest = copied / "dataset.json"
    manifest.write_text(manifest.read_text().replace(there[0].manifest.digest, "0" * 64))
    with pytest.raises(UserError, match="converted anew"):
        file.open()
    (copied / "shard-00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"shard-00002.parquet\?.* is missing or damaged"):
        open_dataset(url)
    (copied / "shard-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"shard-00002.parquet\?.* is missing or damaged"):
        open_dataset(url)
    manifest.write_text("no manifest")
    with pytest.raises(UserError, match="is not a dataset manifest"):
        open_dataset(url)


def test_the_command_describes_it(
    there: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scarce", "describe", str(there[1].path)])
    main()
    assert capsys.readouterr().out == describe(there[0]) + "\n"


def test_what_can_t_be_had_is_one_line_and_exit_code_2(
    server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        nobody = f"endpoint_override=127.0.0.1:{unused.getsockname()[1]}&scheme=http"
        cases = {
            ("describe", f"s3://no-bucket/nih?{server[1]}"): "no such bucket",
            ("describe", f"s3://bucket/nothing?{server[1]}"): "expected dataset.json there",
            ("describe", f"s3://bucket/nih?{nobody}"): "Could not connect to server",
            ("describe", "http://bucket/nih"): "expected a path, s3://",
            ("convert", "folder", "--source", "/nowhere", "--out", "s3://bucket/new"): "convert here first, then copy",
            ("convert", "nih", "--source", "gs://bucket/raw", "--out", "/nowhere"): "copy the download here first",
        }
        for arguments, words in cases.items():
            monkeypatch.setattr("sys.argv", ["scarce", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1
            assert words in lines[0]
