import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hospital_folders import png, shared_data, writable_copy, write_csv, write_nih

from scarce.data import folder, nih, padchest
from scarce.data.convert import convert
from scarce.data.decode import decode
from scarce.data.intensity import stretch_range, to_8_bit
from scarce.data.store import open_dataset
from scarce.errors import UserError

pytestmark = pytest.mark.usefixtures("ray_cluster")


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def rejects(out: Path) -> dict[str, str]:
    rows = pq.read_table(out / "rejected.parquet").to_pylist()
    return {row["file"]: row["reason"] for row in rows}


def test_pixels_and_columns(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=10)
    manifest = convert(nih.scan(source), tmp_path / "out", size=24, shard_images=4)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.manifest == manifest
    assert [(shard.name, shard.rows) for shard in manifest.shards] == [
        ("shard-00000.parquet", 4),
        ("shard-00001.parquet", 4),
        ("shard-00002.parquet", 2),
    ]
    assert (manifest.images, manifest.patients, manifest.labelled, manifest.rejected) == (10, 4, 10, 0)
    assert manifest.labels == {"Mass": 10, "Nodule": 10}
    rows = dataset.metadata()
    pixels = dataset.pixels()
    for number, image_id in enumerate(rows["image_id"]):
        raw = decode((source / "images_001" / "images" / image_id).read_bytes())
        low, high = stretch_range(raw.pixels)
        assert (rows["stretch_low"][number], rows["stretch_high"][number]) == (low, high)
        np.testing.assert_array_equal(pixels[number], to_8_bit(raw.pixels, low, high, 24))
    assert set(rows["raw_bits"]) == {8}
    assert set(rows["hospital"]) == {"nih"}


