"""Feeding images to training: from the second epoch on, in the first, and what a further trial takes of memory.

    python benchmarks/feed.py

Claims: at least 20,000 images/s of 256 x 256 pixels, in batches of 256 in random order, into one process on one core;
with four trials on a node, memory grows by less than 15% of the dataset for each further one.

Peers: torch's DataLoader over PNG files, and over PIL images held in memory, each with 2 workers (and so two cores
besides the one that takes the batches), persistent, as the documentation shows; each image becomes a uint8 tensor by
torchvision's `pil_to_tensor`, and nothing else is done to it. Both deliver the same uint8 batches as ours.

The lower bound is a copy of as many bytes from one batch to another. The first epoch has as its bound that the
dataset's Parquet files are decoded once, in one process; it counts from `load_feed` on, after `scarce convert`, which
has decoded the PNG files once for all sweeps.

Memory is PSS (/proc/PID/smaps_rollup: what is shared counts in parts) added up over the trials, the driver and the
object store. A further trial's batch is in it; what a process takes that has opened a few images is not.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from scarce.cluster.connect import local_cluster
from scarce.data.convert import convert
from scarce.data.feed import Feed, load_feed
from scarce.data.folder import scan
from scarce.data.mapped import MappedFile, map_pixels
from scarce.data.phantom import PhantomConfig, draw, plan_films
from scarce.data.pixels import Pixels
from scarce.data.store import Dataset, open_dataset

IMAGES, SIZE, BATCH, TRIALS, REPEATS = 4096, 256, 256, 4, 3
BYTES = IMAGES * SIZE**2
PNG, CACHE = "DataLoader over PNG files, 2 workers", "DataLoader over PIL images in memory, 2 workers"
COPY, MAPPED = "a copy of the bytes", "mapped file"
COLD, DISK = "mapped file, nothing of it in memory", "reading that file first to last"


def write_pngs(folder: Path) -> None:
    """A hospital's folder: phantom films, each with grain of its own, and a CSV."""
    films = list(plan_films(PhantomConfig("a", patients=64, size=SIZE)))[:64]
    drawn = draw(films, PhantomConfig("a", patients=64, size=SIZE)).images
    names = [f"{number:05d}.png" for number in range(IMAGES)]
    pd.DataFrame({"image": names, "patient": names}).to_csv(folder / "films.csv", index=False)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_write_png, [folder / name for name in names], drawn[np.arange(IMAGES) % 64], range(IMAGES)))


def _write_png(path: Path, film: np.ndarray, seed: int) -> None:
    grain = np.random.default_rng(seed).integers(-6, 7, film.shape, dtype=np.int16)
    Image.fromarray(np.clip(film + grain, 0, 255).astype(np.uint8)).save(path, compress_level=1)


class PngFiles(torch.utils.data.Dataset):
    """Decoded whenever asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return pil_to_tensor(image.convert("L"))


class CachedImages(PngFiles):
    """Decoded once, held as PIL images."""

    def __init__(self, folder: Path, count: int = IMAGES) -> None:
        super().__init__(folder)
        self.paths = self.paths[:count]
        self.images = [Image.open(path).convert("L") for path in self.paths]

    def __getitem__(self, index: int) -> torch.Tensor:
        return pil_to_tensor(self.images[index])


def start_loader(dataset: PngFiles) -> torch.utils.data.DataLoader:
    """A loader whose workers run: they are forked before Ray starts, whose threads must not be forked."""
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    iter(loader)
    return loader


def loader_rate(loader: torch.utils.data.DataLoader) -> float:
    """Images a second of one epoch."""
    start = time.perf_counter()
    done = sum(len(batch) for batch in loader)
    return done / (time.perf_counter() - start)


def gather_rate(pixels: Pixels, out: np.ndarray) -> float:
    """Images a second of one epoch on one core, as `pretrain.next_views` gathers them."""
    order = np.random.default_rng(time.time_ns()).permutation(len(pixels))
    with one_core():
        start = time.perf_counter()
        for position in range(0, len(order), BATCH):
            pixels.gather(order[position : position + BATCH], out)
        return len(order) / (time.perf_counter() - start)


def copy_rate(out: np.ndarray) -> float:
    """Images a second of the same copies, in order and from one array."""
    source = np.zeros((IMAGES, SIZE, SIZE), np.uint8) + np.uint8(1)
    with one_core():
        start = time.perf_counter()
        for position in range(0, IMAGES, BATCH):
            np.copyto(out, source[position : position + BATCH])
        return IMAGES / (time.perf_counter() - start)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def cold_rate(path: Path, out: np.ndarray) -> float:
    """Images a second of one epoch from the disk; nobody else may have the file mapped."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return gather_rate(map_pixels(file.fileno(), SIZE), out)


