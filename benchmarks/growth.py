"""How time and memory grow: with images, with trials, and with trials at a time.

    python benchmarks/growth.py                                # 1k and 4k images, 4 and 16 trials, 1 and 2 at a time
    python benchmarks/growth.py --full --plot docs/growth.png  # 16k images, 64 trials and 4 at a time too: 5 minutes

What grows as size ** p has the exponent p: the slope of its logarithm against that of the size. The claim is that none
is above 1.1, neither by least squares over all sizes nor between the two largest, where a fixed cost hides the least.
Besides, everything is done once on a few images before, and memory is counted from the beginning of each stage: with
images that of the process itself, of Ray's object store and of its largest worker, with trials that of all processes.

Images are 64-pixel phantoms, written as PNG files with a table and converted like any hospital's folder. Trials are
real ones of a few steps, through the project's own Ray Tune, Optuna and ASHA. With --full, sizes are gone through up
and down again and the mean of both is taken, since a shared machine's mood changes within minutes.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from growth_figure import LEAST_MB, Growth, exponents, growth_figure, is_seen
from measure import row
from PIL import Image
from ray._private import internal_api
from short_search import run_search

from scarce.backbones import create_backbone
from scarce.cluster.connect import local_cluster
from scarce.cluster.processes import descendants
from scarce.config import DataConfig, PretrainConfig, RunConfig, SearchConfig, SweepConfig
from scarce.data import folder as hospital_folder
from scarce.data.convert import convert
from scarce.data.feed import load_feed
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.store import Dataset, open_dataset
from scarce.fewshot.features import extract_features
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import build_task
from scarce.pretrain import pretrain
from scarce.resources import Plan
from scarce.search import prepare_ray
from scarce.settings import default_settings, search_space, values_of
from scarce.trial import TrialContext
from scarce.trials.records import read_trials, write_trials_table

PATIENTS = (585, 2340, 9362)  # 1k, 4k and 16k images
TRIALS = (4, 16, 64)
CONCURRENT = (1, 2, 4)
TRIALS_OF_CONCURRENT = 8
CPUS = 4  # what Ray is told to have, so that four trials run at a time on two cores
SIZE, VIEW = 64, 32  # pixels a side: of the images, and of what networks see
AT_MOST = 1.1

Measured = dict[str, dict[str, float]]  # quantities by name, each "s" and "MB"
Search = Callable[[int, int], tuple[Path, Measured]]


class Memory:
    """The most of `read` while the block runs, in MB, sampled; allocators give back what they kept before it."""

    def __init__(self, read: Callable[[], float], period: float = 0.05) -> None:
        self.read, self.period = read, period
        self.ended = threading.Event()
        self.cpu_s = 0.0  # what sampling took

    def __enter__(self) -> "Memory":
        gc.collect()
        pa.default_memory_pool().release_unused()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.before = self.most = self.read()
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.ended.wait(self.period):
            self.most = max(self.most, self.read())
        self.cpu_s = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.most = max(self.most, self.read())

    @property
    def grown(self) -> float:
        """What was not held before."""
        return self.most - self.before


def own() -> float:
    """This process's memory without files and without the object store, in MB."""
    return megabytes(os.getpid(), "status", "RssAnon")


def largest_worker() -> float:
    """The same of the largest Ray worker of this process's cluster; 0 without any."""
    workers = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):  # it has ended since
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                workers.append(megabytes(pid, "status", "RssAnon"))
    return max(workers, default=0.0)


def everything() -> float:
    """This process and its descendants with Ray's own; what several of them share counts once. Takes some 30 ms."""
    return sum(megabytes(pid, "smaps_rollup", "Pss") for pid in (os.getpid(), *descendants(os.getpid())))