def test_16_bit_images_in_an_archive_and_a_negative(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = {"a.png": "MONOCHROME2", "b.png": "MONOCHROME1"}
    rows = [
        {
            "ImageID": name,
            "ImageDir": 0,
            "PatientID": "p",
            "Projection": "PA",
            "Labels": "",
            "PhotometricInterpretation_DICOM": kind,
        }
        for name, kind in names.items()
    ]
    write_csv(source / "PADCHEST.csv", rows)
    with zipfile.ZipFile(source / "0.zip", "w") as archive:
        for name in names:
            archive.writestr(name, png(1, bits=16))
    manifest = convert(padchest.scan(source), tmp_path / "out", size=40)
    assert (manifest.images, manifest.labelled) == (2, 0)
    dataset = open_dataset(tmp_path / "out")
    image, negative = dataset.pixels().astype(int)
    assert np.abs(255 - image - negative).max() <= 1
    assert dataset.metadata()["raw_bits"].tolist() == [16, 16]
    low, high = (dataset.metadata()[f"stretch_{end}"] for end in ("low", "high"))
    assert (low[1], high[1]) == (high[0], low[0])


def test_damaged_files_of_the_real_sample(tmp_path: Path) -> None:
    source = writable_copy(shared_data("nih-sample"), tmp_path / "source")
    images = sorted((source / "images_001" / "images").iterdir())
    expected = {}
    for number, path in enumerate(images[:280:10]):
        if number < 20:
            path.write_bytes(path.read_bytes()[: 40 + 60 * number])
            reason = "truncated"
        elif number < 25:
            path.write_bytes(b"")
            reason = "empty"
        else:
            path.write_text("not an image\n")
            reason = "unreadable"
        expected[path.relative_to(source).as_posix()] = reason
    (images[0].parent / "readme.png").write_text("an image that no row knows\n")
    manifest = convert(nih.scan(source), tmp_path / "out", size=64)
    assert (manifest.images, manifest.rejected) == (972, 29)
    assert manifest.rejected_by_reason == {
        "empty": 5,
        "not in the label file": 1,
        "truncated": 20,
        "unreadable": 3,
    }
    assert rejects(tmp_path / "out") == expected | {"images_001/images/readme.png": "not in the label file"}


def test_a_rerun_does_nothing_and_changes_nothing(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=6)
    first = convert(nih.scan(source), tmp_path / "out", size=16, shard_images=4)
    before = content(tmp_path / "out")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    assert convert(nih.scan(source), tmp_path / "out", size=16, shard_images=4) == first
    assert content(tmp_path / "out") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")} == written


def test_wrong_shards_are_made_again_and_leftovers_go(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=20)
    out = tmp_path / "out"
    convert(nih.scan(source), out, size=16, shard_images=4)
    whole = content(out)

    shards = sorted(out.glob("shard-*"))
    shards[0].write_bytes(shards[0].read_bytes()[:-100])  # cut short
    shards[1].write_bytes(shards[2].read_bytes())  # whole, but another
    shards[3].write_bytes(b"")
    shards[4].unlink()
    (out / "shard-00005.parquet").write_bytes(shards[2].read_bytes())  # of a larger source
    (out / ".shard-00001.parquet.123.tmp").write_bytes(b"half")
    convert(nih.scan(source), out, size=16, shard_images=4)
    assert content(out) == whole


def test_a_changed_source_or_size_renews_what_it_touches(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=8)
    out = tmp_path / "out"
    before = convert(nih.scan(source), out, size=16, shard_images=4)
    images = sorted((source / "images_001" / "images").iterdir())
    images[6].write_bytes(png(99, side=50))
    after = convert(nih.scan(source), out, size=16, shard_images=4)
    assert after.shards[0] == before.shards[0]
    assert after.shards[1].digest != before.shards[1].digest
    for image in images[4:]:
        image.unlink()
    fewer = convert(nih.scan(source), out, size=16, shard_images=4)
    assert fewer.shards == before.shards[:1]
    assert content(out).keys() == {"dataset.json", "rejected.parquet", "shard-00000.parquet"}
    assert convert(nih.scan(source), out, size=20, shard_images=4).size == 20
    assert open_dataset(out).pixels().shape == (4, 20, 20)


DRIVER = """
import sys
from pathlib import Path
from scarce.data import nih
from scarce.data.convert import convert
convert(nih.scan(Path(sys.argv[1])), Path(sys.argv[2]), size=512, shard_images=6)
"""


@pytest.mark.long
def test_kill_and_rerun_end_byte_identical(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=360)
    (source / "images_001" / "images" / "00000050_001.png").write_bytes(b"")
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(source), str(out)])
    deadline = time.monotonic() + 120
    while not list(out.glob("shard-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    while (leftover := list(Path("/tmp").glob(f"scarce-ray-{driver.pid}-*"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not leftover
    finished = {path: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert 0 < len(finished) < 60
    with pytest.raises(UserError, match="no converted dataset"):
        open_dataset(out)

    manifest = convert(nih.scan(source), out, size=512, shard_images=6)
    assert manifest.images == 359
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    convert(nih.scan(source), undisturbed, size=512, shard_images=6)
    assert content(out) == content(undisturbed)


def test_nothing_usable_leaves_no_dataset(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=5)
    out = tmp_path / "out"
    convert(nih.scan(source), out, size=16, shard_images=4)
    for image in (source / "images_001" / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match=r'not one image of .* 5 rejected \(the first, images_001/.*: "empty"\)'):
        convert(nih.scan(source), out, size=16, shard_images=4)
    assert not out.exists()


def test_a_shard_of_nothing_but_rejects(tmp_path: Path) -> None:
    source = write_nih(tmp_path / "source", images=6)
    images = sorted((source / "images_001" / "images").iterdir())
    for image in images[:3]:
        image.write_bytes(b"")
    manifest = convert(nih.scan(source), tmp_path / "out", size=16, shard_images=3)
    assert [shard.name for shard in manifest.shards] == ["shard-00001.parquet"]
    assert (manifest.images, manifest.rejected_by_reason) == (3, {"empty": 3})
    assert len(open_dataset(tmp_path / "out").metadata()) == 3


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    listing = nih.scan(write_nih(tmp_path / "source", images=2))
    thesis = tmp_path / "out" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.touch()
    with pytest.raises(UserError, match=r"expected a new folder or a converted dataset, found thesis\.tex"):
        convert(listing, thesis.parent)
    with pytest.raises(UserError, match="expected a folder that can be made"):
        convert(listing, thesis)
    with pytest.raises(UserError, match="expected 16 to 2048 pixels, found 8"):
        convert(listing, tmp_path / "new", size=8)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.parent.name == "out") == ["thesis.tex"]


def test_the_real_sample_of_another_hospital(tmp_path: Path) -> None:
    manifest = convert(folder.scan(shared_data("spain-covid-sample")), tmp_path, size=64)
    assert (manifest.images, manifest.patients, manifest.labelled, manifest.rejected) == (54, 49, 44, 0)
    assert manifest.labels == {"COVID-19": 26, "No finding": 18}
