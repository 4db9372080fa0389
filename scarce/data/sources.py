"""What the readers of hospital folders share: finding image files, reading label files, and cleaning their fields."""

import codecs
import csv
import gzip
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

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
        images = [entry for entry in entries if entry.name.lower().endswith(tuple(suffixes)) and _is_file(entry)]
    for entry in sorted(images, key=lambda entry: entry.name):
        if not entry.name.startswith("."):
            yield Found(Path(entry.path).relative_to(source).as_posix(), None, entry.stat().st_size)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


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


def read_label_header(path: Path) -> list[str]:
    """The column names of a CSV (plain or .gz), stripped; none if it is empty."""
    return [name.strip() for _, row in _read_csv(path, most=1) for name in row]


def read_label_file(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows of the named columns of a CSV (plain or .gz) as stripped strings; a blank or missing value is "".

    Raises:
        UserError: it can't be read as CSV, a required column is not there, there is no row, or a row has more values
            than columns or others than text in UTF-8: it would be read, but not as it was meant.
    """
    (_, first), *rows = _read_csv(path) or [(0, [])]
    header = [name.strip() for name in first]
    missing = [name for name in required if name not in header]
    if missing:
        raise UserError(
            f"{path}: expected the columns {', '.join(missing)}, found {', '.join(header) or 'none'}"
            f"{other_separator(header)}"
        )
    if not rows:
        raise UserError(f"{path}: expected a row for each image below the header, found none")
    places = {name: header.index(name) for name in (*required, *optional) if name in header}
    table = []
    for line, row in rows:
        if any(value.strip() for value in row[len(header) :]):
            raise UserError(
                f"{path}: expected {len(header)} values in line {line}, found {len(row)}: put values with commas "
                "between quotation marks"
            )
        table.append({name: row[place].strip() if place < len(row) else "" for name, place in places.items()})
        for name, value in table[-1].items():
            if "\0" in value or (REPLACED in value and not _is_utf8(path)):  # two names might have become one
                raise UserError(
                    f"{path}: expected text in UTF-8, found other bytes as {name} in line {line}: save the table as "
                    "UTF-8"
                )
    return table


def other_separator(header: Sequence[str]) -> str:
    """A hint where one column's name looks like several, separated by something else than commas."""
    found = [sign for sign in (";", "\t", "|") if len(header) == 1 and sign in header[0]]
    return f": write it with commas between the columns, not {found[0]!r}" if found else ""


def _read_csv(path: Path, most: int | None = None) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, or the first ones, each with the number of its last line."""
    try:
        with _opened(path) as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise ValueError("it is UTF-16: save it as UTF-8")
            file.seek(0)
            reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline=""), strict=True)
            return list(islice(((reader.line_num, row) for row in reader if row), most))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise UserError(f"{path} can't be read as a CSV file: {error}") from error


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def _is_utf8(path: Path) -> bool:
    try:
        with _opened(path) as file:
            for _ in io.TextIOWrapper(file, "utf-8"):
                pass
    except UnicodeDecodeError:
        return False
    return True


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