def disk_rate(path: Path, out: np.ndarray) -> float:
    """Images a second of reading the file from the disk, first to last."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        while file.readinto(out.data):
            pass
        return IMAGES / (time.perf_counter() - start)


def first_epoch_rate(dataset: Dataset, out: np.ndarray, store_bytes: int) -> float:
    """Images a second from the dataset on disk to the end of an epoch."""
    shutil.rmtree(os.environ["SCARCE_CACHE"], ignore_errors=True)
    start = time.perf_counter()
    with redirect_stdout(None):
        feed = load_feed(dataset, largest_size=SIZE, store_bytes=store_bytes)
    gather_rate(feed.open(), out)
    return IMAGES / (time.perf_counter() - start)


def decode_rate(dataset: Dataset) -> float:
    """Images a second of decoding the dataset's files in one process, and keeping nothing."""
    start = time.perf_counter()
    done = sum(pq.read_table(path, columns=["pixels"]).num_rows for path in dataset.shard_paths)
    return done / (time.perf_counter() - start)


@ray.remote(num_cpus=0)
class Trial:
    """A process that trains."""

    def hold(self, open_images: Callable[[], Any]) -> set[int]:
        """Open the images, train an epoch on them, and keep them; the ids of this process and of the object store's."""
        self.images = open_images()
        if isinstance(self.images, Pixels):
            self.batch = np.zeros((min(BATCH, len(self.images)), SIZE, SIZE), np.uint8)
            gather_rate(self.images, self.batch)
        return {os.getpid(), os.getppid()}


def growth_per_trial(count: int, open_few: Callable[[], Any], open_images: Callable[[], Any]) -> float:
    """Share of the dataset by which memory grows for each trial that opens it, from the second to the last."""
    trials = [Trial.remote() for _ in range(count)]
    processes = {os.getpid()}.union(*ray.get([trial.hold.remote(open_few) for trial in trials]))
    totals = []
    for trial in trials:
        ray.get(trial.hold.remote(open_images))
        totals.append(sum(map(pss, processes)))
    for trial in trials:
        ray.kill(trial)
    return (totals[-1] - totals[0]) / (count - 1) / BYTES


