"""Pretraining images, decoded once and held once per node, shared by every trial there.

They pass through Ray Data into Ray's object store, where trials map Arrow blocks without a copy: on the driver's node,
and once on every other one as soon as a trial there opens them. Those too many for it lie in a file that trials map
(`mapped.py`); the images and their numbers are the same. Only the pixels pass; the patient column is read where a
patient must be left out, and dropped in the same step.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import NodeDiedError, RayTaskError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scarce.data.mapped import MappedFile, cache_folder
from scarce.data.pixels import Pixels
from scarce.data.selection import COLUMNS, Selection
from scarce.data.store import Dataset, pixel_array, pixel_column
from scarce.errors import UserError
from scarce.storage import connect

Trains = Callable[[Mapping[str, float]], bool]  # tells of a node's Ray resources whether trials may run there

STORE_SHARE = 0.8  # of the object store; from there on Ray spills objects to disk


@dataclass(frozen=True)
class Feed:
    """Where the images of a dataset lie: references to Arrow blocks, or a file on each node."""

    source: tuple[Any, ...] | MappedFile  # ray.ObjectRef of pyarrow.Table with the one column "pixels"
    size: int  # pixels a side
    images: int

    def open(self) -> Pixels:
        """The images, mapped from this node's object store or disk.

        Raises:
            UserError: they were lost with a node, or this node is new, and they can't be decoded anew.
        """
        if isinstance(self.source, MappedFile):
            return self.source.open()
        arrays = []
        try:
            tables = ray.get(list(self.source))
        except RayTaskError as error:  # Ray decodes again what a node took with it
            cause = getattr(error, "cause", error)
            raise UserError(
                "the pretraining images are no longer in memory and can't be decoded anew "
                f"({type(cause).__name__}: {cause}): put the dataset back where it was, and go on with --resume"
            ) from error
        for table in tables:
            arrays += [pixel_array(chunk, self.size) for chunk in table["pixels"].chunks]
        return Pixels(arrays)


def load_feed(
    dataset: Dataset,
    *,
    without_patients: Iterable[str] = (),
    largest_size: int,
    store_bytes: float | None = None,
    trains: Trains | None = None,
) -> Feed:
    """Decode a dataset's pixels into the object store, or where they are too many, into a file on every node.

    Args:
        dataset: what to read.
        without_patients: patient ids whose images are left out.
        largest_size: images larger than this are reduced to it (Lanczos): views need no more, and memory is short.
        store_bytes: what the images may take of a node's object store; by default 80% of the smallest node's, less
            what is in use.
        trains: where trials may run; a file is made on these nodes only. By default wherever there are CPUs.

    Raises:
        UserError: nothing is left, or a disk is too small for it.
    """
    size = min(dataset.manifest.size, largest_size)
    selection = Selection(dataset, tuple(sorted(set(without_patients))), size)
    if selection.images == 0:
        raise UserError(f"no image of {dataset.path} is left for pretraining: every patient is held out for validation")
    room = _room_in_object_store() if store_bytes is None else store_bytes
    if selection.bytes <= room:
        return _load_blocks(selection)
    file = MappedFile(selection, cache_folder())
    print(
        f"the pretraining images take {selection.bytes / 1e9:.2f} GB and Ray's object store has room for "
        f"{max(room, 0) / 1e9:.2f} GB: they are mapped from a file in {file.folder}"
    )
    _make_on_every_node(file, trains or (lambda node: node.get("CPU", 0) > 0))
    return Feed(file, size, selection.images)


def _load_blocks(selection: Selection) -> Feed:
    """The selected images as Arrow tables in the object store, in order.

    Ray Data reads them wherever there are CPUs; the driver takes each block into its own node's store as it comes, and
    other nodes fetch copies. Were they left where they were made, those of a lost node would have to be made again by
    tasks that wait for CPUs which trials hold that wait for them.
    """

    def keep_pixels(table: pa.Table) -> pa.Table:
        return pa.table({"pixels": pixel_column(selection.pixels(table))})

    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True  # an image's number must mean the same image in every run
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        places = [connect(shard) for shard in selection.dataset.shard_paths]
        read = ray.data.read_parquet([path for _, path in places], filesystem=places[0][0])
        read = read.select_columns(COLUMNS)
        kept = read.map_batches(keep_pixels, batch_format="pyarrow", batch_size=None)
        blocks = tuple(ray.put(block) for block in kept.iter_batches(batch_format="pyarrow", batch_size=None))
    return Feed(blocks, selection.size, selection.images)


def _room_in_object_store() -> float:
    """Bytes that every node's object store can take, if all that is in use anywhere lay on the smallest."""
    smallest = min(node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"])
    whole, free = (
        found.get("object_store_memory", 0) for found in (ray.cluster_resources(), ray.available_resources())
    )
    return STORE_SHARE * smallest - (whole - free)


def _make_on_every_node(file: MappedFile, trains: Trains) -> None:
    """Make the file wherever trials may run, before they hold a GPU and wait. Nodes that join later make it then."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and trains(node["Resources"])]
    tasks = [_make.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)) for node in nodes]
    for made in [task.remote(file) for task in tasks]:
        try:
            ray.get(made)
        except UserError as error:
            raise getattr(error, "cause", error) from None  # without the traceback that Ray makes part of the message
        except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
            continue  # the node is gone; the one that comes in its place makes its own


@ray.remote(num_cpus=0)
def _make(file: MappedFile) -> None:
    file.open()
