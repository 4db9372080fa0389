"""Which packing of trials on one device gives the most trials an hour: so many at a time, with this batch size.

A packing is measured by doing it: that many processes start, build the method and warm up, then train together on
made-up pixels for a few seconds. What counts is the images of all of them within the time that all of them trained.
"""

import itertools
import math
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from scarce.data.pixels import Pixels
from scarce.errors import UserError
from scarce.packing_config import PackingConfig
from scarce.pretrain import (
    Recipe,
    build_method,
    build_optimiser,
    count_held_out,
    count_steps,
    dtype_of,
    next_views,
    train_step,
)
from scarce.settings import default_settings

WARM_UP_STEPS = 3
WINDOWS = 3  # parts of a measurement, for its spread

Steps = Callable[[Recipe, Pixels, torch.device], Iterator[float]]


@dataclass(frozen=True)
class Packing:
    """So many trials at a time on one device, and what each gets of it."""

    at_once: int
    batch_size: int
    cpus: float  # each; the sweep's --cpus-per-trial
    gpus: float  # each, a share of the one GPU and of its memory; 0 on a CPU

    @property
    def threads(self) -> int:
        """As many as a trial of the sweep uses."""
        return max(1, int(self.cpus))

    @property
    def flags(self) -> str:
        """What to tell the sweep."""
        place = f"--gpus-per-trial {self.gpus:g}" if self.gpus else f"--concurrent {self.at_once}"
        return f"{place} --cpus-per-trial {self.cpus:g} --batch-size {self.batch_size}"


@dataclass(frozen=True)
class Row:
    """A packing and what was measured."""

    packing: Packing
    rates: tuple[float, ...]  # images/s of all trials together, one a window; none: they ran out of memory
    peak_bytes: int  # of the trial with the most: allocated on the GPU, or resident; 0: unknown
    trial_images: int  # images that one trial trains on, each as often as it is seen

    @property
    def rate(self) -> float:
        """Images/s of all trials together: the middle window's."""
        return statistics.median(self.rates)

    def trials_per_hour(self, rate: float) -> float:
        """Trials that end in an hour at so many images/s, evaluation and start-up apart."""
        return 3600 * rate / self.trial_images

    @property
    def spread(self) -> tuple[float, float]:
        """Trials an hour in the slowest and in the fastest window."""
        return self.trials_per_hour(min(self.rates)), self.trials_per_hour(max(self.rates))


def tune_packing(config: PackingConfig, images: int, side: int) -> Row:
    """Measure the packings, print what came of each, and the flags of the recommended one.

    Args:
        config: what to measure.
        images: number of pretraining images.
        side: of an image as trials hold it, pixels.

    Returns:
        The recommended packing.

    Raises:
        UserError: what was asked for cannot be trained, runs out of memory in every packing, or a trial failed.
    """
    trained = images - count_held_out(images)
    gpus = torch.cuda.device_count()
    cores = joblib.cpu_count()
    recipes = {size: make_recipe(config, size, images) for size in candidate_sizes(config, trained)}
    for recipe in recipes.values():
        build_method(recipe)  # what cannot work is refused now
    training = config.training
    device = torch.cuda.get_device_name() if gpus else "this CPU"
    print(
        f"{training.method} with {training.backbone} on {images:,} images ({trained:,} of them trained on) at "
        f"{training.image_size} px for {training.epochs:g} epochs, on {device} with {cores} core(s)"
    )
    print(HEADER, flush=True)
    rows = []
    for at_once, (size, recipe) in itertools.product(sorted(set(config.trials_at_once)), recipes.items()):
        packing = share_out(at_once, size, cores, gpus)
        trial_images = count_steps(recipe.pretrain, images) * size
        rows.append(measure(packing, recipe, trained, side, trial_images, config.seconds))
        print(line(rows[-1]), flush=True)
    chosen, others = recommend(rows, training.batch_size)
    print(
        "An hour's trials are training alone: evaluation, start-up and what pruning saves are apart.\n"
        "Another batch size learns something else, although the learning rate grows with it: it is a setting, no mere "
        "matter of speed.\n"
        f"Recommended: {named(chosen)}, {chosen.trials_per_hour(chosen.rate):.3g} trials an hour."
        + (f" Not distinguishable from the best: {'; '.join(map(named, others))}." if others else "")
    )
    print(chosen.packing.flags, flush=True)
    return chosen


