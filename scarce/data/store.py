"""Writing and opening a converted dataset. The only place that knows how pixels lie in Parquet."""

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scarce.data.schema import (
    MANIFEST_NAME,
    REJECTED_NAME,
    REJECTED_SCHEMA,
    SCHEMA_VERSION,
    Manifest,
    Shard,
    image_schema,
    missing_columns,
)
from scarce.errors import UserError
from scarce.files import atomic_path, stable_hash, write_json
from scarce.storage import Place, connect, explained, place_of, read_bytes, side_by_side

_PICTURES = ("pixels", "lungs")  # columns that are no metadata
_SHARDS_AHEAD = 3  # read from a bucket while one is worked on; 34 MB each at 256 pixels a side


def shard_name(index: int) -> str:
    """File name of the shard with this index."""
    return f"shard-{index:05d}.parquet"


def write_shard(path: Path, table: pa.Table, metadata: dict[str, Any] | None = None) -> None:
    """Write `table` (columns of `image_schema`) to `path` atomically; `metadata` travels as JSON in the footer.

    Pixels and lungs get no dictionary (they never repeat). zstd is deterministic: equal tables give equal bytes.
    """
    footer = {b"scarce": json.dumps(metadata or {}, sort_keys=True).encode()}
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(footer),
            temporary,
            compression="zstd",
            use_dictionary=[name for name in table.column_names if name not in (*_PICTURES, "boxes", "labels")],
            row_group_size=256,
        )


def read_shard_metadata(path: Path) -> dict[str, Any]:
    """The `metadata` given to `write_shard`."""
    footer = pq.read_metadata(path).metadata or {}
    metadata: dict[str, Any] = json.loads(footer.get(b"scarce", b"{}"))
    return metadata


def content_digest(table: pa.Table) -> str:
    """SHA-256 (hex) of a shard's rows: every column's values, independent of how Parquet encodes them."""
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        digest.update(name.encode())
        if pa.types.is_fixed_size_binary(column.type):
            for value in column:
                digest.update(b"\1" if value.is_valid else b"\0")
                if value.is_valid:
                    digest.update(value.as_buffer())
        else:
            digest.update(json.dumps(column.to_pylist(), sort_keys=True).encode())
    return digest.hexdigest()


def write_dataset_files(
    out: Path,
    *,
    hospital: str,
    size: int,
    source: str,
    settings: dict[str, Any],
    shards: Sequence[Shard],
    rejected: pa.Table,
) -> Manifest:
    """Write `rejected.parquet` and then the manifest of the shards that already lie in `out`."""
    metadata = _read_metadata([out / shard.name for shard in shards])
    with atomic_path(out / REJECTED_NAME) as temporary:
        pq.write_table(rejected.cast(REJECTED_SCHEMA), temporary)
    labels: Counter[str] = Counter()
    for row in metadata["labels"]:
        if row is not None:
            labels.update(set(row))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        hospital=hospital,
        size=size,
        images=len(metadata),
        patients=int(metadata["patient_id"].nunique()),
        labelled=int(metadata["labels"].notna().sum()),
        rejected=rejected.num_rows,
        rejected_by_reason=dict(sorted(Counter(rejected["reason"].to_pylist()).items())),
        labels=dict(sorted(labels.items())),
        shards=tuple(shards),
        source=source,
        settings=settings,
        digest=stable_hash([hospital, size, [shard.digest for shard in shards]]),
    )
    write_json(out / MANIFEST_NAME, manifest.to_json())
    return manifest


def pixel_array(column: pa.Array, size: int) -> np.ndarray:
    """Zero-copy view of a fixed-size-binary pixel array as uint8 [N, size, size] (read-only)."""
    return _byte_array(column).reshape(len(column), size, size)


def pixel_column(images: np.ndarray) -> pa.Array:
    """The Arrow column of uint8 images [N, H, W], without copying pixel by pixel."""
    images = np.ascontiguousarray(images, dtype=np.uint8)
    width = images.shape[1] * images.shape[2]
    return pa.Array.from_buffers(pa.binary(width), len(images), [None, pa.py_buffer(images)])


def lung_column(lungs: np.ndarray) -> pa.Array:
    """The Arrow column of lung masks, bool [N, S, S]."""
    packed = np.packbits(lungs.reshape(len(lungs), -1), axis=1)
    return pa.Array.from_buffers(pa.binary(packed.shape[1]), len(packed), [None, pa.py_buffer(packed)])


