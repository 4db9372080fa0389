"""One shard of a conversion: decode its images, write what is good, and record what is not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scarce.data.decode import DecodeError, decode, read_bytes
from scarce.data.intensity import stretch_range, to_8_bit
from scarce.data.listing import Rejected, shown_path
from scarce.data.schema import image_schema
from scarce.data.store import content_digest, pixel_column, write_shard


def make_shard(path: Path, rows: Sequence[dict[str, Any]], *, source: Path, hospital: str, size: int, key: str) -> int:
    """Decode the images of one shard and write it, atomically; returns how many images it holds.

    The footer gets `key`, the number and digest of the rows, and the rejected images (`REJECTED_SCHEMA`).

    Args:
        path: the Parquet file.
        rows: of `LISTING_SCHEMA`.
        source: folder that the rows' files lie in.
        hospital: value of that column.
        size: side of the images in pixels.
        key: what the shard was made from.
    """
    kept: list[dict[str, Any]] = []
    rejected = []
    pixels = np.empty((len(rows), size, size), np.uint8)
    for row in rows:
        try:
            raw = decode(read_bytes(source / row["file"], row["member"]))
            low, high = stretch_range(raw.pixels, raw.inverted or row["inverted"])
        except DecodeError as error:
            file = shown_path(row["file"], row["member"])
            rejected.append(Rejected(row["image_id"], file, str(error))._asdict())
            continue
        pixels[len(kept)] = to_8_bit(raw.pixels, low, high, size)
        height, width = raw.pixels.shape
        kept.append(
            row
            | {"hospital": hospital, "raw_bits": raw.bits, "stretch_low": low, "stretch_high": high}
            | {"raw_width": width, "raw_height": height, "jpeg_quality": raw.jpeg_quality, "boxes": None, "lungs": None}
        )

    schema = image_schema(size)
    columns = [
        pixel_column(pixels[: len(kept)])
        if field.name == "pixels"
        else pa.array([row[field.name] for row in kept], field.type)
        for field in schema
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    footer = {"key": key, "rows": len(kept), "digest": content_digest(table), "rejected": rejected}
    write_shard(path, table, footer)
    return len(kept)
