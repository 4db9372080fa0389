"""Lung masks in a dataset: null or packed, read back by rows, and part of the digest."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarce.data.schema import REJECTED_SCHEMA, Shard, image_schema
from scarce.data.store import (
    Dataset,
    content_digest,
    lung_column,
    open_dataset,
    pixel_column,
    shard_name,
    write_dataset_files,
    write_shard,
)

SIZE = 17  # 289 bits do not fill their last byte
IMAGES = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE), dtype=np.uint8)
LUNGS = IMAGES > 100


def make_table(rows: slice, without_lungs: tuple[int, ...] = ()) -> pa.Table:
    """These images, with lung masks but for the images of `without_lungs`."""
    numbers = range(len(IMAGES))[rows]
    schema = image_schema(SIZE)
    constants = {"raw_bits": 8, "stretch_low": 0.0, "stretch_high": 255.0, "raw_width": 900, "raw_height": 800}
    masks = [None if n in without_lungs else np.packbits(LUNGS[n]).tobytes() for n in numbers]
    columns = {
        **{name: [value] * len(numbers) for name, value in constants.items()},
        "image_id": [f"{number}.png" for number in numbers],
        "patient_id": ["p"] * len(numbers),
        "hospital": ["here"] * len(numbers),
        "lungs": masks,
        "pixels": [IMAGES[n].tobytes() for n in numbers],
    }
    nothing = [None] * len(numbers)
    return pa.table({field.name: pa.array(columns.get(field.name, nothing), field.type) for field in schema}, schema)


def write(folder: Path, without_lungs: tuple[int, ...] = ()) -> Dataset:
    """A dataset of a shard of 3 and one of 4 images."""
    shards = []
    for index, rows in enumerate((slice(0, 3), slice(3, None))):
        table = make_table(rows, without_lungs)
        write_shard(folder / shard_name(index), table)
        shards.append(Shard(shard_name(index), table.num_rows, content_digest(table)))
    rejected = REJECTED_SCHEMA.empty_table()
    write_dataset_files(folder, hospital="here", size=SIZE, source="", settings={}, shards=shards, rejected=rejected)
    return open_dataset(folder)


@pytest.mark.parametrize("rows", [None, [6, 0, 3, 3], [5], []])
def test_pixels_and_lungs_of_any_rows(tmp_path: Path, rows: list[int] | None) -> None:
    dataset = write(tmp_path)
    wanted = None if rows is None else np.array(rows, dtype=int)
    expected = slice(None) if rows is None else wanted
    np.testing.assert_array_equal(dataset.pixels(wanted), IMAGES[expected])
    lungs = dataset.lungs(wanted)
    assert lungs is not None
    assert lungs.dtype == bool
    np.testing.assert_array_equal(lungs, LUNGS[expected])


def test_images_without_a_mask(tmp_path: Path) -> None:
    dataset = write(tmp_path, without_lungs=(1, 4))
    assert pq.read_table(dataset.shard_paths[0])["lungs"].is_null().to_pylist() == [False, True, False]
    assert dataset.lungs() is None
    assert dataset.lungs(np.array([0, 4])) is None
    np.testing.assert_array_equal(dataset.lungs(np.array([6, 0, 2])), LUNGS[[6, 0, 2]])
    np.testing.assert_array_equal(dataset.pixels(), IMAGES)


def test_a_dataset_without_masks(tmp_path: Path) -> None:
    dataset = write(tmp_path, without_lungs=tuple(range(7)))
    assert dataset.lungs() is None
    assert not {"lungs", "pixels"} & set(dataset.metadata().columns)


def test_columns_are_what_was_packed_one_by_one() -> None:
    table = make_table(slice(None))
    assert lung_column(LUNGS).equals(table["lungs"].combine_chunks())
    assert pixel_column(IMAGES).equals(table["pixels"].combine_chunks())


@given(image=st.integers(0, 6), row=st.integers(0, SIZE - 1), column=st.integers(0, SIZE - 1))
def test_the_digest_knows_every_pixel_of_a_mask(image: int, row: int, column: int) -> None:
    table = make_table(slice(None))
    changed = LUNGS.copy()
    changed[image, row, column] ^= True
    place = table.column_names.index("lungs")
    assert content_digest(table) != content_digest(table.set_column(place, "lungs", lung_column(changed)))
    assert content_digest(table) == content_digest(table.set_column(place, "lungs", lung_column(LUNGS)))


def test_the_digest_tells_no_mask_from_an_empty_one_and_knows_whose_it_is() -> None:
    digests = {content_digest(make_table(slice(None), without_lungs=(missing,))) for missing in range(7)}
    table = make_table(slice(None), without_lungs=(2,))
    empty = LUNGS.copy()
    empty[2] = False
    place = table.column_names.index("lungs")
    digests.add(content_digest(table.set_column(place, "lungs", lung_column(empty))))
    digests.add(content_digest(make_table(slice(None))))
    assert len(digests) == 9


def test_the_digest_is_of_the_rows_not_of_how_they_lie_in_memory(tmp_path: Path) -> None:
    table = make_table(slice(None), without_lungs=(3,))
    write_shard(tmp_path / "x.parquet", table)
    assert content_digest(pq.read_table(tmp_path / "x.parquet")) == content_digest(table)
    assert content_digest(table.slice(2, 3)) == content_digest(make_table(slice(2, 5), without_lungs=(3,)))
