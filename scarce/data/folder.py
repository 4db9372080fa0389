"""Any folder of images with a CSV that names them: for a hospital nobody foresaw."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from scarce.data.columns import GUESSES, Columns
from scarce.data.listing import ListedImage, Listing, Rejected, make_listing
from scarce.data.sources import (
    IMAGE_SUFFIXES,
    Found,
    clean_labels,
    files_in,
    listed,
    other_separator,
    parse_age,
    parse_sex,
    read_label_file,
    read_label_header,
    source_folder,
)
from scarce.errors import UserError


def scan(source: Path, csv: Path | None = None, hospital: str = "", columns: Columns | None = None) -> Listing:
    """List the images that the CSV names.

    Args:
        source: folder with the images, at any depth.
        csv: the CSV; by default the only one in `source`.
        hospital: name of the hospital; by default the folder's.
        columns: what the CSV's columns are called.

    Raises:
        UserError: no or several CSVs, no column for image or patient, or no image at all.
    """
    source = source_folder(source)
    csv = csv.resolve() if csv else _only_csv(source)
    names = _resolve_columns(csv, columns or Columns())
    found = _find_images(source)
    lookup = _Lookup(source, csv.parent, found)

    outcomes: list[ListedImage | Rejected] = []
    used = set()
    for row in read_label_file(csv, list(names.values())):
        matches = lookup.find(row[names["image"]])
        used |= {image.file for image in matches}
        outcomes.append(_list_image({field: row[name] for field, name in names.items()}, matches))
    outcomes += [Rejected(image.file, image.file, "not in the label file") for image in found if image.file not in used]
    if not find_spec("pydicom") and any(image.file.lower().endswith((".dcm", ".dicom")) for image in found):
        raise UserError(f"{source} holds DICOM images, which need pydicom: pip install 'scarce[dicom]'")
    return make_listing(hospital or source.name, source, outcomes)


def normalise_view(text: str) -> str | None:
    """ "PA", "AP", "lateral", or None where the text says none of them."""
    words = re.split(r"[^A-Z]+", text.upper())
    if {"L", "LL", "RL", "LAT", "LLAT", "RLAT", "LATERAL"} & set(words):
        return "lateral"
    if {"PA", "POSTEROANTERIOR"} & set(words):
        return "PA"
    return "AP" if {"AP", "ANTEROPOSTERIOR"} & set(words) else None


class _Lookup:
    """Finds images by what a CSV calls them; only files below the source folder can be found."""

    def __init__(self, source: Path, csv_folder: Path, found: Sequence[Found]) -> None:
        self.by_path: dict[str, list[Found]] = {}
        self.by_name: dict[str, list[Found]] = {}
        for image in found:
            paths = {image.file}
            if (source / image.file).is_relative_to(csv_folder):
                paths.add((source / image.file).relative_to(csv_folder).as_posix())
            for keys, index in ((paths, self.by_path), ({image.name}, self.by_name)):
                for key in keys | {key.rpartition(".")[0] for key in keys}:
                    index.setdefault(key, []).append(image)

    def find(self, name: str) -> list[Found]:
        name = name.replace("\\", "/").removeprefix("./")
        return self.by_path.get(name) or self.by_name.get(name.rpartition("/")[2]) or []


def _only_csv(source: Path) -> Path:
    found = sorted(path for pattern in ("*.csv", "*.csv.gz") for path in source.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"expected one CSV file in {source}, found {', '.join(path.name for path in found) or listed(source)}: "
            "name it with --csv"
        )
    return found[0]


def _resolve_columns(csv: Path, columns: Columns) -> dict[str, str]:
    """For each field that the CSV has, the name of its column."""
    header = {name.lower(): name for name in read_label_header(csv)}
    resolved = {}
    for field, guesses in GUESSES.items():
        given = getattr(columns, field)
        name = given or next((header[guess] for guess in guesses if guess in header), "")
        if name:
            resolved[field] = name
        elif field in ("image", "patient"):
            raise UserError(
                f"{csv}: expected a column {' or '.join(guesses)}, found {', '.join(header.values()) or 'none'}"
                + (other_separator(list(header)) or f": name it with --columns.{field}")
            )
    return resolved


def _find_images(source: Path) -> list[Found]:
    folders = [source, *sorted(path for path in source.rglob("*") if path.is_dir())]
    found = [image for folder in folders for image in files_in(source, folder)]
    if not found:
        raise UserError(f"no image in {source}: expected {', '.join(IMAGE_SUFFIXES)} files, found {listed(source)}")
    return found


def _list_image(row: Mapping[str, str], matches: Sequence[Found]) -> ListedImage | Rejected:
    name = row["image"]
    view = normalise_view(row.get("view", ""))
    reason = None
    if not matches:
        reason = "missing file"
    elif len(matches) > 1:
        reason = "ambiguous file name"
    elif not row["patient"]:
        reason = "no patient id"
    elif view == "lateral":
        reason = "not frontal"
    if reason:
        return Rejected(name, matches[0].file if matches else name, reason)
    return ListedImage(
        image_id=matches[0].file,
        **matches[0]._asdict(),
        patient_id=row["patient"],
        view=view,
        sex=parse_sex(row.get("sex", "")),
        age=parse_age(row.get("age", "")),
        source=row.get("source") or None,
        labels=clean_labels(re.split(r"[|;]", row.get("labels", ""))),
    )