def candidate_sizes(config: PackingConfig, trained: int) -> list[int]:
    """The batch sizes to try, ascending. `UserError` where one has more images than there are."""
    if trained < 2:
        raise UserError(f"--pretrain {config.pretrain}: too few images to train on, expected at least 4")
    own = config.training.batch_size
    sizes = config.batch_sizes or tuple(size for size in (own // 2, own, 2 * own) if 2 <= size <= trained)
    too_large = [size for size in sizes or (own,) if size > trained]
    if too_large:
        raise UserError(
            f"batch size {too_large[0]} is more than the {trained:,} images trained on: use --batch-sizes {trained} or "
            "less, or another --pretrain"
        )
    return sorted(set(sizes))


def make_recipe(config: PackingConfig, batch_size: int, images: int) -> Recipe:
    """The config's run with this batch size and nothing else changed."""
    return default_settings(replace(config.training, batch_size=batch_size), images).recipe


def share_out(at_once: int, batch_size: int, cores: int, gpus: int) -> Packing:
    """The packing on one of so many GPUs, or on the cores where there is none.

    More trials than cores get less than one each, which Ray takes, and one thread.
    """

    def share(whole: float) -> float:
        return math.floor(1000 * whole / at_once) / 1000  # down: all of them must fit

    cpus = share(cores / max(1, gpus))
    return Packing(at_once, batch_size, float(int(cpus)) if cpus >= 1 else cpus, share(1) if gpus else 0.0)


def recommend(rows: Sequence[Row], own_batch_size: int) -> tuple[Row, list[Row]]:
    """The packing to use, and the others that cannot be told from the best: whose spread overlaps the best one's.

    Of these it is one with the fewest trials at a time: each ends sooner, and ASHA knows more before it starts the
    next. Among those, the one with the config's own batch size, else the fastest.

    Raises:
        UserError: none fits into memory.
    """
    rows = [row for row in rows if row.rates]
    if not rows:
        raise UserError("every packing ran out of memory: use smaller --batch-sizes, --image-size or --backbone")
    best = max(rows, key=lambda row: row.trials_per_hour(row.rate))
    alike = [row for row in rows if row.spread[1] >= best.spread[0]]
    chosen = min(
        alike,
        key=lambda row: (
            row.packing.at_once,
            row.packing.batch_size != own_batch_size,
            -row.trials_per_hour(row.rate),
        ),
    )
    return chosen, [row for row in alike if row is not chosen]


HEADER = (
    f"{'at once':>7} {'GPU each':>8} {'CPU each':>8} {'threads':>7} {'batch':>6} {'images/s each':>13} "
    f"{'images/s':>9} {'trials/hour (lowest to highest)':>32} {'memory each':>11}"
)


def line(row: Row) -> str:
    """A row of the table."""
    packing = row.packing
    start = f"{packing.at_once:>7} {packing.gpus:>8g} {packing.cpus:>8g} {packing.threads:>7} {packing.batch_size:>6} "
    if not row.rates:
        return f"{start}out of memory"
    low, high = row.spread
    hourly = f"{row.trials_per_hour(row.rate):.4g} ({low:.4g} to {high:.4g})"
    memory = f"{row.peak_bytes / 1e9:.2f} GB" if row.peak_bytes else "unknown"
    return f"{start}{row.rate / packing.at_once:>13,.1f} {row.rate:>9,.1f} {hourly:>32} {memory:>11}"


def named(row: Row) -> str:
    """A row in words."""
    return f"{row.packing.at_once} at once with batch size {row.packing.batch_size}"


def step_ends(recipe: Recipe, images: Pixels, device: torch.device) -> Iterator[float]:
    """Train without end; yields when each step ended, on `time.monotonic`, which all processes share.

    On a GPU this waits for the step before the one just launched, so that the device always has work, as in a real
    run: what is yielded is then when that step ended. The difference of two of them is a step's time either way.
    """
    method = build_method(recipe).to(device, dtype_of(recipe.pretrain)).to(memory_format=torch.channels_last)
    optimiser = build_optimiser(method, recipe.optimiser, recipe.pretrain.batch_size, device)
    before: torch.cuda.Event | None = None
    for step in itertools.count():
        train_step(method, method, optimiser, recipe, next_views(images, recipe, method, step, device), device)
        if device.type == "cuda":
            if before is not None:
                before.synchronize()
            before = torch.cuda.Event()
            before.record()
        yield time.monotonic()


def measure(
    packing: Packing,
    recipe: Recipe,
    images: int,
    side: int,
    trial_images: int,
    seconds: float,
    steps: Steps = step_ends,
) -> Row:
    """Start the trials of a packing (see `start_trials`), time them together for so long, end them."""
    try:
        with start_trials(packing, recipe, images, side, steps) as trials:
            ends, peaks = trials.train(seconds)
    except OutOfMemory:
        return Row(packing, (), 0, trial_images)
    return Row(packing, window_rates(ends, packing.batch_size, WINDOWS), max(peaks), trial_images)


def window_rates(ends: Sequence[Sequence[float]], batch_size: int, windows: int) -> tuple[float, ...]:
    """Images/s of all trials together, in equal parts of the time in which all of them trained.

    Args:
        ends: when each trial's steps ended, seconds on a common clock; the first one only starts the count. At least
            two a trial.
        batch_size: images a step.
        windows: number of parts. A step that lies in two counts in both, in proportion.
    """
    edges = np.linspace(max(trial[0] for trial in ends), min(trial[-1] for trial in ends), windows + 1)
    steps = sum(np.interp(edges, trial, np.arange(len(trial))) for trial in ends)
    return tuple(float(rate) for rate in batch_size * np.diff(steps) / np.diff(edges))


def made_up_pixels(images: int, side: int) -> Pixels:
    """So many square uint8 images of noise: what they show costs a step nothing. Each is the last, shifted by a row."""
    noise = np.random.default_rng(0).integers(0, 256, (images + side - 1, side), dtype=np.uint8)
    return Pixels([np.lib.stride_tricks.sliding_window_view(noise, side, axis=0).transpose(0, 2, 1)])


class OutOfMemory(Exception):
    """A trial of the packing did not get the memory it asked for, or was killed for taking it."""


@dataclass(frozen=True)
class _Failure:
    """What a trial's process sends instead of an answer."""

    text: str
    of_memory: bool


class Trials:
    """Processes that have warmed up and wait; see `start_trials`."""

    def __init__(self, packing: Packing, members: Sequence[tuple[SpawnProcess, Connection]]) -> None:
        self._packing = packing
        self._members = members

    def wait(self) -> None:
        """Wait until all have warmed up, once."""
        self._answers()

    def train(self, seconds: float) -> tuple[list[list[float]], list[int]]:
        """Let all train together for at least so long, and then wait again.

        Returns:
            When each trial's steps ended, as `window_rates` takes it, and each one's peak memory so far in bytes.
        """
        self._tell(seconds)
        self._answers()  # all have trained for so long
        self._tell("stop")
        answers = self._answers()
        return [ends for ends, _ in answers], [peak for _, peak in answers]

    def _tell(self, message: object) -> None:
        for _, connection in self._members:
            with suppress(BrokenPipeError):  # a process that has died is noticed where its answer is due
                connection.send(message)

    def _answers(self) -> list[Any]:
        return [self._answer(process, connection) for process, connection in self._members]

    def _answer(self, process: SpawnProcess, connection: Connection) -> Any:
        asked = f"{self._packing.at_once} trial(s) at once with batch size {self._packing.batch_size}"
        try:
            answer = connection.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            if process.exitcode == -signal.SIGKILL:  # the kernel's way when memory runs short
                raise OutOfMemory(asked) from None
            raise UserError(f"{asked}: a trial's process died with exit code {process.exitcode}") from None
        if isinstance(answer, _Failure):
            if answer.of_memory:
                raise OutOfMemory(f"{asked}: {answer.text}")
            raise UserError(f"{asked}: a trial failed: {answer.text}")
        return answer


@contextmanager
def start_trials(
    packing: Packing, recipe: Recipe, images: int, side: int, steps: Steps = step_ends
) -> Iterator[Trials]:
    """Start a packing's trials, each in a process of its own, and wait until they have warmed up.

    The processes end with the block, whatever ends it, and by themselves when this process dies.

    Args:
        packing: how many, and what each gets.
        recipe: what each trains.
        images: number of made-up images to train on; at least a batch.
        side: of one, pixels.
        steps: trains without end and yields when each step ended; can be pickled.

    Raises:
        OutOfMemory: they do not fit.
        UserError: one failed otherwise.
    """
    context = multiprocessing.get_context("spawn")
    members: list[tuple[SpawnProcess, Connection]] = []
    try:
        # Ctrl-C reaches every process of the terminal. This one ends the others; they would each print a traceback.
        resource_tracker.ensure_running()  # or the first start would run it, and it unblocks the signal
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(packing.at_once):
                ours, theirs = context.Pipe()
                job = (theirs, packing, recipe, images, side, steps)
                process = context.Process(target=_run_trial, args=job, daemon=True)
                members.append((process, ours))
                process.start()
                theirs.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        trials = Trials(packing, members)
        trials.wait()
        yield trials
    finally:
        for process, _ in members:
            if process.pid is not None:
                process.kill()
        for process, connection in members:
            if process.pid is not None:
                process.join()
            connection.close()


def _run_trial(connection: Connection, packing: Packing, recipe: Recipe, images: int, side: int, steps: Steps) -> None:
    """A trial's process: warm up, then train whenever told to and until told to stop."""
    try:
        torch.set_num_threads(packing.threads)
        device = torch.device("cpu")
        if packing.gpus:
            from scarce.trial import worker_device  # takes Ray along, which costs seconds

            device = worker_device(packing.gpus)
        running = steps(recipe, made_up_pixels(images, side), device)
        for _ in range(WARM_UP_STEPS):
            next(running)
        connection.send("ready")
        while True:
            seconds = connection.recv()
            ends = [next(running)]
            trained = False
            while not connection.poll():
                ends.append(next(running))
                if not trained and ends[-1] >= ends[0] + seconds and len(ends) > WINDOWS:
                    connection.send("trained")
                    trained = True
            connection.recv()
            connection.send((ends, _peak_bytes(device)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # nobody is left to tell
    except Exception as error:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f" ({Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno})" if where is not None else ""
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}{place}"
        connection.send(_Failure(text, ran_out_of_memory(error)))


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an exception says so: Python's and torch's own, or those of torch's CPU allocator, cuDNN and cuBLAS."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # getrusage's maximum counts the parent's memory before the start as well
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
