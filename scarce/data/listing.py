"""What a hospital's folder holds: the images to convert, and those its reader had to leave out.

Every reader (`nih`, `padchest`, `folder`) turns its layout into a `Listing`; conversion knows nothing else of a source.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from scarce.data.schema import REJECTED_SCHEMA
from scarce.errors import UserError

LISTING_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("file", pa.string()),  # path below the source folder, of the image or of the zip archive that holds it
        ("member", pa.string()),  # name inside the archive; null for a plain file
        ("file_bytes", pa.int64()),  # (uncompressed) size, by which a rerun notices a changed image
        ("patient_id", pa.string()),
        ("view", pa.string()),
        ("sex", pa.string()),
        ("age", pa.float32()),
        ("source", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("inverted", pa.bool_()),  # stored with low values bright (MONOCHROME1), according to the label file
    ]
)


class ListedImage(NamedTuple):
    """One row of `LISTING_SCHEMA`; view, sex, age, source and labels as in `schema.image_schema`."""

    image_id: str
    file: str
    member: str | None
    file_bytes: int
    patient_id: str
    view: str | None = None
    sex: str | None = None
    age: float | None = None
    source: str | None = None
    labels: list[str] | None = None
    inverted: bool = False


class Rejected(NamedTuple):
    """An image that is left out. `reason` is one of a few short phrases, so that it can be counted."""

    image_id: str
    file: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The images of one hospital in `image_id` order, each id once."""

    hospital: str
    source: Path  # absolute
    images: pa.Table  # LISTING_SCHEMA
    rejected: pa.Table  # REJECTED_SCHEMA
    counts: dict[str, int]  # what the reader noticed besides, for the manifest


def make_listing(
    hospital: str,
    source: Path,
    outcomes: Iterable[ListedImage | Rejected],
    counts: dict[str, int] | None = None,
) -> Listing:
    """Sort what a reader found, and reject every further image of an id that was seen already.

    If these name different patients, all are rejected: one of them would be in the wrong split. So is what no file of
    a dataset can name, because its name is no text.

    Raises:
        UserError: no image is left.
    """
    left_out = []
    unique: dict[str, ListedImage] = {}
    contradicted = set()
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            left_out.append(Rejected(*map(as_text, outcome)))
        elif as_text(outcome.file) != outcome.file:
            left_out.append(Rejected(as_text(outcome.image_id), as_text(outcome.file), "file name is not UTF-8"))
        elif outcome.image_id in unique:
            left_out.append(Rejected(outcome.image_id, shown_path(outcome.file, outcome.member), "duplicate id"))
            if outcome.patient_id != unique[outcome.image_id].patient_id:
                contradicted.add(outcome.image_id)
        else:
            unique[outcome.image_id] = outcome
    for image_id in contradicted:
        first = unique.pop(image_id)
        left_out = [row for row in left_out if (row.image_id, row.reason) != (image_id, "duplicate id")]
        left_out.append(Rejected(image_id, shown_path(first.file, first.member), "several patients"))
    if not unique:
        raise UserError(f"no usable image in {source}: {len(left_out)} left out{_first_reason(left_out)}")
    rows = [unique[image_id]._asdict() for image_id in sorted(unique)]
    return Listing(
        hospital=hospital,
        source=source,
        images=pa.Table.from_pylist(rows, schema=LISTING_SCHEMA),
        rejected=rejected_table(left_out),
        counts=counts or {},
    )


def shown_path(file: str, member: str | None) -> str:
    """How an image's place is shown to a person: `54.zip/name.png` for a member of an archive."""
    return file if member is None else f"{file}/{member}"


def as_text(name: str) -> str:
    """A file's name with the bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def rejected_table(rejected: Iterable[Rejected | dict[str, Any]]) -> pa.Table:
    """Rejected images as a table of `REJECTED_SCHEMA`, in the order of their ids and files."""
    rows = [row._asdict() if isinstance(row, Rejected) else row for row in rejected]
    rows.sort(key=lambda row: (row["image_id"], row["file"], row["reason"]))
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)


def _first_reason(rejected: list[Rejected]) -> str:
    return f' (the first, {rejected[0].file}: "{rejected[0].reason}")' if rejected else ""