def megabytes(pid: int, file: str, name: str) -> float:
    """A line of /proc/PID/`file`; 0 where the process has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """The seconds and megabytes of `work`, and what it returns. Done again where it is short; the quickest counts."""
    seconds: list[float] = []
    with Memory(own) as memory:
        while not seconds or sum(seconds) < (3 if len(seconds) == 1 else 0.5):
            result = None  # so that two are never held at a time
            started = time.perf_counter()
            result = work()
            seconds.append(time.perf_counter() - started)
    return {"s": min(seconds), "MB": max(LEAST_MB, memory.grown)}, result


def image_stages(folder: Path, patients: int) -> tuple[int, Measured]:
    """Every stage from drawing to an epoch of pretraining; the number of images, and what each took."""
    measured: Measured = {}
    number = count()  # of a new folder for every repeat

    def stage(name: str, work: Callable[[], Any]) -> Any:
        measured[name], result = timed(work)
        return result

    config = PhantomConfig("b", patients=patients, size=SIZE)

    def draw() -> Path:
        write_phantom(config, out := folder / f"drawn-{next(number)}")
        return out

    write_folder(open_dataset(stage("draw", draw)), folder / "hospital")
    listing = stage("list the folder", lambda: hospital_folder.scan(folder / "hospital"))

    def convert_it() -> Path:
        convert(listing, out := folder / f"converted-{next(number)}", size=SIZE)
        return out

    with Memory(largest_worker) as worker:
        converted = stage("convert", convert_it)
    measured["a worker of convert"] = {"MB": worker.most}

    def open_it() -> Dataset:
        dataset = open_dataset(converted)
        dataset.metadata()
        return dataset

    dataset = stage("open, metadata", open_it)
    protocol = ProtocolConfig(min_pool=2, min_held_out=2)
    stage("build the task", lambda: build_task(dataset, protocol, held_out="val", largest_size=VIEW))
    backbone = create_backbone("resnet_small", 0)
    stage("read, features", lambda: extract_features(backbone, dataset.pixels(), VIEW, "cpu"))
    before = object_store()
    with Memory(largest_worker) as worker:
        feed = stage("load the feed", lambda: load_feed(dataset, largest_size=SIZE))
    measured["a worker of the feed"] = {"MB": worker.most}
    measured["object store"] = {"MB": object_store() - before}
    training = PretrainConfig(image_size=VIEW, epochs=1, report_epochs=1, batch_size=64)
    recipe = default_settings(training, feed.images).recipe

    def epoch() -> None:
        run = folder / f"run-{next(number)}"
        pretrain(recipe, feed.open(), run, device=torch.device("cpu"), report=lambda _: None)

    stage("an epoch", epoch)
    return feed.images, measured


def object_store() -> float:
    """What lies in Ray's object store, in MB."""
    state = internal_api.get_state_from_address(ray.get_runtime_context().gcs_address)
    return float(internal_api.get_memory_info_reply(state).store_stats.object_store_bytes_used) / 2**20


def write_folder(dataset: Dataset, out: Path) -> None:
    """The dataset as a hospital's folder: a PNG file an image, and a table."""
    out.mkdir()
    table = dataset.metadata()
    for name, image in zip(table["image_id"], dataset.pixels(), strict=True):
        Image.fromarray(image).save(out / f"{name}.png")
    labels = ["|".join(found) or "No Finding" for found in table["labels"]]
    table = table[["image_id", "patient_id", "view", "sex", "age"]].assign(labels=labels)
    table.to_csv(out / "labels.csv", index=False)


def measure_images(patients: Sequence[int]) -> Growth:
    """The stages of hospitals with so many patients, in turn."""
    with tempfile.TemporaryDirectory() as name, quiet(), local_cluster(cpus=os.cpu_count()):
        image_stages(Path(name, "warm"), 60)
        return gather(image_stages(Path(name, str(number)), size) for number, size in enumerate(patients))


