"""Small hospital folders, drawn for the tests of the readers and of the conversion."""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scarce.data.listing import Listing
from scarce.data.schema import Shard
from scarce.data.shard import make_shard
from scarce.data.store import Dataset, open_dataset, read_shard_metadata, shard_name, write_dataset_files

SHARED = Path(__file__).parents[1] / "../shared/data"


def shared_data(name: str) -> Path:
    """A folder of real X-rays beside the repository; the test is skipped where there is none."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the real X-rays in {folder}")
    return folder


def writable_copy(source: Path, target: Path) -> Path:
    """The files of `source` without its permissions, which may forbid a change."""
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    return target


def convert_here(listing: Listing, out: Path, size: int = 64) -> Dataset:
    """The dataset of a listing, converted in this process."""
    path = out / shard_name(0)
    images = listing.images.to_pylist()
    rows = make_shard(path, images, source=listing.source, hospital=listing.hospital, size=size, key="")
    write_dataset_files(
        out,
        hospital=listing.hospital,
        size=size,
        source="",
        settings={},
        shards=[Shard(path.name, rows, read_shard_metadata(path)["digest"])],
        rejected=listing.rejected.slice(0, 0),
    )
    return open_dataset(out)


def png(seed: int, bits: int = 8, side: int = 40) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 2**bits, (side, side))
    file = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8 if bits == 8 else np.uint16)).save(file, "PNG")
    return file.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def nih_row(name: str, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "Image Index": name,
        "Finding Labels": "Mass|Nodule",
        "Patient ID": int(name.partition("_")[0]),
        "Patient Age": 57,
        "Patient Gender": "M",
        "View Position": "PA",
    }
    return row | changes


def write_nih(folder: Path, images: int) -> Path:
    """A download of `images` images, three a patient, each with a row."""
    names = [f"{number // 3 + 1:08d}_{number % 3:03d}.png" for number in range(images)]
    (folder / "images_001" / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        (folder / "images_001" / "images" / name).write_bytes(png(number))
    write_csv(folder / "Data_Entry_2017_v2020.csv", [nih_row(name) for name in names])
    return folder
