"""A hospital's listing to a converted dataset: Ray Data decodes, stretches, resizes and writes shard by shard.

A shard's key is the hash of everything that shapes it, and travels in its footer together with what the shard had to
reject. So a rerun after any interruption keeps the finished shards, makes the others, and ends with the same bytes.
"""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa
import ray

from scarce.cluster.connect import local_cluster
from scarce.data.intensity import HIGH_PERCENTILE, LOW_PERCENTILE
from scarce.data.listing import Listing, rejected_table
from scarce.data.schema import MANIFEST_NAME, REJECTED_NAME, SCHEMA_VERSION, Manifest, Shard
from scarce.data.shard import make_shard
from scarce.data.store import read_shard_metadata, shard_name, write_dataset_files
from scarce.errors import UserError
from scarce.files import stable_hash

SHARD_IMAGES = 512
SMALLEST_SIZE, LARGEST_SIZE = 16, 2048
_REPORT_EVERY_S = 5.0
_OWN_NAMES = re.compile(r"(dataset\.json|rejected\.parquet|shard-\d{5}\.parquet)")
_TEMPORARY_NAMES = re.compile(r"\.(dataset\.json|rejected\.parquet|shard-\d{5}\.parquet)\.\d+\.tmp")


def convert(
    listing: Listing, out: Path, *, size: int = 256, address: str | None = None, shard_images: int = SHARD_IMAGES
) -> Manifest:
    """Convert the listed images into a dataset in `out`, or finish (or renew) the one that is there.

    Args:
        listing: what to convert.
        out: folder of the dataset; made if missing.
        size: side of the images in pixels, 16 to 2048.
        address: a Ray cluster to use, where `listing.source` and `out` must be the same folders on every node; by
            default a local one, started only if there is something to do (`cluster.local_cluster`).
        shard_images: images a Parquet file, which is also what an interruption can lose for each CPU.

    Raises:
        UserError: `out` holds something else, the size is out of range, or not one image could be used.
    """
    out = out.resolve()
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise UserError(f"--size: expected {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, found {size}")
    _check_folder(out)
    settings = conversion_settings(size, shard_images)
    keys = shard_keys(listing, settings)
    pending = [index for index, key in enumerate(keys) if _made_shard(out, index, key) is None]
    _remove_stale(out, {shard_name(index) for index in range(len(keys))}, changing=bool(pending))
    if pending:
        with local_cluster(address=address):
            _make_shards(listing, out, settings, keys, pending)
    return _write_manifest(listing, out, settings, keys)


def conversion_settings(size: int, shard_images: int) -> dict[str, Any]:
    """Everything besides the source that shapes the pixels."""
    return {
        "size": size,
        "percentiles": [LOW_PERCENTILE, HIGH_PERCENTILE],
        "resize": "lanczos",
        "pillow": PIL.__version__,
        "shard_images": shard_images,
    }


def shard_keys(listing: Listing, settings: dict[str, Any]) -> list[str]:
    """For each shard the hash of its rows (with the sizes of their files) and of the settings."""
    length = settings["shard_images"]
    return [
        stable_hash([SCHEMA_VERSION, settings, listing.hospital, listing.images.slice(start, length).to_pylist()])
        for start in range(0, listing.images.num_rows, length)
    ]


def _made_shard(out: Path, index: int, key: str) -> dict[str, Any] | None:
    """The footer of a shard made from exactly what `key` says, or None."""
    try:
        footer = read_shard_metadata(out / shard_name(index))
    except (OSError, ValueError, pa.ArrowException):
        return None  # missing, cut short, or no Parquet file
    return footer if footer.get("key") == key else None


def _check_folder(out: Path) -> None:
    """See that the folder can be made or written to, and holds nothing but a conversion."""
    there = next(path for path in (out, *out.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "can't be written to" if there.is_dir() else "is no folder"
        raise UserError(f"--out: expected a folder that can be made, found that {there} {what}: name another folder")
    for path in sorted(out.iterdir()) if there == out else ():
        if not _OWN_NAMES.fullmatch(path.name) and not _TEMPORARY_NAMES.fullmatch(path.name):
            raise UserError(
                f"--out: expected a new folder or a converted dataset, found {path.name} in {out}: name another folder"
            )


def _remove_stale(out: Path, current: set[str], *, changing: bool) -> None:
    """Remove what interrupted or larger conversions left; before it, a manifest that is about to be wrong."""
    if not out.exists():
        return
    stale = [path for path in out.iterdir() if path.name.startswith("shard-") and path.name not in current]
    if changing or stale:
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        (out / REJECTED_NAME).unlink(missing_ok=True)
    for path in stale + [path for path in out.iterdir() if _TEMPORARY_NAMES.fullmatch(path.name)]:
        path.unlink()


def _make_shards(
    listing: Listing, out: Path, settings: dict[str, Any], keys: Sequence[str], pending: Sequence[int]
) -> None:
    """Make the pending shards, one Ray Data row and task each, and tell how it goes."""
    images = ray.put(listing.images)  # once for all tasks
    source, hospital = listing.source, listing.hospital
    size, length = settings["size"], settings["shard_images"]

    def make(row: dict[str, Any]) -> dict[str, Any]:
        index = int(row["index"])
        rows = ray.get(images).slice(index * length, length).to_pylist()
        path = out / shard_name(index)
        return {"images": make_shard(path, rows, source=source, hospital=hospital, size=size, key=keys[index])}

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    started = reported = time.monotonic()
    done = 0
    with ray.data.DataContext.current(context):
        shards = ray.data.from_items([{"index": index} for index in pending], override_num_blocks=len(pending))
        for number, result in enumerate(shards.map(make).iter_rows(), start=1):
            done += int(result["images"])
            now = time.monotonic()
            if number == len(pending) or now - reported > _REPORT_EVERY_S:
                reported = now
                rate = done / (now - started)
                print(f"shard {number} of {len(pending)}: {done} images, {rate:.0f} images/s", flush=True)


def _write_manifest(listing: Listing, out: Path, settings: dict[str, Any], keys: Sequence[str]) -> Manifest:
    """Gather what the shards' footers say into `rejected.parquet` and the manifest."""
    rejected = listing.rejected.to_pylist()
    shards = []
    for index, key in enumerate(keys):
        footer = _made_shard(out, index, key)
        if footer is None:
            raise RuntimeError(f"{shard_name(index)} was made, but does not lie in {out}: is it shared by all nodes?")
        rejected += footer["rejected"]
        if footer["rows"]:  # a shard of nothing but rejects stays for the next rerun, and out of every reader's way
            shards.append(Shard(shard_name(index), footer["rows"], footer["digest"]))
    if not shards:
        for index in range(len(keys)):
            (out / shard_name(index)).unlink()
        with suppress(OSError):  # somebody else has put something there meanwhile
            out.rmdir()
        raise UserError(
            f"not one image of {listing.source} could be used: {len(rejected)} rejected "
            f'(the first, {rejected[0]["file"]}: "{rejected[0]["reason"]}")'
        )
    return write_dataset_files(
        out,
        hospital=listing.hospital,
        size=settings["size"],
        source=str(listing.source),
        settings=settings | {"counts": listing.counts},
        shards=shards,
        rejected=rejected_table(rejected),
    )
