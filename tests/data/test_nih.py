from pathlib import Path

import pytest
from hospital_folders import nih_row, png, shared_data, write_csv, write_nih

from scarce.data.listing import Listing
from scarce.data.nih import scan
from scarce.errors import UserError


def rejected(listing: Listing) -> list[tuple[str, str]]:
    return [(row["image_id"], row["reason"]) for row in listing.rejected.to_pylist()]


def test_the_real_sample() -> None:
    listing = scan(shared_data("nih-sample"))
    images = listing.images.to_pandas()
    assert (len(images), images["patient_id"].nunique(), listing.rejected.num_rows) == (1000, 264, 0)
    assert images["view"].value_counts().to_dict() == {"PA": 637, "AP": 363}
    assert images["labels"].explode().value_counts()["Effusion"] == 170
    assert images["image_id"].is_monotonic_increasing
    first = listing.images.slice(0, 1).to_pylist()[0]
    assert first["file"] == "images_001/images/00000001_000.png"
    assert (first["patient_id"], first["sex"], first["age"]) == ("1", "M", 57.0)


def test_the_whole_label_table_beside_a_part_of_the_images(tmp_path: Path) -> None:
    table = shared_data("nih-sample").parent / "Data_Entry_2017_v2020.full.csv.gz"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00000001_000.png").write_bytes(png(0))
    (tmp_path / "Data_Entry_2017_v2020.csv.gz").write_bytes(table.read_bytes())
    listing = scan(tmp_path)
    assert listing.images.num_rows == 1
    assert listing.counts["absent"] == 112_119
    assert rejected(listing) == []


def test_odd_rows_and_images_without_rows(tmp_path: Path) -> None:
    names = [f"0000000{patient}_000.png" for patient in range(1, 6)]
    folder = tmp_path / "images_012" / "images"
    folder.mkdir(parents=True)
    for seed, name in enumerate([*names, "notes.png"]):
        (folder / name).write_bytes(png(seed))
    (folder / "._00000001_000.png").write_bytes(b"what macOS leaves")
    rows = [
        nih_row(names[0], **{"Finding Labels": "No Finding"}),
        nih_row(names[1], **{"Finding Labels": " Mass || Mass |", "Patient Age": 414, "View Position": ""}),
        nih_row(names[2], **{"Finding Labels": "", "Patient Age": "006M", "Patient Gender": ""}),
        nih_row(names[3], **{"Patient Age": "058Y"}),
        nih_row(names[3], **{"Finding Labels": "Hernia"}),
        nih_row("00000099_000.png"),
    ]
    write_csv(tmp_path / "Data_Entry_2017.csv", rows)
    listing = scan(tmp_path)
    images = {row["image_id"]: row for row in listing.images.to_pylist()}
    assert images.keys() == set(names)
    assert images[names[0]]["labels"] == ["No Finding"]
    assert (images[names[1]]["labels"], images[names[1]]["age"], images[names[1]]["view"]) == (["Mass"], None, None)
    assert (images[names[2]]["labels"], images[names[2]]["age"], images[names[2]]["sex"]) == (None, 0.5, None)
    assert (images[names[3]]["labels"], images[names[3]]["age"]) == (["Mass", "Nodule"], 58.0)
    unlabelled = images[names[4]]
    assert (unlabelled["patient_id"], unlabelled["labels"], unlabelled["view"]) == ("5", None, None)
    assert rejected(listing) == [(names[3], "duplicate id"), ("notes.png", "not in the label file")]
    assert listing.counts == {"absent": 1}


def test_one_name_in_two_folders_is_one_image(tmp_path: Path) -> None:
    write_nih(tmp_path, images=3)
    (tmp_path / "images_002" / "images").mkdir(parents=True)
    (tmp_path / "images_002" / "images" / "00000001_001.png").write_bytes(png(9))
    listing = scan(tmp_path)
    assert listing.images["file"].to_pylist()[1] == "images_001/images/00000001_001.png"
    assert [row["file"] for row in listing.rejected.to_pylist()] == ["images_002/images/00000001_001.png"]
    assert rejected(listing) == [("00000001_001.png", "duplicate id")]


def test_the_official_lists_are_counted(tmp_path: Path) -> None:
    write_nih(tmp_path, images=4)
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000077_000.png\n")
    (tmp_path / "test_list.txt").write_text("00000002_000.png")
    assert scan(tmp_path).counts == {"absent": 0, "official_train_val": 2, "official_test": 1}


def test_wrong_folders_are_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a folder of X-rays"):
        scan(tmp_path / "nowhere")
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError, match=r"expected images_001/images/\*\.png or images/\*\.png, found holiday\.jpg"):
        scan(tmp_path)
    write_nih(tmp_path, images=1)
    table = tmp_path / "Data_Entry_2017_v2020.csv"
    for content, message in [
        ("Image Index,Finding Labels\n", "expected the columns Patient ID, found Image Index, Finding Labels"),
        ("", "expected the columns .* found none"),
        (None, r"expected Data_Entry_2017\*\.csv"),
    ]:
        if content is None:
            table.unlink()
        else:
            table.write_text(content)
        with pytest.raises(UserError, match=message):
            scan(tmp_path)
