from pathlib import Path

import pytest
from hospital_folders import png, shared_data, write_csv

from scarce.data.columns import Columns
from scarce.data.folder import normalise_view, scan
from scarce.errors import UserError


def test_the_real_sample_of_another_hospital() -> None:
    listing = scan(shared_data("spain-covid-sample"))
    images = listing.images.to_pandas()
    assert listing.hospital == "spain-covid-sample"
    assert (len(images), listing.rejected.num_rows) == (54, 0)
    assert images["labels"].isna().sum() == 10
    assert images["labels"].explode().value_counts().to_dict() == {"COVID-19": 26, "No finding": 18}
    assert images["view"].value_counts().to_dict() == {"AP": 29, "PA": 25}


def test_odd_rows_and_files(tmp_path: Path) -> None:
    for name in ["a.png", "deep/er/b.jpg", "c.png", "side.png", "x/same.png", "y/same.png", "spare.png", "who.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(0))
    columns = ("Filename", "Patient_ID", "Labels", "View")
    rows = [
        ("a.png", "1", " Mass ; Nodule;;Mass", "AP supine"),
        ("deep\\er\\b.jpg", "2", "", "?"),
        ("c", "3", "Mass|Hernia", "pa"),
        ("c.png", "3", "Mass", "PA"),
        ("side.png", "4", "", "Lateral"),
        ("same.png", "5", "", ""),
        ("x/same.png", "5", "", ""),
        ("../outside.png", "6", "", ""),
        ("who.png", "", "", ""),
    ]
    write_csv(tmp_path / "labels.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    (tmp_path.parent / "outside.png").write_bytes(png(0))
    listing = scan(tmp_path, hospital="elsewhere")
    images = {image["image_id"]: image for image in listing.images.to_pylist()}
    assert listing.hospital == "elsewhere"
    assert images.keys() == {"a.png", "c.png", "deep/er/b.jpg", "x/same.png"}
    assert (images["a.png"]["labels"], images["a.png"]["view"]) == (["Mass", "Nodule"], "AP")
    assert (images["deep/er/b.jpg"]["labels"], images["deep/er/b.jpg"]["view"]) == (None, None)
    assert (images["c.png"]["labels"], images["c.png"]["view"]) == (["Mass", "Hernia"], "PA")
    assert [(row["image_id"], row["reason"]) for row in listing.rejected.to_pylist()] == [
        ("../outside.png", "missing file"),
        ("c.png", "duplicate id"),
        ("same.png", "ambiguous file name"),
        ("side.png", "not frontal"),
        ("spare.png", "not in the label file"),
        ("who.png", "no patient id"),
    ]


def test_columns_and_csv_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    row = {"bild": "a.png", "fall": "7", "befund": "Mass", "Age": "61", "Gender": "female", "Site": "north"}
    write_csv(tmp_path / "b.csv", [row])
    write_csv(tmp_path / "other.csv", [{"x": 1}])
    with pytest.raises(UserError, match=r"expected one CSV file .* found b\.csv, other\.csv: name it with --csv"):
        scan(tmp_path)
    with pytest.raises(UserError, match=r"expected a column image or .* name it with --columns\.image"):
        scan(tmp_path, tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"expected the columns fallnummer, found bild, fall, befund"):
        scan(tmp_path, tmp_path / "b.csv", columns=Columns(image="bild", patient="fallnummer"))
    listing = scan(tmp_path, tmp_path / "b.csv", columns=Columns(image="bild", patient="fall", labels="befund"))
    (image,) = listing.images.to_pylist()
    assert (image["patient_id"], image["labels"], image["age"], image["sex"]) == ("7", ["Mass"], 61.0, "F")
    assert image["source"] == "north"


def test_no_image_and_no_csv(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected one CSV file in .*, found nothing"):
        scan(tmp_path)
    write_csv(tmp_path / "labels.csv", [{"image": "a.png", "patient": "1"}])
    with pytest.raises(UserError, match=r"no image in .*: expected \.png, "):
        scan(tmp_path)
    (tmp_path / "b.png").write_bytes(png(0))
    with pytest.raises(UserError, match="no usable image"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("text", "view"),
    [("PA", "PA"), ("ap", "AP"), ("AP_horizontal", "AP"), ("postero-anterior", None), ("Posteroanterior", "PA"),
     ("L", "lateral"), ("LL", "lateral"), ("Left lateral", "lateral"), ("", None), ("unknown", None)],
)  # fmt: skip
def test_views(text: str, view: str | None) -> None:
    assert normalise_view(text) == view
