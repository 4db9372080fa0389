"""What a hospital's folder, its label file and its archives may hold, and no dataset can be made from."""

import gzip
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hospital_folders import convert_here, nih_row, png, write_csv
from refusals import Bad, put, refuse, table

from scarce.data import folder, nih, padchest

NIH_CSV = "nih/Data_Entry_2017_v2020.csv"
PADCHEST_CSV = "padchest/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
NAMES = [f"{patient:08d}_000.png" for patient in (1, 2, 3)]
HEADER = "image,patient,labels\n"
ROW = f"{NAMES[0]},1,Mass\n"


def csv(content: bytes | str, name: str = "folder/table.csv") -> Callable[[Path], None]:
    """Write a label file in the place of the good one."""
    return lambda world: put(world / name, content)


def gone(*names: str) -> Callable[[Path], None]:
    """Remove files."""
    return lambda world: [(world / name).unlink() for name in names] and None


def archive(members: list[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members, whatever their names."""
    import io
    import warnings

    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as opened:
        warnings.simplefilter("ignore")  # zipfile's, of a name that is there twice
        for name, content in members:
            opened.writestr(name, content)
    return file.getvalue()


def only_zip(content: bytes) -> Callable[[Path], None]:
    """Leave nothing of PadChest's images but one archive."""

    def spoil(world: Path) -> None:
        gone(*(f"padchest/3/{name}" for name in NAMES))(world)
        put(world / "padchest" / "3.zip", content)

    return spoil


@table(
    Bad("no folder", "nih", "--source nowhere", ("--source", "nowhere", "expected a folder")),
    Bad("a file", "padchest", "--source a/dataset.json", ("--source", "a/dataset.json", "expected a folder")),
    Bad("another hospital's folder", "nih", "--source padchest", ("no NIH images", "expected images_001/images/*.png")),
    Bad("another hospital's folder", "padchest", "--source nih", ("no PadChest images", "expected 0.zip to 54.zip")),
    Bad("no image", "folder", "--source run", ("run", "expected one CSV file", "--csv")),
    Bad("no image", "folder", "", ("no image in", "expected .png"), gone(*(f"folder/{name}" for name in NAMES))),
    Bad("no label file", "nih", "", ("no label file", "expected Data_Entry_2017*.csv"), gone(NIH_CSV)),
    Bad("no label file", "padchest", "", ("no label file", "expected PADCHEST*.csv"), gone(PADCHEST_CSV)),
    Bad("no such CSV", "folder", "--csv gone.csv", ("gone.csv", "can't be read as a CSV file")),
    Bad("a folder for a CSV", "folder", "--csv a", ("world/a", "can't be read as a CSV file", "Is a directory")),
    Bad("two CSVs", "folder", "", ("b.csv, table.csv", "name it with --csv"), csv(HEADER, "folder/b.csv")),
    Bad(
        "a folder of images that is a file", "nih", "", ("no NIH images",), lambda w: _file_for_folder(w / "nih/images")
    ),
)
def test_a_folder(bad: Bad, world: Path) -> None:
    refuse(bad, world)


def _file_for_folder(path: Path) -> None:
    put(path, b"")


@table(
    Bad("an empty file", "folder", "", ("table.csv: expected a column image", "found none"), csv("")),
    Bad("only a header", "folder", "", ("table.csv", "expected a row for each image"), csv(HEADER)),
    Bad("only a header", "nih", "", ("expected a row for each image",), csv(",".join(nih_row("1_0.png")), NIH_CSV)),
    Bad("no patient column", "folder", "", ("expected a column patient", "--columns.patient"), csv("image,x\na,1\n")),
    Bad("no column of that name", "folder", "--columns.image file", ("expected the columns file", "found image")),
    Bad("semicolons", "folder", "", ("commas between the columns, not ';'",), csv("image;patient\na.png;1\n")),
    Bad("tabs", "nih", "", ("Image Index", r"not '\t'"), csv("Image Index\tPatient ID\na.png\t1\n", NIH_CSV)),
    Bad(
        "another table",
        "padchest",
        "",
        ("expected the columns ImageID", "found image"),
        csv(HEADER + ROW, PADCHEST_CSV),
    ),
    Bad(
        "a quote never closed",
        "folder",
        "",
        ("can't be read as a CSV", "table.csv"),
        csv(HEADER + '"a.png,1,Mass\n' * 3),
    ),
    Bad(
        "more fields than columns",
        "folder",
        "",
        ("expected 3 values in line 3, found 5", "quotation marks"),
        csv(HEADER + ROW + "a,b,c,d,e\n"),
    ),
    Bad(
        "Latin-1",
        "folder",
        "",
        ("expected text in UTF-8", "line 2"),
        csv((HEADER + "a.png,Jörg,x\n").encode("latin-1")),
    ),
    Bad("UTF-16", "folder", "", ("UTF-16: save it as UTF-8",), csv((HEADER + ROW).encode("utf-16"))),
    Bad("a NUL byte", "folder", "", ("expected text in UTF-8", "patient in line 2"), csv(HEADER + "a.png,1\x002,x\n")),
    Bad("a picture", "folder", "", ("table.csv",), csv(png(0))),
    Bad(
        "a gzip file cut short",
        "folder",
        "--csv t.csv.gz",
        ("t.csv.gz can't be read",),
        csv(gzip.compress(b"x" * 999)[:20], "t.csv.gz"),
    ),
    Bad("no gzip file", "folder", "--csv t.csv.gz", ("t.csv.gz can't be read", "gzip"), csv(HEADER, "t.csv.gz")),
    Bad("no image that is there", "folder", "", ("no usable image", "missing file"), csv(HEADER + "gone.png,1,Mass\n")),
    Bad(
        "no patient ids",
        "folder",
        "",
        ("no usable image", "left out"),
        csv(HEADER + "".join(f"{n},,\n" for n in NAMES)),
    ),
    Bad(
        "only lateral films",
        "folder",
        "",
        ("no usable image", "not frontal"),
        csv("image,patient,view\n" + "".join(f"{n},1,LL\n" for n in NAMES)),
    ),
    Bad("an image that leads out", "folder", "", ("no usable image",), csv(HEADER + "../a/dataset.json,1,x\n")),
    Bad(
        "images of several patients each",
        "folder",
        "",
        ("no usable image", "several patients"),
        csv(HEADER + "".join(f"{name},{patient},x\n" for name in NAMES for patient in (1, 2))),
    ),
)
def test_a_label_file(bad: Bad, world: Path) -> None:
    refuse(bad, world)


@table(
    Bad(
        "an empty archive file",
        "padchest",
        "",
        ("3.zip is not a whole zip archive", "download it again"),
        only_zip(b""),
    ),
    Bad(
        "no archive",
        "padchest",
        "",
        ("3.zip is not a whole zip archive", "download it again"),
        only_zip(b"PK\x03\x04" * 9),
    ),
    Bad(
        "an archive cut short",
        "padchest",
        "",
        ("3.zip is not a whole zip archive",),
        only_zip(archive([(NAMES[0], png(0))])[:-30]),
    ),
    Bad(
        "an archive of nothing",
        "padchest",
        "",
        ("no PadChest images", "expected 0.zip to 54.zip"),
        only_zip(archive([])),
    ),
    Bad(
        "an archive in an archive",
        "padchest",
        "",
        ("no PadChest images",),
        only_zip(archive([("3.zip", archive([(NAMES[0], png(0))]))])),
    ),
    Bad(
        "names that are no text",
        "padchest",
        "",
        ("3.zip is not a whole zip archive",),
        only_zip(archive([("ü.png", png(0))]).replace("ü".encode(), b"\xff\xfe")),
    ),
    Bad(
        "a version of the far future",
        "padchest",
        "",
        ("3.zip is not a whole zip archive",),
        only_zip(archive([("a.png", png(0))]).replace(b"PK\x01\x02\x14\x03\x14\x00", b"PK\x01\x02\x14\x03\xff\x00")),
    ),
    Bad(
        "images that no row names",
        "padchest",
        "",
        ("no usable image", "missing file"),
        only_zip(archive([("x.png", png(0))])),
    ),
)
def test_an_archive(bad: Bad, world: Path) -> None:
    refuse(bad, world)


def reasons(source: Path, scan: Callable[[Path], object], tmp_path: Path) -> dict[str, str]:
    """What became of each image: "" or the reason of its row among the rejected ones."""
    from scarce.data.listing import Listing
    from scarce.data.store import read_shard_metadata

    listing = scan(source)
    assert isinstance(listing, Listing)
    dataset = convert_here(listing, tmp_path / "converted", size=32)
    rejected = [*listing.rejected.to_pylist(), *read_shard_metadata(dataset.shard_paths[0])["rejected"]]
    return {
        **dict.fromkeys(dataset.metadata()["image_id"], ""),
        **{row["image_id"]: row["reason"] for row in rejected},
    }


def encrypted(name: str) -> bytes:
    """An archive whose directory says that its one member is encrypted."""
    content = bytearray(archive([(name, png(0))]))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    return bytes(content)


def test_members_of_archives_that_are_no_radiographs(world: Path, tmp_path: Path) -> None:
    """A bomb is not unpacked, nothing is written beside the archive, and the good film is converted."""
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    source = world / "padchest"
    put(
        source / "3.zip",
        archive(
            [
                ("good.png", png(1)),
                ("../../outside.png", png(2)),
                ("/absolute.png", png(3)),
                ("__MACOSX/._good.png", b"resource fork"),
                ("twice.png", png(4)),
                ("twice.png", png(5)),
                (link, b"/etc/passwd"),
                ("bomb.png", bytes(2**26)),
                ("empty.png", b""),
                ("text.png", b"not an image"),
                ("cut.png", png(6)[:-30]),
            ],
            zipfile.ZIP_DEFLATED,
        ),
    )
    put(source / "4.zip", encrypted("locked.png"))
    names = ["good", "outside", "absolute", "twice", "link", "bomb", "empty", "text", "cut", "locked"]
    row = {"ImageDir": 3, "PatientID": "p", "Projection": "PA", "Labels": "['normal']"}
    put(world / PADCHEST_CSV, b"")
    write_csv(world / PADCHEST_CSV, [{"ImageID": f"{name}.png"} | row for name in names])
    for name in NAMES:
        (source / "3" / name).unlink()
    outside = sorted(tmp_path.rglob("*"))
    found = reasons(source, padchest.scan, tmp_path)
    assert found == {
        "good.png": "",
        "outside.png": "",
        "absolute.png": "",
        "twice.png": "duplicate id",
        "link.png": "unreadable",
        "bomb.png": "too large",
        "empty.png": "empty",
        "text.png": "unreadable",
        "cut.png": "truncated",
        "locked.png": "unreadable",
    }
    new = {path.relative_to(tmp_path).parts[0] for path in {*tmp_path.rglob("*")} - {*outside}}
    assert new == {"converted"}
    assert not Path("/absolute.png").exists()


def test_a_member_that_declares_less_than_it_holds_is_not_unpacked_further(world: Path, tmp_path: Path) -> None:
    content = bytearray(archive([("a.png", png(0) + bytes(2**24))], zipfile.ZIP_DEFLATED))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(mark) + offset
        content[place : place + 4] = struct.pack("<I", 100)
    from scarce.data.decode import DecodeError, read_bytes

    put(tmp_path / "0.zip", bytes(content))
    with pytest.raises(DecodeError, match=r"^truncated$"):  # its check sum is that of the whole
        read_bytes(tmp_path / "0.zip", "a.png")


def test_files_that_are_no_radiographs(world: Path, tmp_path: Path) -> None:
    """Each is rejected with its reason, whatever its name holds, and the good one is converted."""
    import io

    from PIL import Image

    def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
        file = io.BytesIO()
        image.save(file, kind)
        return file.getvalue()

    films = {
        "good film ü.png": (png(0), ""),
        "line\nend.png": (png(1), ""),
        "dot.png": (encoded(Image.new("L", (1, 1))), "too small"),
        "wide.png": (encoded(Image.new("1", (20_001, 40))), "too large"),
        "20000.png": (encoded(Image.new("1", (20_000, 20_000))), "too large"),
        "flat.png": (encoded(Image.new("L", (64, 64), 7)), "constant image"),
        "empty.png": (b"", "empty"),
        "text.png": (b"not an image", "unreadable"),
        "cut.png": (png(2)[: len(png(2)) // 2], "truncated"),
        "cut.jpg": (encoded(Image.fromarray(_noise()), "JPEG")[:300], "truncated"),
        "gif.png": (encoded(Image.fromarray(_noise()), "GIF"), "unreadable"),
        "dicom.dcm": (bytes(128) + b"DICM", "unreadable"),
        "nameless.png": (png(3), "no patient id"),
    }
    source = tmp_path / "films"
    for name, (content, _) in films.items():
        put(source / name, content)
    os.mkdir(source / "folder.png")
    os.symlink("loop.png", source / "loop.png")
    write_csv(source / "t.csv", [{"image": name, "patient": "" if name == "nameless.png" else name} for name in films])
    found = reasons(source, folder.scan, tmp_path)
    assert found == {name: reason for name, (_, reason) in films.items()}


def _noise():  # type: ignore[no-untyped-def]
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


def test_a_file_name_that_is_no_text(world: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"0000000\xff_000.png")
    (world / "nih" / "images" / name).write_bytes(png(0))
    found = reasons(world / "nih", nih.scan, tmp_path)
    assert found == {**dict.fromkeys(NAMES, ""), r"0000000\xff_000.png": "not in the label file"}
    (world / "nih" / "images" / name).rename(world / "nih" / "images" / os.fsdecode(b"00000009_\xff.png"))
    assert reasons(world / "nih", nih.scan, tmp_path)[r"00000009_\xff.png"] == "file name is not UTF-8"


def test_rows_that_contradict_each_other(world: Path, tmp_path: Path) -> None:
    """Whose image it is decides its split: where rows disagree, it is in none. What else they say is the first's."""
    rows = [
        nih_row(NAMES[0]),
        nih_row(NAMES[0], **{"Patient ID": 2}),
        nih_row(NAMES[1], **{"Finding Labels": "Mass"}),
        nih_row(NAMES[1], **{"Finding Labels": "Hernia"}),
        nih_row(NAMES[2]),
    ]
    put(world / NIH_CSV, b"")
    write_csv(world / NIH_CSV, rows)
    listing = nih.scan(world / "nih")
    assert {row["image_id"]: row["labels"] for row in listing.images.to_pylist()} == {
        NAMES[1]: ["Mass"],
        NAMES[2]: ["Mass", "Nodule"],
    }
    assert [(row["image_id"], row["reason"]) for row in listing.rejected.to_pylist()] == [
        (NAMES[0], "several patients"),
        (NAMES[1], "duplicate id"),
    ]


def test_odd_values_become_null_and_a_byte_order_mark_is_none(world: Path) -> None:
    rows = "".join(f"{name},{age},X,?\n" for name, age in zip(NAMES, ("-5", "414", "nan"), strict=True))
    put(world / NIH_CSV, "\ufeffImage Index,Patient Age,Patient Gender,View Position\n" + rows)
    with pytest.raises(Exception, match="expected the columns Finding Labels, Patient ID, found Image Index"):
        nih.scan(world / "nih")
    csv(
        "\ufeffimage,patient,age,sex,view\n"
        + "".join(f"{n},p {n},{a},X,?\n" for n, a in zip(NAMES, ("-5", "414", "nan"), strict=True))
    )(world)
    images = folder.scan(world / "folder").images.to_pylist()
    assert [image["image_id"] for image in images] == NAMES
    assert {(image["age"], image["sex"], image["view"], image["labels"] and 1) for image in images} == {(None,) * 4}
