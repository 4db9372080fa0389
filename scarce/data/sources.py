"""What the readers of hospital folders share: finding image files, reading label files, and cleaning their fields."""

import codecs
import gzip
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scarce.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
REPLACED = "\ufffd"  # stands for what is no UTF-8
OLDEST_AGE = 120.0  # years; label files hold ages such as 414


class Found(NamedTuple):
    """An image on the disk; fields as in `listing.ListedImage`."""

    file: str
    member: str | None
    file_bytes: int

    @property
    def name(self) -> str:
        """File name without folders."""
        return (self.member or self.file).rpartition("/")[2]


def source_folder(source: Path) -> Path:
    """The resolved path of an existing folder; `UserError` if it is none."""
    source = source.resolve()
    if not source.is_dir():
        raise UserError(f"--source: expected a folder of X-rays, found none at {source}")
    return source


def files_in(source: Path, folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Iterator[Found]:
    """Image files directly in `folder` (below `source`), by name; hidden ones are not images."""
    with os.scandir(folder) as entries:
        images = [entry for entry in entries if entry.name.lower().endswith(tuple(suffixes)) and entry.is_file()]
    for entry in sorted(images, key=lambda entry: entry.name):
        if not entry.name.startswith("."):
            yield Found(Path(entry.path).relative_to(source).as_posix(), None, entry.stat().st_size)


def files_in_archive(source: Path, archive: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Iterator[Found]:
    """Image members of a zip archive, by name; hidden ones (such as macOS adds) are not images.

    Raises:
        UserError: the archive is damaged, as one whose download was cut short is.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = sorted(opened.infolist(), key=lambda member: member.filename)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error) as error:
        raise UserError(f"{archive} is not a whole zip archive ({error}): download it again or move it away") from error
    for member in members:
        name = member.filename.rpartition("/")[2]
        if name.lower().endswith(tuple(suffixes)) and not name.startswith("."):
            yield Found(archive.relative_to(source).as_posix(), member.filename, member.file_size)


def read_label_header(path: Path) -> dict[str, str]:
    """The column names of a CSV (plain or .gz), stripped, each with its name as it stands in the file."""
    return {str(name).strip(): str(name) for name in _read_csv(path, nrows=0).columns}


def read_label_file(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of the named columns of a CSV (plain or .gz) as stripped strings; a blank or missing value is "".

    Raises:
        UserError: it can't be read as CSV, or a required column is not there.
    """
    header = read_label_header(path)
    missing = [name for name in required if name not in header]
    if missing:
        raise UserError(
            f"{path}: expected the columns {', '.join(missing)}, found {', '.join(header) or 'none'}"
            f"{other_separator(header)}"
        )
    wanted = {header[name]: name for name in (*required, *optional) if name in header}
    frame = _read_csv(path, usecols=list(wanted)).rename(columns=wanted).fillna("")
    if frame.empty:
        raise UserError(f"{path}: expected a row for each image below the header, found none")
    columns = {str(name): frame[name].str.strip().tolist() for name in frame.columns}
    _refuse_other_encodings(path, columns)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def other_separator(header: Iterable[str]) -> str:
    """A hint where one column's name looks like several, separated by something else than commas."""
    found = [sign for sign in (";", "\t", "|") if len(list(header)) == 1 and sign in next(iter(header))]
    return f": write it with commas between the columns, not {found[0]!r}" if found else ""


def _refuse_other_encodings(path: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """`UserError` where a value that is used was no UTF-8: names of two patients or findings might have become one."""
    for name, values in columns.items():
        wrong = next((row for row, value in enumerate(values, 1) if REPLACED in value or "\0" in value), None)
        if wrong and ("\0" in values[wrong - 1] or not _is_utf8(path)):
            raise UserError(
                f"{path}: expected text in UTF-8, found other bytes in {name} of row {wrong}: save the table as UTF-8"
            )


def _is_utf8(path: Path) -> bool:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as text:
            while text.read(2**20):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    try:
        with open(path, "rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise ValueError("it is UTF-16: save it as UTF-8")
        return pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", encoding_errors="replace", **options
        )
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path} can't be read as a CSV file: {error}") from error


def label_file(source: Path, patterns: Sequence[str]) -> Path:
    """The first file in `source` that matches the first possible pattern; `UserError` if there is none."""
    for pattern in patterns:
        found = sorted(path for path in source.glob(pattern) if path.is_file() and not path.name.startswith("."))
        if found:
            return found[0]
    raise UserError(f"no label file in {source}: expected {' or '.join(patterns)}, found {listed(source)}")


def listed(folder: Path) -> str:
    """The first few names in a folder, for an error message."""
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"


def parse_age(text: str) -> float | None:
    """Years of "57", "057Y", "18M" (months) or "12D" (days); None if it is no age of a person."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([YMWD]?)", text.upper())
    if not match:
        return None
    years = float(match[1]) / {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365.25}[match[2]]
    return years if math.isfinite(years) and years <= OLDEST_AGE else None


def parse_sex(text: str) -> str | None:
    """ "F", "M" or None."""
    return {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M"}.get(text.upper())


def clean_labels(items: Iterable[str]) -> list[str] | None:
    """Labels without blanks around them, blank items and repetitions, in their order; None if none is left."""
    stripped = (" ".join(item.split()) for item in items)
    return list(dict.fromkeys(item for item in stripped if item)) or None