@dataclass(frozen=True)
class Dataset:
    """A whole converted dataset, on a disk or in a bucket."""

    path: Place
    manifest: Manifest

    @property
    def shard_paths(self) -> list[Place]:
        """The shards in row order."""
        return [self.path / shard.name for shard in self.manifest.shards]

    def metadata(self) -> pd.DataFrame:
        """Every column but pixels and lungs, one row an image, in row order.

        `labels` and `boxes` hold lists, or None; `age` and `jpeg_quality` are float32, NaN where null.
        """
        return _read_metadata(self.shard_paths)

    def parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of all rows in order, a few hundred rows at a time.

        From a bucket the next shards come while one is worked on.
        """
        if isinstance(self.path, Path):
            for shard in self.shard_paths:
                groups = pq.ParquetFile(shard)
                for group in range(groups.num_row_groups):
                    yield groups.read_row_group(group, columns=list(columns))
            return
        with ThreadPoolExecutor(_SHARDS_AHEAD) as pool:
            coming: deque[Future[pa.Table]] = deque()
            for shard in self.shard_paths:
                coming.append(pool.submit(read_shard, shard, columns))
                if len(coming) > _SHARDS_AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def pixels(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Images as uint8 [N, size, size]: all of them, or the given row numbers in the given order."""
        size = self.manifest.size
        return self._gather("pixels", rows)[0].reshape(-1, size, size)

    def lungs(self, rows: np.ndarray | None = None) -> np.ndarray | None:
        """True lung masks as bool [N, size, size], rows as in `pixels`; None if any of these images has none."""
        size = self.manifest.size
        packed, null = self._gather("lungs", rows)
        if null.any():
            return None
        return np.unpackbits(packed, axis=1, count=size * size).reshape(-1, size, size).view(bool)

    def _gather(self, name: str, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """A fixed-size-binary column at these rows: bytes, uint8 [N, width], and where it is null, bool [N]."""
        width = image_schema(self.manifest.size).field(name).type.byte_width
        wanted = np.arange(self.manifest.images) if rows is None else np.asarray(rows)
        values = np.empty((len(wanted), width), dtype=np.uint8)
        null = np.zeros(len(wanted), dtype=bool)
        starts = np.cumsum([0, *(shard.rows for shard in self.manifest.shards)])
        order = np.argsort(wanted, kind="stable")  # so that the rows of a shard lie side by side
        bounds = np.searchsorted(wanted[order], starts)
        for path, start, (first, last) in zip(self.shard_paths, starts[:-1], pairwise(bounds), strict=True):
            here = order[first:last]
            if len(here):
                column = read_shard(path, [name])[name].combine_chunks()
                values[here] = _byte_array(column)[wanted[here] - start]
                null[here] = column.is_null().to_numpy(zero_copy_only=False)[wanted[here] - start]
        return values, null


def open_dataset(path: Place | str) -> Dataset:
    """Open a converted dataset, given by its folder or URL.

    Raises:
        UserError: there is none, a shard is missing or cut short, or the bucket can't be used.
    """
    folder = place_of(path) if isinstance(path, str | Path) else path
    with explained(folder):
        manifest = _read_manifest(folder)
        footers = side_by_side(_read_footer, [folder / shard.name for shard in manifest.shards])
    for shard, footer in zip(manifest.shards, footers, strict=True):
        if footer is None:
            raise UserError(f"{folder / shard.name} is missing or damaged: run the conversion again")
        if footer.num_rows != shard.rows:
            raise UserError(
                f"{folder / shard.name} holds {footer.num_rows} images, expected {shard.rows}: run the conversion again"
            )
        if missing := missing_columns(footer.schema.to_arrow_schema(), manifest.size):
            raise UserError(
                f"{folder / shard.name} is no shard of {manifest.size} pixel images: expected other columns "
                f"{', '.join(missing)}: run the conversion again"
            )
    return Dataset(folder, manifest)


def read_shard(shard: Place, columns: Sequence[str]) -> pa.Table:
    """Some columns of a shard."""
    filesystem, path = connect(shard)
    with explained(shard):
        return pq.read_table(path, columns=list(columns), filesystem=filesystem)


def _read_manifest(folder: Place) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        return Manifest.from_json(json.loads(read_bytes(path)))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(
            f"no converted dataset in {folder}: expected {MANIFEST_NAME} there"
            f"{'' if isinstance(folder, Path) else ', found none, or no such bucket'}. "
            "Make one with `scarce convert nih|padchest|folder --source DIR --out DIR`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a dataset manifest ({error}): convert the dataset again") from error


def _read_footer(shard: Place) -> pq.FileMetaData | None:
    """What a shard says of itself; None if it is missing or damaged."""
    filesystem, path = connect(shard)
    try:
        return pq.read_metadata(path, filesystem=filesystem)
    except (FileNotFoundError, pa.ArrowException):
        return None
    except OSError:
        if isinstance(shard, Path):
            return None
        raise


def _byte_array(column: pa.Array) -> np.ndarray:
    """Zero-copy view of a fixed-size-binary array as uint8 [N, width] (read-only); nulls are any bytes."""
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1], dtype=np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(len(column), width)


def _read_metadata(paths: Sequence[Place]) -> pd.DataFrame:
    names = [name for name in image_schema(1).names if name not in _PICTURES]
    table = pa.concat_tables(side_by_side(lambda path: read_shard(path, names), paths))
    frame: pd.DataFrame = table.drop_columns(["labels", "boxes"]).to_pandas()
    frame["jpeg_quality"] = frame["jpeg_quality"].astype(np.float32)  # the same type with and without nulls
    frame["labels"] = pd.Series(table["labels"].to_pylist(), dtype=object)
    frame["boxes"] = pd.Series(table["boxes"].to_pylist(), dtype=object)
    return frame
