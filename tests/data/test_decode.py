import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scarce.data.decode import DecodeError, decode, read_bytes
from scarce.data.jpeg import jpeg_quality

LEVELS = np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def dicom(pixels: np.ndarray, bits: int, photometric: str = "MONOCHROME2", frames: int = 1) -> bytes:
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra scarce[dicom]")
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = pixels.astype("<u2").tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def outcome(data: bytes) -> str:
    try:
        decode(data)
    except DecodeError as error:
        return str(error)
    return "image"


def test_8_bit_png() -> None:
    raw = decode(encoded(Image.fromarray(LEVELS)))
    assert (raw.bits, raw.inverted, raw.pixels.dtype) == (8, False, np.uint8)
    np.testing.assert_array_equal(raw.pixels, LEVELS)


def test_16_bit_png() -> None:
    levels = LEVELS.astype(np.uint16) * 255 + 3
    raw = decode(encoded(Image.fromarray(levels)))
    assert (raw.bits, raw.pixels.dtype) == (16, np.uint16)
    np.testing.assert_array_equal(raw.pixels, levels)


def test_1_bit_png() -> None:
    raw = decode(encoded(Image.fromarray(LEVELS > 100)))
    assert raw.bits == 1
    np.testing.assert_array_equal(raw.pixels > 0, LEVELS > 100)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_gray_levels_survive_colour_palette_and_transparency(mode: str) -> None:
    image = Image.fromarray(LEVELS).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(LEVELS[::-1].copy()))
    raw = decode(encoded(image))
    assert raw.bits == 8
    np.testing.assert_array_equal(raw.pixels, LEVELS)


def test_colour_becomes_luminance() -> None:
    green = Image.new("RGB", (40, 40), (0, 255, 0))
    np.testing.assert_array_equal(decode(encoded(green)).pixels, np.full((40, 40), 150))  # 0.587 × 255


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode: str) -> None:
    smooth = Image.fromarray(np.tile(np.arange(40, 200, 4, dtype=np.uint8), (40, 1)))
    raw = decode(encoded(smooth.convert(mode), "JPEG"))
    assert raw.bits == 8
    assert np.abs(raw.pixels.astype(int) - np.asarray(smooth)).max() < 16


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_the_jpeg_quality_is_what_the_file_was_saved_with(mode: str, progressive: bool) -> None:
    image = Image.fromarray(LEVELS).convert(mode)
    qualities = range(1, 101)
    files = [encoded(image, "JPEG", quality=quality, progressive=progressive) for quality in qualities]
    assert [decode(file).jpeg_quality for file in files] == list(qualities)


def saved_table(quality: int) -> list[int]:
    with Image.open(io.BytesIO(encoded(Image.fromarray(LEVELS), "JPEG", quality=quality))) as image:
        return image.quantization[0]  # type: ignore[attr-defined, no-any-return]


LIBJPEG_TABLES = np.array([saved_table(quality) for quality in range(1, 101)])


@given(st.lists(st.integers(1, 255), min_size=64, max_size=64))
def test_the_quality_of_another_encoders_table_is_the_nearest_of_libjpegs(table: list[int]) -> None:
    distance = np.abs(LIBJPEG_TABLES - np.array(table)).mean(axis=1)
    assert distance[jpeg_quality(table) - 1] == distance.min()


def test_only_a_jpeg_file_has_a_quality() -> None:
    custom = encoded(Image.fromarray(LEVELS), "JPEG", qtables=[saved_table(30)])
    assert decode(custom).jpeg_quality == 30
    assert jpeg_quality([entry * 8 for entry in saved_table(50)]) == 6  # 12-bit entries: libjpeg's cut at 255
    assert decode(encoded(Image.fromarray(LEVELS))).jpeg_quality is None


@pytest.mark.parametrize(("photometric", "inverted"), [("MONOCHROME1", True), ("MONOCHROME2", False)])
def test_dicom(photometric: str, inverted: bool) -> None:
    levels = LEVELS.astype(np.uint16) * 16
    raw = decode(dicom(levels, 12, photometric))
    assert (raw.bits, raw.inverted, raw.jpeg_quality) == (12, inverted, None)
    np.testing.assert_array_equal(raw.pixels, levels)


def test_a_dicom_film_is_not_an_image() -> None:
    with pytest.raises(DecodeError, match=r"^not a single image$"):
        decode(dicom(np.stack([LEVELS, LEVELS]), 12, frames=2))


WHOLE = {
    "png 8": encoded(Image.fromarray(LEVELS)),
    "png 16": encoded(Image.fromarray(LEVELS.astype(np.uint16) * 200)),
    "jpeg": encoded(Image.fromarray(LEVELS), "JPEG"),
}


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_a_file_cut_anywhere_is_truncated(kind: str, data: st.DataObject) -> None:
    whole = WHOLE[kind]
    # A JPEG without its two-byte end mark has all its pixels.
    length = data.draw(st.integers(1, len(whole) - (3 if kind == "jpeg" else 8)))
    with pytest.raises(DecodeError, match=r"^truncated$"):
        decode(whole[:length])


def test_a_cut_dicom_is_truncated() -> None:
    whole = dicom(LEVELS, 12)
    for length in (len(whole) - 1, len(whole) // 2):
        with pytest.raises(DecodeError, match=r"^truncated$"):
            decode(whole[:length])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_image_or_a_short_reason(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^(empty|truncated|unreadable)$"):
        decode(data)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_a_damaged_file_is_an_image_or_a_short_reason(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[kind])
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    assert outcome(bytes(damaged)) in {"image", "truncated", "unreadable", "too small", "too large"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image\n", "unreadable"),
        (encoded(Image.new("L", (1, 1))), "too small"),
        (encoded(Image.new("L", (400, 5))), "too small"),
        (encoded(Image.new("L", (30_000, 2))), "too large"),
        (encoded(Image.new("1", (19_000, 19_000))), "too large"),
        (encoded(Image.fromarray(LEVELS), "GIF"), "unreadable"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=f"^{reason}$"):
        decode(data)


def test_bytes_from_a_file_and_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(WHOLE["png 8"])
    with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
        archive.writestr("../../outside.png", WHOLE["png 8"])
    assert read_bytes(tmp_path / "a.png") == WHOLE["png 8"]
    assert read_bytes(tmp_path / "0.zip", "../../outside.png") == WHOLE["png 8"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.zip", "a.png"]
    for path, member in ((tmp_path / "b.png", None), (tmp_path / "0.zip", "b.png")):
        with pytest.raises(DecodeError, match=r"^missing file$"):
            read_bytes(path, member)


def test_a_damaged_archive_member_is_truncated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "0.zip", "w") as archive:
        archive.writestr("a.png", WHOLE["png 8"])
    content = bytearray((tmp_path / "0.zip").read_bytes())
    content[200] ^= 1
    (tmp_path / "0.zip").write_bytes(content)
    with pytest.raises(DecodeError, match=r"^truncated$"):
        read_bytes(tmp_path / "0.zip", "a.png")
