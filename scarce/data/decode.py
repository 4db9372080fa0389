"""Image files to raw gray levels, at the bit depth they were stored with."""

import io
import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from scarce.data.jpeg import jpeg_quality

SMALLEST_SIDE = 32  # pixels; less shows no chest
# Wider is no radiograph either. Pillow counts pixels (179 million at most) before it takes memory for them.
LARGEST_SIDE = 20_000
LARGEST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # where Pillow refuses; asked of DICOM files too
LARGEST_FILE = 2**29  # bytes; a radiograph of 16 bits takes 50 MB
# A deflated archive member of this size that is so much smaller in the archive holds next to nothing but repetitions.
BOMB_BYTES, BOMB_RATIO = 2**24, 200
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the transfer syntax of DICOM files that unpack to any size


class DecodeError(Exception):
    """The image can't be used. The message is one short phrase, the same for all images of a kind."""


@dataclass(frozen=True)
class RawImage:
    """Gray levels as stored: [H, W], an integer dtype (uint8, uint16, or signed for some DICOM files)."""

    pixels: np.ndarray
    bits: int  # bits a pixel that the file says it uses: 1, 8, 12, 16, ...
    inverted: bool = False  # low levels are bright (DICOM's MONOCHROME1)
    jpeg_quality: int | None = None  # 1 to 100 of a JPEG file (`jpeg.jpeg_quality`), None for another


def read_bytes(path: Path, member: str | None = None) -> bytes:
    """The content of an image file, or of a member of a zip archive, which is never unpacked to the disk.

    Raises:
        DecodeError: "missing file", "too large", "truncated" for a damaged member, or "unreadable", as an encrypted one
            is.
    """
    try:
        if member is None:
            if path.stat().st_size > LARGEST_FILE:
                raise DecodeError("too large")
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)  # more than the size it declares is never unpacked
            bomb = info.file_size > max(BOMB_BYTES, BOMB_RATIO * info.compress_size)
            if bomb or info.file_size > LARGEST_FILE:
                raise DecodeError("too large")
            return archive.read(info)
    except (FileNotFoundError, KeyError) as error:
        raise DecodeError("missing file") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error) as error:
        raise DecodeError("truncated") from error
    except (OSError, RuntimeError, ValueError) as error:  # encrypted, or packed by a method that Python does not know
        raise DecodeError("unreadable") from error


def decode(data: bytes) -> RawImage:
    """Decode a PNG (1 to 16 bit), JPEG or DICOM file. Colour becomes luminance (ITU-R 601-2), transparency is dropped.

    Raises:
        DecodeError: "empty", "truncated", "unreadable", "too small", "too large", "not a single image", or
            "needs pydicom".
    """
    if not data:
        raise DecodeError("empty")
    try:
        raw = _decode_dicom(data) if data[128:132] == b"DICM" else _decode_picture(data)
    except DecodeError:
        raise
    except Image.DecompressionBombError as error:
        raise DecodeError("too large") from error
    except Exception as error:  # decoders answer damage with exceptions of every kind; one file must not end a run
        raise DecodeError("truncated" if _is_cut(data, error) else "unreadable") from error
    if min(raw.pixels.shape) < SMALLEST_SIDE:
        raise DecodeError("too small")
    return raw


def _is_cut(data: bytes, error: Exception) -> bool:
    """Whether a file that could not be decoded lacks its end: the decoder says so, or a JPEG has no end mark."""
    return "truncated" in str(error).lower() or (data.startswith(b"\xff\xd8\xff") and b"\xff\xd9" not in data[-64:])


def _decode_picture(data: bytes) -> RawImage:
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except UnidentifiedImageError:
        # Pillow does not know a file cut within its header; its first bytes still tell what it was.
        cut = any(data.startswith(magic[: len(data)]) for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
        raise DecodeError("truncated" if cut else "unreadable") from None
    if max(image.size) > LARGEST_SIDE:
        raise DecodeError("too large")
    if image.format == "PNG" and b"IEND" not in data[-64:]:
        raise DecodeError("truncated")  # Pillow is content once it has all rows
    quality = _quality(image) if isinstance(image, JpegImageFile) else None
    if image.mode.startswith("I"):
        return RawImage(np.asarray(image).astype(np.uint16), bits=16)
    bits = 1 if image.mode == "1" else 8
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # drops transparency and resolves palettes
    return RawImage(np.asarray(image.convert("L")), bits, jpeg_quality=quality)


def _quality(image: JpegImageFile) -> int | None:
    """The quality of a JPEG, from the table of its first component; None if damage took it, on which Pillow decides."""
    table = image.quantization.get(image.layer[0][3]) if image.layer else None
    return None if table is None else jpeg_quality(table)


def _decode_dicom(data: bytes) -> RawImage:
    try:
        import pydicom
    except ImportError as error:
        raise DecodeError("needs pydicom") from error
    if DEFLATED in data:  # pydicom would unpack it whole, before anything is known of its size
        raise DecodeError("unreadable")
    dataset: Any = pydicom.dcmread(io.BytesIO(data))
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise DecodeError("not a single image")
    count = dataset.Rows * dataset.Columns
    if max(dataset.Rows, dataset.Columns) > LARGEST_SIDE or count > LARGEST_PIXELS:
        raise DecodeError("too large")
    if dataset.SamplesPerPixel not in (1, 3) or dataset.BitsAllocated not in (1, 8, 16, 32):
        raise DecodeError("unreadable")
    expected = count * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and len(dataset.PixelData) < expected:
        raise DecodeError("truncated")
    pixels = dataset.pixel_array
    if dataset.SamplesPerPixel == 3:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    bits = int(dataset.BitsStored)
    if pixels.dtype.kind not in "iu" or pixels.ndim != 2 or not 1 <= bits <= 32:
        raise DecodeError("unreadable")
    return RawImage(pixels, bits, dataset.PhotometricInterpretation == "MONOCHROME1")
