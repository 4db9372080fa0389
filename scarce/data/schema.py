"""What a converted dataset is: Parquet shards of 8-bit grayscale pixels with typed columns, and a manifest.

DIR/dataset.json            the manifest; written last, so its presence means the dataset is whole
DIR/shard-00000.parquet     rows in image_id order; every shard is written atomically
DIR/rejected.parquet        image_id, file, reason of every image that was left out
"""

import re
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from scarce.errors import UserError

SCHEMA_VERSION = 2
MANIFEST_NAME = "dataset.json"
REJECTED_NAME = "rejected.parquet"
FRONTAL_VIEWS = ("PA", "AP")

REJECTED_SCHEMA = pa.schema([("image_id", pa.string()), ("file", pa.string()), ("reason", pa.string())])

BOX_TYPE = pa.struct([("finding", pa.string())] + [(name, pa.float32()) for name in ("left", "top", "right", "bottom")])


def image_schema(size: int) -> pa.Schema:
    """Columns of a shard for `size` × `size` pixel images."""
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),  # unique in the dataset
            pa.field("patient_id", pa.string(), nullable=False),  # unique in the hospital
            pa.field("view", pa.string()),  # "PA" or "AP"; null where the source does not say
            pa.field("sex", pa.string()),  # "F", "M" or null
            pa.field("age", pa.float32()),  # years or null
            pa.field("hospital", pa.string(), nullable=False),
            pa.field("source", pa.string()),  # where in the dataset it comes from, if from several places; or null
            pa.field("labels", pa.list_(pa.string())),  # null: nobody labelled it; []: labelled, nothing found
            pa.field("raw_bits", pa.uint8(), nullable=False),  # bits a pixel in the source file: 8, 12, 16, ...
            pa.field("stretch_low", pa.float32(), nullable=False),  # raw level that became 0
            pa.field("stretch_high", pa.float32(), nullable=False),  # raw level that became 255
            pa.field("raw_width", pa.uint16(), nullable=False),  # pixels of the source image; phantoms: their size
            pa.field("raw_height", pa.uint16(), nullable=False),
            pa.field("jpeg_quality", pa.uint8()),  # 1 to 100 (`jpeg.jpeg_quality`); null: no JPEG file
            pa.field("boxes", pa.list_(BOX_TYPE)),  # where each finding is, in [0, 1] of width/height; or null
            pa.field("lungs", pa.binary(-(-size * size // 8))),  # true mask, np.packbits, 1: aerated lung; or null
            pa.field("pixels", pa.binary(size * size), nullable=False),  # rows top to bottom, 0 black, 255 white
        ]
    )


def missing_columns(found: pa.Schema, size: int) -> list[str]:
    """The columns of `image_schema` that a shard lacks, or has of another type."""
    wanted = image_schema(size)
    return [
        field.name for field in wanted if field.name not in found.names or found.field(field.name).type != field.type
    ]


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a dataset: its name in the folder, its rows and the SHA-256 of their content."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The content of `dataset.json`."""

    schema_version: int
    hospital: str  # "nih", "padchest", a folder's name, "phantom-a", ...
    size: int  # pixels a side
    images: int
    patients: int
    labelled: int  # images that somebody labelled; only these may enter an evaluation
    rejected: int
    rejected_by_reason: dict[str, int]
    labels: dict[str, int]  # images a label
    shards: tuple[Shard, ...]
    source: str  # what it was made from, as the user named it
    settings: dict[str, Any]  # everything that shaped the pixels
    digest: str  # SHA-256 over the shards' content digests: equal content, equal digest

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> "Manifest":
        """The manifest that `to_json` wrote.

        Raises:
            UserError: another schema version.
            ValueError, TypeError, KeyError: no manifest, or one of nothing.
        """
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, found {type(value).__name__}")
        if value.get("schema_version") != SCHEMA_VERSION:
            phantom = value.get("source") == "phantom"
            raise UserError(
                f"dataset has schema version {value.get('schema_version')!r}, expected {SCHEMA_VERSION}: "
                f"{'delete its folder and draw' if phantom else 'convert'} it again with this version of scarce"
            )
        manifest = Manifest(**{**value, "shards": tuple(Shard(**shard) for shard in value["shards"])})
        if not isinstance(manifest.size, int) or not 1 <= manifest.size <= 2**14:
            raise ValueError(f"expected a size in pixels, found {manifest.size!r}")
        for shard in manifest.shards:
            if not isinstance(shard.name, str) or not re.fullmatch(r"shard-\d{5}\.parquet", shard.name):
                raise ValueError(f"expected shards named shard-00000.parquet, found {shard.name!r}")
            if not isinstance(shard.rows, int) or shard.rows < 1:
                raise ValueError(f"expected rows in {shard.name}, found {shard.rows!r}")
        rows = sum(shard.rows for shard in manifest.shards)
        if rows < 1 or rows != manifest.images:
            raise ValueError(f"expected the {rows} images of its shards, at least one, found {manifest.images!r}")
        return manifest
