"""The features of a whole dataset as one Parquet file, for whoever has other plans for them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scarce.audit.subject import FrozenPipeline
from scarce.data.pixels import reduce_images
from scarce.data.store import Dataset, pixel_array
from scarce.files import atomic_path

COLUMNS = ("image_id", "labels", "view")


def features_schema(dataset: Dataset, pipeline: FrozenPipeline, backbone: str, with_patients: bool) -> pa.Schema:
    """image_id, labels, view, (patient_id,) and features; what they were made from is in the file's metadata."""
    about = {
        "hospital": dataset.manifest.hospital,
        "dataset_digest": dataset.manifest.digest,
        "backbone": backbone,
        "image_size": pipeline.image_size,
    }
    fields = [
        pa.field("image_id", pa.string()),
        pa.field("labels", pa.list_(pa.string())),  # null: nobody labelled it; []: labelled, nothing found
        pa.field("view", pa.string()),
        *([pa.field("patient_id", pa.string())] if with_patients else []),
        pa.field("features", pa.list_(pa.float32(), pipeline.backbone.feature_dim)),
    ]
    return pa.schema(fields, metadata={b"scarce": json.dumps(about, sort_keys=True).encode()})


def write_features(
    path: Path, dataset: Dataset, pipeline: FrozenPipeline, backbone: str, with_patients: bool = False
) -> int:
    """Write the features of all images of a dataset, in its order, atomically; returns how many.

    A few hundred images are in memory at a time.

    Args:
        path: the Parquet file.
        dataset: any converted one.
        pipeline: whose backbone sees the images, as large as in its pretraining.
        backbone: what it is called in the file's metadata.
        with_patients: add the column patient_id. Without it the file names patients only where image names do, as the
            NIH's.
    """
    names = [*COLUMNS, *(["patient_id"] if with_patients else [])]
    schema, size, rows = features_schema(dataset, pipeline, backbone, with_patients), dataset.manifest.size, 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in dataset.parts([*names, "pixels"]):
            images = pixel_array(part["pixels"].combine_chunks(), size)
            if size > pipeline.image_size:
                images = reduce_images(images, pipeline.image_size)
            features = pipeline.features(np.array(images))
            column = pa.FixedSizeListArray.from_arrays(features.ravel(), features.shape[1])
            columns = [*(part[name].combine_chunks() for name in names), column]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            rows += len(features)
    return rows
