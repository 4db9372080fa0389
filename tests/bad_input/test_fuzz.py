"""Whatever the readers are given, they answer with a result, a `UserError`, or a `DecodeError` to reject a file by."""

import io
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hospital_folders import nih_row, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import tree

from scarce.audit_config import AuditConfig
from scarce.audit_run import audit_run
from scarce.backbones import load_backbone
from scarce.data import folder, nih, padchest
from scarce.data.decode import LARGEST_PIXELS, DecodeError, RawImage, decode, read_bytes
from scarce.data.intensity import stretch_range, to_8_bit
from scarce.data.listing import Listing
from scarce.data.padchest import parse_labels
from scarce.data.schema import Manifest
from scarce.data.sources import parse_age
from scarce.data.store import open_dataset
from scarce.errors import UserError, one_line

REASONS = {
    "empty",
    "truncated",
    "unreadable",
    "too small",
    "too large",
    "not a single image",
    "constant image",
    "missing file",
}
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(kind: str, mode: str = "L") -> bytes:
    levels = np.random.default_rng(0).integers(0, 256, (40, 36), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).convert(mode).save(file, kind)
    return file.getvalue()


@cache
def dicom() -> bytes:
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra scarce[dicom]")
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 40, 36, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = np.random.default_rng(0).integers(0, 4096, (40, 36)).astype("<u2").tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


WHOLE: dict[str, Callable[[], bytes]] = {
    "png": lambda: encoded("PNG"),
    "colour png": lambda: encoded("PNG", "RGBA"),
    "png of 16 bits": lambda: png(0, bits=16),
    "jpeg": lambda: encoded("JPEG"),
    "colour jpeg": lambda: encoded("JPEG", "CMYK"),
    "dicom": dicom,
}


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, header: int = 400) -> bytes:
    """A file with a few spans overwritten, removed, repeated or inserted; more often near its start."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        last = draw(st.sampled_from([min(header, len(data)), len(data)]))
        start = draw(st.integers(0, max(0, last)))
        length = draw(st.integers(0, 8))
        change = draw(st.sampled_from(["overwrite", "remove", "repeat", "insert", "cut"]))
        if change == "overwrite":
            new = draw(st.binary(min_size=length, max_size=length))
            data[start : start + length] = new
        elif change == "remove":
            del data[start : start + length]
        elif change == "repeat":
            data[start:start] = data[start : start + 50]
        elif change == "insert":
            data[start:start] = draw(st.binary(max_size=8))
        else:
            del data[start:]
    return bytes(data)


def known(error: Exception) -> None:
    """Check that this is how a reader may refuse."""
    if isinstance(error, DecodeError):
        assert str(error) in REASONS
    else:
        assert one_line(error).isprintable()


def used(data: bytes) -> RawImage | None:
    """What a conversion makes of a file; None where it is rejected for one of the known reasons."""
    try:
        raw = decode(data)
        low, high = stretch_range(raw.pixels, raw.inverted)
        pixels = to_8_bit(raw.pixels, low, high, 32)
    except DecodeError as error:
        known(error)
        return None
    assert (pixels.shape, pixels.dtype) == ((32, 32), np.uint8)
    assert raw.pixels.ndim == 2
    assert raw.pixels.size <= LARGEST_PIXELS
    assert 1 <= raw.bits <= 32  # a shard holds it in a byte
    assert raw.jpeg_quality is None or 1 <= raw.jpeg_quality <= 100
    return raw


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_a_spoilt_image_is_an_image_or_rejected(kind: str) -> None:
    whole = WHOLE[kind]()
    assert used(whole) is not None

    @settings(quick, max_examples=120)
    @given(mutated(whole))
    def spoilt(data: bytes) -> None:
        used(data)

    spoilt()


@settings(quick, max_examples=120)
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"]
        ),
        st.sampled_from([0, 1, 2, 3, 4, 8, 12, 16, 31, 32, 36, 40, 64, 255, 300, 20_001, 65_535]),
        max_size=4,
    ),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "PALETTE COLOR", "NONSENSE", ""]),
    frames=st.sampled_from([None, "0", "1", "2", "-1", "1e9"]),
    missing=st.sampled_from([None, "Rows", "PixelData", "BitsStored", "PhotometricInterpretation", "SamplesPerPixel"]),
    compressed=st.booleans(),
)
def test_a_dicom_file_whose_header_lies(
    fields: dict[str, int], photometric: str, frames: str | None, missing: str | None, compressed: bool
) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(io.BytesIO(dicom()))
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PhotometricInterpretation = photometric
    if frames is not None:
        dataset.add_new("NumberOfFrames", "LO", frames)
    if missing:
        del dataset[missing]
    if compressed and "PixelData" in dataset:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        dataset.PixelData = pydicom.encaps.encapsulate([encoded("JPEG")])
        dataset["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    dataset.save_as(file)
    used(file.getvalue())


cells = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["1.png", "2.png", "../1.png", "/etc/passwd", "1", "-1", "nan", "['a', 'b']", "[" * 99, "PA", "\0", ""]
    ),
)


@st.composite
def tables(draw: st.DrawFn, columns: list[str]) -> bytes:
    """Bytes that are more or less a label file."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200))
    header = draw(st.permutations(columns)) if draw(st.booleans()) else columns
    rows = draw(st.lists(st.lists(cells, min_size=len(header) - 1, max_size=len(header) + 1), max_size=4))
    sign = draw(st.sampled_from([",", ",", ",", ";", "\t"]))
    quoted = draw(st.sampled_from([str, lambda cell: '"' + cell.replace('"', '""') + '"', lambda cell: '"' + cell]))
    text = "\n".join(sign.join(map(quoted, row)) for row in [list(header), *rows])
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(encoding, "replace")


