"""Small files that unpack to gigabytes, decoded: prints what became of each, and by how many MB this process grew.

A script of its own, as only a fresh process's peak says what its last steps took. Nothing here is ever unpacked whole.
"""

import io
import resource
import struct
import sys
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset

from scarce.data.decode import DecodeError, decode, read_bytes

MEGABYTE = bytes(2**20)


@cache
def zeros(megabytes: int, wbits: int = zlib.MAX_WBITS, before: bytes = b"") -> bytes:
    """So many compressed zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(before) + b"".join(packer.compress(MEGABYTE) for _ in range(megabytes)) + packer.flush()


def png(width: int, height: int, bits: int = 8, colour: int = 0, more: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG file that says it has these pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *([more] if more else []), (b"IDAT", zeros(256)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def jpeg() -> bytes:
    """A JPEG file that says it has 65,000 × 65,000 pixels."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(file, "JPEG")
    content = bytearray(file.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(content)


def dicom(side: int, syntax: str) -> bytes:
    """A DICOM file that says it has so many pixels a side, and holds next to none."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = side, side, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def deflated_dicom() -> bytes:
    """A DICOM file of the syntax that packs all elements together: a quarter of a gigabyte of zeros."""
    whole = dicom(40, pydicom.uid.DeflatedExplicitVRLittleEndian)
    end_of_meta = 144 + struct.unpack("<I", whole[140:144])[0]
    element = struct.pack("<HH2sHI", 0x0009, 0x1000, b"OB", 0, 2**28)
    return whole[:end_of_meta] + zeros(256, -zlib.MAX_WBITS, element)


def peak() -> int:
    """The most that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(folder: Path) -> None:
    """Make the bombs, then decode them."""
    packed = zeros(256)
    bombs = {
        "png of 2**31 pixels a side": png(2**31 - 1, 2**31 - 1),
        "png of 19,999 pixels a side": png(19_999, 19_999),
        "png of as many in black and white": png(19_999, 19_999, 1),
        "png of as many in 48 bits": png(19_999, 19_999, 16, 2),
        "png with a text": png(19_000, 19_000, more=(b"zTXt", b"k\0\0" + packed)),
        "png with a profile": png(19_000, 19_000, more=(b"iCCP", b"k\0\0" + packed)),
        "jpeg of 65,000 pixels a side": jpeg(),
        "dicom of 19,000 pixels a side": dicom(19_000, pydicom.uid.RLELossless),
        "deflated dicom": deflated_dicom(),
    }
    with zipfile.ZipFile(folder / "0.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("1.png", "w") as member:
        for _ in range(256):
            member.write(MEGABYTE)
    before = peak()
    for name, content in bombs.items():
        print(f"{name}: {outcome(lambda content=content: decode(content))}")
    print(f"archive: {outcome(lambda: read_bytes(folder / '0.zip', '1.png'))}")
    print(peak() - before)


def outcome(read) -> str:  # type: ignore[no-untyped-def]
    """Why it was refused, or that it was not."""
    try:
        read()
    except DecodeError as error:
        return str(error)
    return "unpacked"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
