import gzip
import zipfile
from pathlib import Path

import pytest
from hospital_folders import png, write_csv

from scarce.data.padchest import parse_labels, scan
from scarce.errors import UserError

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def row(name: str, **changes: object) -> dict[str, object]:
    return {
        "ImageID": name,
        "ImageDir": 3,
        "StudyDate_DICOM": 20140915,
        "PatientID": "p1",
        "PatientBirth": "1938.0",
        "PatientSex_DICOM": "F",
        "Projection": "PA",
        "PhotometricInterpretation_DICOM": "MONOCHROME2",
        "Report": "sin hallazgos, sin cambios",
        "Labels": "['normal']",
    } | changes


@pytest.mark.parametrize("layout", ["loose", "folder", "zip"])
@pytest.mark.parametrize("packed", [False, True])
def test_layouts(tmp_path: Path, layout: str, packed: bool) -> None:
    write_csv(tmp_path / TABLE, [row("a.png"), row("b.png", ImageDir=5)])
    if packed:
        (tmp_path / f"{TABLE}.gz").write_bytes(gzip.compress((tmp_path / TABLE).read_bytes()))
        (tmp_path / TABLE).unlink()
    if layout == "zip":
        with zipfile.ZipFile(tmp_path / "3.zip", "w") as archive:
            archive.writestr("3/a.png", png(0, bits=16))
    else:
        folder = tmp_path / "3" if layout == "folder" else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / "a.png").write_bytes(png(0, bits=16))
    listing = scan(tmp_path)
    (image,) = listing.images.to_pylist()
    expected = {"loose": ("a.png", None), "folder": ("3/a.png", None), "zip": ("3.zip", "3/a.png")}
    assert (image["file"], image["member"]) == expected[layout]
    assert image["file_bytes"] == len(png(0, bits=16))
    assert (image["patient_id"], image["view"], image["sex"], image["age"]) == ("p1", "PA", "F", 76.0)
    assert (image["labels"], image["inverted"]) == (["normal"], False)
    assert listing.counts == {"absent": 1}  # folder 5 was not downloaded
    assert listing.rejected.num_rows == 0


def test_dirt(tmp_path: Path) -> None:
    rows = [
        row("ap.png", Projection=" AP ", PhotometricInterpretation_DICOM="MONOCHROME1"),
        row("lying.png", Projection="AP_horizontal", PatientBirth="", PatientSex_DICOM="O"),
        row("lateral.png", Projection="L"),
        row("ribs.png", Projection="COSTAL"),
        row("unknown.png", Projection=""),
        row("nobody.png", PatientID=" "),
        row("gone.png"),
        row("twice.png"),
        row("twice.png", Labels="['mass']"),
        row("unlabelled.png", Labels=""),
    ]
    write_csv(tmp_path / TABLE, rows)
    (tmp_path / "3").mkdir()
    for name in {str(item["ImageID"]) for item in rows} - {"gone.png"} | {"extra.png"}:
        (tmp_path / "3" / name).write_bytes(png(0))
    listing = scan(tmp_path)
    images = {image["image_id"]: image for image in listing.images.to_pylist()}
    assert images.keys() == {"ap.png", "lying.png", "twice.png", "unlabelled.png"}
    assert (images["ap.png"]["view"], images["ap.png"]["inverted"]) == ("AP", True)
    assert (images["lying.png"]["view"], images["lying.png"]["age"], images["lying.png"]["sex"]) == ("AP", None, None)
    assert images["twice.png"]["labels"] == ["normal"]
    assert images["unlabelled.png"]["labels"] is None
    assert [(item["image_id"], item["reason"]) for item in listing.rejected.to_pylist()] == [
        ("extra.png", "not in the label file"),
        ("gone.png", "missing file"),
        ("lateral.png", "not frontal"),
        ("nobody.png", "no patient id"),
        ("ribs.png", "not frontal"),
        ("twice.png", "duplicate id"),
        ("unknown.png", "not frontal"),
    ]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['pleural effusion', 'cardiomegaly']", ["pleural effusion", "cardiomegaly"]),
        ("[' Pleural  Effusion ', '', 'pleural effusion', ' ']", ["pleural effusion"]),
        ("['exclude']", ["exclude"]),
        ("[]", None),
        ("['']", None),
        ("", None),
        ("nan", None),
        ("['unclosed", None),
        ("{[]: 1}", None),
        ("'normal'", None),
        ("[3, 'mass']", ["mass"]),
        ("__import__('os').getcwd()", None),
    ],
)
def test_labels(text: str, labels: list[str] | None) -> None:
    assert parse_labels(text) == labels


def test_wrong_folders_are_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected 0\.zip to 54\.zip, folders 0 to 54, or \*\.png, found nothing"):
        scan(tmp_path)
    (tmp_path / "a.png").write_bytes(png(0))
    with pytest.raises(UserError, match=r"expected PADCHEST\*\.csv"):
        scan(tmp_path)
    write_csv(tmp_path / TABLE, [row("other.png")])
    with pytest.raises(UserError, match=r"no usable image .*: 1 left out \(the first, a\.png: \"not in the label file"):
        scan(tmp_path)
    (tmp_path / "4.zip").write_bytes(b"PK the download was cut short")
    with pytest.raises(UserError, match=r"4\.zip is not a whole zip archive"):
        scan(tmp_path)
