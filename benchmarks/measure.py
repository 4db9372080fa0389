"""How every script here measures: a named peer and this project in the same run, alternating, and the ratio of the two.

Times on a shared machine mean nothing by themselves, and the machine's mood changes within minutes. So each repeat runs
all of them once, in an order that turns round from repeat to repeat, and a ratio is taken within the repeat.
"""

import datetime
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

OURS = "scarce"


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the peer."""

    ours: tuple[float, ...]  # rates, one a repeat
    peers: tuple[float, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """One a repeat."""
        return tuple(own / theirs for own, theirs in zip(self.ours, self.peers, strict=True))

    @property
    def median(self) -> float:
        """The middle repeat."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.values):.2f} to {max(self.values):.2f})"


def alternate(rates: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Ratio]:
    """Measure each of `rates` once a repeat, and compare `rates["scarce"]` with each of the others.

    Args:
        rates: name to a function that does its work once and returns its rate, higher is better (images/s, 1/s).
        repeats: at least 3, after one that warms up and is not counted.

    Returns:
        The ratio to each peer, by its name.
    """
    if repeats < 3:
        raise ValueError(f"expected at least 3 repeats for a spread, got {repeats}")
    measured: dict[str, list[float]] = {name: [] for name in rates}
    for repeat in range(repeats + 1):
        for name in list(rates) if repeat % 2 else reversed(rates):
            rate = rates[name]()
            if repeat:
                measured[name].append(rate)
    for name, values in measured.items():
        print(f"  {name}: {statistics.median(values):,.4g}/s ({min(values):,.4g} to {max(values):,.4g})", flush=True)
    ours = tuple(measured.pop(OURS))
    return {name: Ratio(ours, tuple(values)) for name, values in measured.items()}


class OwnProcess:
    """Work that is done in a process of its own whenever it is called, so that no side's settings are another's.

    How memory is given back to the system is such a setting (`scarce.allocator`). The process ends with the block.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        """In the process, `make` of the arguments makes the work. All of them have to be picklable."""
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare, (make, arguments))

    def __enter__(self) -> "OwnProcess":
        return self

    def __call__(self) -> Any:
        """Have the work done once; what it returns."""
        return self._pool.submit(_do).result()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


_work: list[Callable[[], Any]] = []  # of this process, where it is an `OwnProcess`


def _prepare(make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    _work.append(make(*arguments))


def _do() -> Any:
    return _work[0]()


def row(claim: str, peer: str, result: object, asked: str, bound: str = "") -> None:
    """Print one row of the table in README.md.

    Args:
        claim: what was measured, with the command's own settings where they matter.
        peer: against what.
        result: a `Ratio`, or another number as text.
        asked: what it should come to, such as "at least 3".
        bound: the lower bound of the time, by bytes over bandwidth or operations over rate, and how near we are.
    """
    print(f"| {claim} | {peer} | {result} | {asked} | {bound} | {machine()} | {datetime.date.today()} |", flush=True)


def machine() -> str:
    """The processor, or the GPU where there is one, and torch's version."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {models[0] if models else platform.processor()}, torch {torch.__version__}"
