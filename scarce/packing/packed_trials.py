"""Trials packed on one device: processes that train side by side, and when their steps ended."""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarce.data.pixels import Pixels
from scarce.errors import UserError
from scarce.pretrain import Recipe, next_views, set_up, train_step

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


def step_ends(recipe: Recipe, images: Pixels, device: torch.device) -> Iterator[float]:
    """Train without end; yields when each step ended, on `time.monotonic`, which all processes share.

    On a GPU this waits for the step before the one just launched, so that the device always has work, as in a real
    run: what is yielded is then when that step ended. The difference of two of them is a step's time either way.
    """
    method, optimiser = set_up(recipe, device)
    before: torch.cuda.Event | None = None
    for step in itertools.count():
        train_step(method, method, optimiser, recipe, next_views(images, recipe, method, step, device), device)
        if device.type == "cuda":
            if before is not None:
                before.synchronize()
            before = torch.cuda.Event()
            before.record()
        yield time.monotonic()


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
