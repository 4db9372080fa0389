"""Pretraining images through Ray Data: decoded once, held once per node in Ray's object store, shared by every trial.

Trials get references to Arrow blocks and map them without a copy. Only the pixels pass; the patient column is read
where a patient must be left out, and dropped in the same step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from scarce.data.pixels import Pixels, reduce_images
from scarce.data.store import Dataset, pixel_array, pixel_column
from scarce.errors import UserError


@dataclass(frozen=True)
class Feed:
    """References to the pixel blocks of a dataset."""

    blocks: tuple[Any, ...]  # ray.ObjectRef of pyarrow.Table with the one column "pixels"
    size: int  # pixels a side
    images: int

    def open(self) -> Pixels:
        """The images, mapped from this node's object store."""
        arrays = []
        for table in ray.get(list(self.blocks)):
            arrays += [pixel_array(chunk, self.size) for chunk in table["pixels"].chunks]
        return Pixels(arrays)


def load_feed(dataset: Dataset, *, without_patients: Iterable[str] = (), largest_size: int) -> Feed:
    """Read a dataset's pixels into the object store.

    Args:
        dataset: what to read.
        without_patients: patient ids whose images are left out.
        largest_size: images larger than this are reduced to it (Lanczos): views need no more, and memory is short.

    Raises:
        UserError: nothing is left, or the object store is too small for it.
    """
    size = min(dataset.manifest.size, largest_size)
    excluded = pa.array(sorted(set(without_patients)), pa.string())

    def keep_pixels(table: pa.Table) -> pa.Table:
        wanted = pa.compute.invert(pa.compute.is_in(table["patient_id"], excluded))
        pixels = table.filter(wanted)["pixels"].combine_chunks()
        if size < dataset.manifest.size:
            images = pixel_array(pixels, dataset.manifest.size)
            pixels = pixel_column(reduce_images(images, size))
        return pa.table({"pixels": pixels})

    _check_object_store(dataset.manifest.images * size * size)
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True  # an image's number must mean the same image in every run
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        read = ray.data.read_parquet([str(path) for path in dataset.shard_paths])
        read = read.select_columns(["patient_id", "pixels"])
        blocks = read.map_batches(keep_pixels, batch_format="pyarrow", batch_size=None).to_arrow_refs()
    images = sum(ray.get([_count_rows.remote(block) for block in blocks]))
    if images == 0:
        raise UserError(f"no image of {dataset.path} is left for pretraining: every patient is held out for validation")
    return Feed(tuple(blocks), size, images)


@ray.remote(num_cpus=0)
def _count_rows(table: pa.Table) -> int:
    return int(table.num_rows)


def _check_object_store(needed: int) -> None:
    available = min(node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"])
    if needed > available:
        raise UserError(
            f"the pretraining images need {needed / 1e9:.1f} GB of Ray's object store on every node, the smallest has "
            f"{available / 1e9:.1f} GB: use a machine with more memory, or convert with a smaller --size"
        )