def pss(process: int) -> int:
    """Bytes of memory that a process takes; what it shares with n - 1 others counts an n-th."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Print the rows of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SCARCE_CACHE"] = str(folder / "cache")
        (folder / "films").mkdir()
        write_pngs(folder / "films")
        loaders = {PNG: start_loader(PngFiles(folder / "films")), CACHE: start_loader(CachedImages(folder / "films"))}
        with local_cluster(object_store_bytes=4 * BYTES):
            convert(scan(folder / "films"), folder / "dataset", size=SIZE)
            dataset = open_dataset(folder / "dataset")
            feeds = {
                where: [
                    load_feed(dataset, without_patients=left_out, largest_size=SIZE, store_bytes=store_bytes)
                    for left_out in (few_left(), ())
                ]
                for where, store_bytes in (("object store", BYTES), ("mapped file", 0))
            }
            measure_rates(feeds["object store"][1], feeds["mapped file"][1], loaders)
            measure_memory(feeds, folder / "films")
            feeds.clear()
            measure_first_epoch(dataset, loaders[PNG])


def few_left() -> list[str]:
    """All patients but eight, who have one image each."""
    return [f"{number:05d}.png" for number in range(8, IMAGES)]


def measure_rates(stored: Feed, mapped: Feed, loaders: dict[str, torch.utils.data.DataLoader]) -> None:
    """From the second epoch on."""
    out = np.zeros((BATCH, SIZE, SIZE), np.uint8)
    rates: dict[str, list[float]] = {}

    def remembered(name: str, rate: Callable[[], float]) -> Callable[[], float]:
        def call() -> float:
            rates.setdefault(name, []).append(rate())
            return rates[name][-1]

        return call

    in_memory, on_disk = stored.open(), mapped.open()
    assert isinstance(mapped.source, MappedFile)
    cold = mapped.source.path.with_suffix(".cold")
    shutil.copy(mapped.source.path, cold)
    with open(cold) as file:
        os.fsync(file.fileno())  # else its pages can't be dropped
    work = {
        measure.OURS: lambda: gather_rate(in_memory, out),
        **{name: lambda loader=loader: loader_rate(loader) for name, loader in loaders.items()},
        MAPPED: lambda: gather_rate(on_disk, out),
        COLD: lambda: cold_rate(cold, out),
        DISK: lambda: disk_rate(cold, out),
        COPY: lambda: copy_rate(out),
    }
    ratios = measure.alternate({name: remembered(name, rate) for name, rate in work.items()}, REPEATS)
    median = {name: statistics.median(values[1:]) for name, values in rates.items()}
    claim = f"feed, later epochs, {SIZE} px, batches of {BATCH}, one core"
    bound = f"{COPY}: {median[COPY]:,.0f} images/s"
    for name in (PNG, CACHE):
        measure.row(claim, name, ratios[name], "", bound)
    for name in (measure.OURS, MAPPED):
        where = "object store" if name == measure.OURS else name
        measure.row(f"{claim}, {where}", "", f"{median[name]:,.0f} images/s", "at least 20,000", bound)
    bound = f"the disk, first to last: {median[DISK]:,.0f} images/s"
    measure.row(f"{claim}, {COLD}", "", f"{median[COLD]:,.0f} images/s", "", bound)


def measure_memory(feeds: dict[str, list[Feed]], films: Path) -> None:
    """What a further trial takes."""
    theirs = growth_per_trial(2, lambda: CachedImages(films, 8), lambda: CachedImages(films))
    for where, (few, feed) in feeds.items():
        share = growth_per_trial(TRIALS, few.open, feed.open)
        measure.row(
            f"memory of a further trial, share of the dataset, {where}",
            f"PIL images in memory: {theirs:.0%}",
            f"{share:.1%}",
            "less than 15%",
            f"one batch: {BATCH / IMAGES:.1%}",
        )


def measure_first_epoch(dataset: Dataset, loader: torch.utils.data.DataLoader) -> None:
    """The first epoch, with all that comes before it."""
    out = np.zeros((BATCH, SIZE, SIZE), np.uint8)
    decode = "decoding the dataset once"
    rates = {
        measure.OURS: lambda: first_epoch_rate(dataset, out, BYTES),
        PNG: lambda: loader_rate(loader),
        decode: lambda: decode_rate(dataset),
    }
    with_file = rates | {measure.OURS: lambda: first_epoch_rate(dataset, out, 0)}
    for where, work in (("object store, the start of Ray Data included", rates), (MAPPED, with_file)):
        ratios = measure.alternate(work, REPEATS)
        claim = f"feed, first epoch of {IMAGES:,} images, {where}"
        measure.row(claim, PNG, ratios[PNG], "", f"{decode}: reached {ratios[decode]}")


if __name__ == "__main__":
    main()
