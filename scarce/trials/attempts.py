"""Which machine and GPU worked on a trial, and when: a small file for every time that a worker took it up.

A trial that was killed with its node is taken up again elsewhere, so it may have several. They say where it went, how
trials shared the GPUs, and how much was done twice.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from scarce.distributed import rank
from scarce.files import write_json

ATTEMPTS_NAME = "attempts"


@contextmanager
def recorded_attempt(folder: Path) -> Iterator[None]:
    """Record in a trial's folder that this worker is on it, and when it leaves it for any reason but its death."""
    path = folder / ATTEMPTS_NAME / f"{time.time_ns():020d}-{rank()}.json"
    attempt = {"worker": rank(), "node": socket.gethostname(), "node_id": "", "gpus": [], "pid": os.getpid()}
    if ray.is_initialized():
        context = ray.get_runtime_context()
        attempt |= {"node_id": context.get_node_id(), "gpus": context.get_accelerator_ids().get("GPU", [])}
    attempt["started"] = time.time()
    write_json(path, attempt | {"ended": None})
    try:
        yield
    finally:
        write_json(path, attempt | {"ended": time.time()})


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """A trial's attempts in the order in which they began.

    Each has `worker` (its rank), `node` (host name), `node_id` (Ray's), `gpus` (Ray's ids of them on that node), `pid`,
    `started` and `ended` (seconds since 1970; None if it was killed or goes on).
    """
    return [json.loads(path.read_text()) for path in sorted((folder / ATTEMPTS_NAME).glob("*.json"))]


def describe_last(attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """Where a trial was last worked on, and how often it was taken up, as columns of a table."""
    last = {attempt["worker"]: attempt for attempt in attempts}.values()
    return {
        "node": ", ".join(dict.fromkeys(attempt["node"] for attempt in last)),
        "gpu": ", ".join(dict.fromkeys(gpu for attempt in last for gpu in attempt["gpus"])),
        "attempts": sum(attempt["worker"] == 0 for attempt in attempts),
    }
