"""Whether the machines at hand can hold a sweep: CPUs, GPUs and disk, with the arithmetic in every refusal."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scarce.checkpoint import KEPT
from scarce.config import SearchConfig
from scarce.errors import UserError
from scarce.pretrain import Recipe, build_method

DEFAULT_GPU_SHARE = 0.25
DRIVER_CPUS = 0.001  # what a trial's own process asks for when its workers are elsewhere; Ray refuses 0


@dataclass(frozen=True)
class Plan:
    """How trials are placed."""

    cpus: float  # a training worker; of several, each gives up a little so that all drivers fit beside them
    gpus: float  # a training worker
    workers: int  # a trial
    concurrent: int  # trials at a time

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Tune reserves for the trial's own process."""
        if self.workers > 1:
            return {"cpu": DRIVER_CPUS}
        return {"cpu": self.cpus, **({"gpu": self.gpus} if self.gpus else {})}

    def holds_worker(self, node: Mapping[str, float]) -> bool:
        """Whether a node, given by its Ray resources, can ever hold one of the workers."""
        return _workers_on(node, self.cpus, self.gpus) > 0


def plan_resources(search: SearchConfig, nodes: Sequence[Mapping[str, float]]) -> Plan:
    """Place trials on nodes, each given by its Ray resources ("CPU", "GPU").

    Raises:
        UserError: no placement can satisfy the request, however long it waits.
    """
    has_gpu = any(node.get("GPU", 0) > 0 for node in nodes)
    gpus = search.gpus_per_trial if search.gpus_per_trial is not None else (DEFAULT_GPU_SHARE if has_gpu else 0.0)
    room = sum(_workers_on(node, search.cpus_per_trial, gpus) for node in nodes)
    asked = f"{search.workers_per_trial} worker(s) a trial, each with {search.cpus_per_trial:g} CPU and {gpus:g} GPU"
    largest = ", ".join(f"{node.get('CPU', 0):g} CPU + {node.get('GPU', 0):g} GPU" for node in nodes)
    if room < search.workers_per_trial:
        raise UserError(
            f"no placement can hold {asked}: the nodes have {largest}, room for {room} such worker(s). "
            "Lower --cpus-per-trial, --gpus-per-trial or --workers-per-trial, add nodes, or, where an autoscaler does, "
            "say which by --autoscale"
        )
    at_once = room // search.workers_per_trial
    if search.concurrent > at_once:
        raise UserError(
            f"--concurrent {search.concurrent} with {asked} needs room for "
            f"{search.concurrent * search.workers_per_trial} worker(s): the nodes have {largest}, room for {room}. "
            f"Use --concurrent {at_once} or less"
        )
    concurrent = min(search.concurrent or at_once, search.trials)
    # The drivers may all come to lie on one node, which must hold as many workers as before.
    cpus = search.cpus_per_trial - (DRIVER_CPUS * concurrent if search.workers_per_trial > 1 else 0)
    return Plan(cpus, gpus, search.workers_per_trial, concurrent)


def check_disk(folder: Path, recipe: Recipe, trials: int) -> str:
    """Estimate the checkpoints of a sweep; one line for the log. `UserError` if the disk cannot hold them."""
    method = build_method(recipe)
    trained = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
    held = sum(value.numel() * value.element_size() for value in method.state_dict().values())
    moments = {"sgd": 1, "adamw": 2}[recipe.optimiser.name]
    files = KEPT + 1
    needed = (held + moments * trained) * files * trials
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    line = (
        f"checkpoints need up to {needed / 1e9:.2g} GB ({trials} trials x {files} files x "
        f"{(held + moments * trained) / 1e6:.3g} MB), {free / 1e9:.3g} GB are free in {existing}"
    )
    if needed > free:
        raise UserError(f"{line}: use --out on a larger disk, or fewer --trials")
    return line


def _workers_on(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / cpus + 1e-9)
    if not gpus:
        return by_cpu
    # A share of a GPU never spans two GPUs.
    whole = int(node.get("GPU", 0))
    by_gpu = whole * math.floor(1 / gpus + 1e-9) if gpus <= 1 else whole // int(gpus)
    return min(by_cpu, by_gpu)
