"""NIH ChestX-ray14 (Wang et al., 2017) as its download unpacks.

images_001/images/00000001_000.png ... images_012/images/, or one folder images/
Data_Entry_2017_v2020.csv or Data_Entry_2017.csv     image, findings, patient, age, sex and view
train_val_list.txt, test_list.txt                    the official split, if present
"""

import re
from pathlib import Path

from scarce.data.listing import ListedImage, Listing, Rejected, make_listing
from scarce.data.sources import (
    Found,
    clean_labels,
    files_in,
    label_file,
    listed,
    parse_age,
    parse_sex,
    read_label_file,
    source_folder,
)
from scarce.errors import UserError

COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
OPTIONAL_COLUMNS = ("Patient Age", "Patient Gender", "Patient Sex", "View Position")  # Sex: the 2020 table's header
OFFICIAL_LISTS = {"official_train_val": "train_val_list.txt", "official_test": "test_list.txt"}


def scan(source: Path) -> Listing:
    """List the images of a (possibly partial) download.

    Rows of the label file whose image is not there are counted, not rejected: who downloads one of the twelve archives
    has 100,000 of them. An image without a row is kept for pretraining, its patient known from its name.

    Raises:
        UserError: no image folder or no label file.
    """
    source = source_folder(source)
    found = _find_images(source)
    table = read_label_file(
        label_file(source, ("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz")), COLUMNS, OPTIONAL_COLUMNS
    )
    rows: dict[str, dict[str, str]] = {}
    outcomes: list[ListedImage | Rejected] = []
    contradicted = set()
    for row in table:
        name = row["Image Index"]
        if row["Patient ID"] != rows.setdefault(name, row)["Patient ID"]:
            contradicted.add(name)
        elif rows[name] is not row:
            outcomes.append(Rejected(name, name, "duplicate id"))

    outcomes += [
        Rejected(image.name, image.file, "several patients")
        if image.name in contradicted
        else _list_image(image, rows.get(image.name, {}))
        for image in found
    ]
    names = {image.name for image in found}
    counts = {"absent": len(rows.keys() - names)}
    for key, name in OFFICIAL_LISTS.items():
        if (source / name).is_file():
            counts[key] = len(names.intersection((source / name).read_text(encoding="utf-8").split()))
    return make_listing("nih", source, outcomes, counts)


def _find_images(source: Path) -> list[Found]:
    folders = sorted(path for pattern in ("images", "images_*/images") for path in source.glob(pattern))
    found = [image for folder in folders if folder.is_dir() for image in files_in(source, folder, (".png",))]
    if not found:
        raise UserError(
            f"no NIH images in {source}: expected images_001/images/*.png or images/*.png, found {listed(source)}"
        )
    return found


def _list_image(image: Found, row: dict[str, str]) -> ListedImage | Rejected:
    patient = row.get("Patient ID") or image.name.partition("_")[0]
    if not re.fullmatch(r"\d+", patient):
        return Rejected(image.name, image.file, "not in the label file")
    view = row.get("View Position")
    return ListedImage(
        image_id=image.name,
        **image._asdict(),
        patient_id=str(int(patient)),
        view=view if view in ("PA", "AP") else None,
        sex=parse_sex(row.get("Patient Sex") or row.get("Patient Gender") or ""),
        age=parse_age(row.get("Patient Age", "")),
        labels=clean_labels(row.get("Finding Labels", "").split("|")),
    )