def listing_or_line(scan: Callable[[], Listing], source: Path) -> list[dict[str, Any]]:
    """The rows of a whole listing of files below the source, none after a line; nothing is written either way."""
    before, rows = tree(source), []
    try:
        listing = scan()
    except UserError as error:
        known(error)
    else:
        rows = listing.images.to_pylist()
        assert [row["image_id"] for row in rows] == sorted({row["image_id"] for row in rows})
        assert all((source / row["file"]).resolve().is_relative_to(source.resolve()) for row in rows)
        assert all(row["patient_id"] for row in rows)
        assert all(row["age"] is None or 0 <= row["age"] <= 120 for row in rows)
        assert listing.rejected["reason"].null_count == 0
    assert tree(source) == before
    return rows


@pytest.mark.parametrize("kind", ["nih", "padchest", "folder"])
def test_any_label_file(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    columns, path, place = {
        "nih": (list(nih_row("1_0.png")), "Data_Entry_2017.csv", "images"),
        "padchest": (["ImageID", "ImageDir", "PatientID", "Projection", "Labels", "PatientBirth"], "PADCHEST.csv", "3"),
        "folder": (["image", "patient", "labels", "age", "view", "sex"], "t.csv", "x"),
    }[kind]
    (source / place).mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (source / place / name).write_bytes(png(0))
    scan = {"nih": nih.scan, "padchest": padchest.scan, "folder": folder.scan}[kind]

    @settings(quick, max_examples=100)
    @given(tables(columns))
    def any_table(content: bytes) -> None:
        (source / path).write_bytes(content)
        listing_or_line(lambda: scan(source), source)

    any_table()


@quick
@given(st.text())
def test_any_age_and_any_list_of_labels(text: str) -> None:
    age = parse_age(text)
    assert age is None or 0 <= age <= 120
    labels = parse_labels(text)
    assert labels is None or all(isinstance(label, str) and label for label in labels)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A zip archive of odd names, possibly damaged."""
    names = draw(
        st.lists(st.one_of(st.just("1.png"), st.text(min_size=1, max_size=9).map(lambda n: n + ".png")), max_size=3)
    )
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as opened:
        warnings.simplefilter("ignore")  # zipfile's, of a name that is there twice
        for name in names:
            how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
            opened.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), png(0), how)
    whole = file.getvalue()
    return whole if draw(st.booleans()) else draw(mutated(whole, header=60))


@settings(quick, max_examples=120)
@given(content=archives())
def test_any_archive(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "PADCHEST.csv").write_text("ImageID,PatientID,Projection,Labels\n1.png,p,PA,['x']\n")
    (source / "3.zip").write_bytes(content)
    beside = sorted(path.name for path in tmp_path.iterdir())
    for row in listing_or_line(lambda: padchest.scan(source), source):
        try:
            used(read_bytes(source / row["file"], row["member"]))
        except DecodeError as error:
            known(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == beside


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def changed_json(draw: st.DrawFn, value: Any, depth: int = 3) -> Any:
    """A JSON value with something in it replaced, removed or added."""
    if depth and isinstance(value, dict | list) and value and draw(st.booleans()):
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = draw(st.sampled_from(keys))
        copy = dict(value) if isinstance(value, dict) else list(value)
        if draw(st.integers(0, 3)) == 0:
            del copy[key]
        else:
            copy[key] = draw(changed_json(value[key], depth - 1))
        return copy
    if isinstance(value, dict) and draw(st.booleans()):
        return value | {draw(st.text(max_size=5)): draw(json_values)}
    return draw(json_values)


@settings(quick, max_examples=120)
@given(data=st.data())
def test_any_manifest(data: st.DataObject, good: Path, tmp_path: Path) -> None:
    whole = (good / "b" / "dataset.json").read_bytes()
    out = tmp_path / "b"
    if not out.exists():
        shutil.copytree(good / "b", out)
    text = st.one_of(
        st.binary(max_size=60), mutated(whole), changed_json(json.loads(whole)).map(lambda v: json.dumps(v).encode())
    )
    (out / "dataset.json").write_bytes(data.draw(text))
    try:
        dataset = open_dataset(out)
    except UserError as error:
        known(error)
    else:
        assert isinstance(dataset.manifest, Manifest)
        assert len(dataset.metadata()) == dataset.manifest.images
        assert dataset.pixels(np.arange(2)).shape == (2, 32, 32)


@settings(quick, max_examples=60)
@given(data=st.data(), name=st.sampled_from(["config.json", "best/card.json", "best/backbone.safetensors"]))
def test_any_run(data: st.DataObject, name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "world" / "run"
    if not run.exists():
        shutil.copytree(good, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    monkeypatch.setattr("scarce.audit_run.write_audits", lambda *_: {})
    whole = (good / "run" / name).read_bytes()
    text = mutated(whole)
    if name.endswith(".json"):
        text = st.one_of(text, changed_json(json.loads(whole)).map(lambda value: json.dumps(value).encode()))
    before = tree(run)
    content = data.draw(text)
    (run / name).write_bytes(content)
    try:
        audit_run(run, AuditConfig())
        load_backbone(run / "best")
    except UserError as error:
        known(error)
    finally:
        (run / name).write_bytes(whole)
    assert tree(run) == before


def test_no_bomb_takes_memory(tmp_path: Path) -> None:
    """Sizes are asked for before anything is unpacked."""
    pytest.importorskip("pydicom")
    script = Path(__file__).with_name("bombs.py")
    ended = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    *outcomes, grown = ended.stdout.splitlines()
    assert len(outcomes) == 10
    refused = ("too large", "unreadable", "truncated")
    assert all(line.split(": ")[1] in refused for line in outcomes), outcomes
    assert int(grown) < 100, ended.stdout  # MB
