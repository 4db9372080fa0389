"""PadChest (Bustos et al., 2020): its label CSV, with the images loose, in numbered folders, or still in the zips.

PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv[.gz]
0.zip ... 54.zip, or 0/ ... 54/, or *.png
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from scarce.data.listing import ListedImage, Listing, Rejected, make_listing, shown_path
from scarce.data.sources import (
    Found,
    clean_labels,
    files_in,
    files_in_archive,
    label_file,
    listed,
    parse_age,
    parse_sex,
    read_label_file,
    source_folder,
)
from scarce.errors import UserError

COLUMNS = ("ImageID", "PatientID", "Projection", "Labels")
OPTIONAL_COLUMNS = (
    "ImageDir",
    "StudyDate_DICOM",
    "PatientBirth",
    "PatientSex_DICOM",
    "PhotometricInterpretation_DICOM",
)
VIEW_OF_PROJECTION = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP"}


def scan(source: Path) -> Listing:
    """List the frontal images of a (possibly partial) download; images are matched to rows by their name.

    A row whose image is not there is rejected ("missing file") where other images of its numbered folder or archive
    are; else that part was not downloaded, and the row is only counted.

    Raises:
        UserError: no image, no label file, or a damaged archive.
    """
    source = source_folder(source)
    found = _find_images(source)
    path = label_file(source, ("PADCHEST*.csv", "PADCHEST*.csv.gz", "*.csv", "*.csv.gz"))
    table = read_label_file(path, COLUMNS, OPTIONAL_COLUMNS)
    parts = {_part(image) for images in found.values() for image in images}
    outcomes: list[ListedImage | Rejected] = []
    absent = 0
    known = set()
    for row in table:
        name = row["ImageID"]
        known.add(name)
        if name in found:
            outcomes += [_list_image(image, row) for image in found[name]]
        elif row.get("ImageDir") in parts:
            outcomes.append(Rejected(name, f"{row['ImageDir']}/{name}", "missing file"))
        else:
            absent += 1
    for name in found.keys() - known:
        outcomes += [
            Rejected(name, shown_path(image.file, image.member), "not in the label file") for image in found[name]
        ]
    return make_listing("padchest", source, outcomes, {"absent": absent})


def parse_labels(text: str) -> list[str] | None:
    """The findings in a list literal such as "['pleural effusion ', '']", lower-cased; None if it holds none."""
    try:
        items = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(items, list):
        return None
    return clean_labels(item.lower() for item in items if isinstance(item, str))


def _find_images(source: Path) -> dict[str, list[Found]]:
    found = list(files_in(source, source))
    for path in sorted(source.glob("[0-9]*")):
        if path.is_dir() and path.name.isdigit():
            found += files_in(source, path)
        elif path.suffix == ".zip" and path.stem.isdigit():
            found += files_in_archive(source, path)
    if not found:
        raise UserError(
            f"no PadChest images in {source}: expected 0.zip to 54.zip, folders 0 to 54, or *.png, "
            f"found {listed(source)}"
        )
    by_name: dict[str, list[Found]] = {}
    for image in found:
        by_name.setdefault(image.name, []).append(image)
    return by_name


def _part(image: Found) -> str:
    """The number of the folder or archive that an image lies in; "" for a loose one."""
    return re.split(r"[/.]", image.file)[0] if image.member or "/" in image.file else ""


def _list_image(image: Found, row: Mapping[str, str]) -> ListedImage | Rejected:
    reason = None
    if row["Projection"] not in VIEW_OF_PROJECTION:
        reason = "not frontal"
    elif not row["PatientID"]:
        reason = "no patient id"
    if reason:
        return Rejected(image.name, shown_path(image.file, image.member), reason)
    return ListedImage(
        image_id=image.name,
        **image._asdict(),
        patient_id=row["PatientID"],
        view=VIEW_OF_PROJECTION[row["Projection"]],
        sex=parse_sex(row.get("PatientSex_DICOM", "")),
        age=_age(row.get("StudyDate_DICOM", ""), row.get("PatientBirth", "")),
        labels=parse_labels(row["Labels"]),
        inverted=row.get("PhotometricInterpretation_DICOM") == "MONOCHROME1",
    )


def _age(study_date: str, birth: str) -> float | None:
    """Years between the year of birth ("1938" or "1938.0") and the study (yyyymmdd)."""
    years = [re.match(r"(\d{4})", text) for text in (study_date, birth)]
    if not years[0] or not years[1]:
        return None
    return parse_age(str(int(years[0][1]) - int(years[1][1])))