@contextlib.contextmanager
def searches() -> Iterator[Search]:
    """A cluster, images, a task, and a function that runs one search of so many short trials, so many at a time."""
    prepare_ray()
    number = count()
    with tempfile.TemporaryDirectory() as name, quiet():
        hospitals = [Path(name, hospital) for hospital in "ab"]
        write_phantom(PhantomConfig("a", patients=60, size=VIEW, prevalence=0.35), hospitals[0])
        write_phantom(PhantomConfig("b", patients=60, size=VIEW, prevalence=0.35), hospitals[1])
        protocol = ProtocolConfig(shots=(1, 5), search_seeds=2, test_seeds=2, min_pool=5, min_held_out=2)
        task = build_task(open_dataset(hospitals[1]), protocol, held_out="val")
        with local_cluster(cpus=CPUS):
            feed = load_feed(open_dataset(hospitals[0]), largest_size=VIEW)

            def run(trials: int, concurrent: int) -> tuple[Path, Measured]:
                config = SweepConfig(
                    data=DataConfig(*map(str, hospitals)),
                    pretrain=PretrainConfig(image_size=VIEW, epochs=2, batch_size=32, report_epochs=0.5),
                    search=SearchConfig(trials=trials),
                    protocol=protocol,
                    run=RunConfig(name=f"run-{next(number)}", out=name),
                )
                base, space = default_settings(config.pretrain, feed.images), search_space(config.pretrain)
                context = TrialContext(config, base, ("a", "b"), Path(name, config.run.name), 1.0, 0.0)
                plan = Plan(cpus=1.0, gpus=0.0, workers=1, concurrent=concurrent)
                started, cpu = time.perf_counter(), time.process_time()
                with Memory(everything, period=0.5) as memory:
                    run_search(context, plan, feed, task, space=space, points=[values_of(base, space)])
                driver = {"s": time.process_time() - cpu - memory.cpu_s}
                return context.folder, {
                    "the search": {"s": time.perf_counter() - started, "MB": memory.grown},
                    "its driver's CPU": driver,
                }

            run(1, 1)
            yield run


def measure_trials(run: Search, numbers: Sequence[int]) -> Growth:
    """Searches of so many trials, two at a time, and the table of their trials."""

    def one(trials: int) -> tuple[int, Measured]:
        folder, measured = run(trials, 2)
        table, _ = timed(lambda: write_trials_table(folder / "trials.parquet", read_trials(folder), {}, epochs=2))
        return trials, {**measured, "read and table": table}

    return gather(map(one, numbers))


def measure_concurrent(run: Search, numbers: Sequence[int]) -> Growth:
    """Searches of eight trials, so many at a time."""
    return gather((size, run(TRIALS_OF_CONCURRENT, size)[1]) for size in numbers)


def gather(measured: Iterator[tuple[int, Measured]]) -> Growth:
    """Quantities of several sizes. Of a size measured twice the mean time, and the most memory: reuse hides some."""
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for size, quantities in measured:
        for name, of_unit in quantities.items():
            for unit, value in of_unit.items():
                values.setdefault((name, unit), {}).setdefault(size, []).append(value)
    growth: Growth = {}
    for (name, unit), by_size in values.items():
        join = np.max if unit == "MB" else np.mean
        growth.setdefault(name, {})[unit] = [(size, float(join(by_size[size]))) for size in sorted(by_size)]
    return growth


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the project says on its way is no result of this script."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def print_rows(of: str, growth: Growth) -> None:
    """One row of the table a quantity."""
    for name, by_unit in growth.items():
        parts = []
        for unit, what in (("s", "time"), ("MB", "memory")):
            points = by_unit.get(unit, [])
            if points and is_seen(unit, points):
                fitted, last = exponents(points)
                grown = " to ".join(f"{points[end][1]:.3g}" for end in (0, -1))
                parts.append(f"{what} {fitted:.2f}, largest two {last:.2f} ({grown} {unit})")
            elif points:
                parts.append(f"{what} under {LEAST_MB:.0f} MB")
        sizes = " to ".join(f"{next(iter(by_unit.values()))[end][0]:,}" for end in (0, -1))
        row(f"growth of {name} with {sizes} {of}", "linear growth", "; ".join(parts), f"at most {AT_MOST}")


def main() -> None:
    """Measure, print the rows, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all three sizes of each")
    parser.add_argument("--plot", type=Path, help="where to draw the figure")
    arguments = parser.parse_args()

    def order(sizes: Sequence[int]) -> Sequence[int]:
        return [*sizes, *sizes[-2::-1]] if arguments.full else sizes[:2]

    growths = {"images": measure_images(order(PATIENTS))}
    with searches() as run:
        growths["trials"] = measure_trials(run, order(TRIALS))
        growths["trials at a time"] = measure_concurrent(run, order(CONCURRENT))
    for of, growth in growths.items():
        print_rows(of, growth)
    if arguments.plot:
        growth_figure(growths).savefig(arguments.plot)


if __name__ == "__main__":
    main()
