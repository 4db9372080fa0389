"""Two workers (gloo, CPU) against one worker on the joined batch."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scarce.backbones import small_resnet
from scarce.distributed import gather, join_batch_norms, rank
from scarce.methods import REGISTRY, Method
from scarce.views import ViewConfig

CPU = torch.device("cpu")


# Small heads, and no pixel of view noise: views are given.
SMALL: dict[str, dict[str, Any]] = {
    "moco": {"dim": 8, "queue": 32},
    "moco_plain": {"dim": 8, "queue": 32},
    "moco_v3": {"dim": 8},
    "byol": {"dim": 8},
    "dino": {"prototypes": 16, "bottleneck": 8, "local_views": 2},
    "spark": {"decoder_width": 32},
}


def make_method(name: str) -> Method:
    torch.manual_seed(0)
    backbone = small_resnet((8, 8, 16, 16))
    if not REGISTRY[name].JOINS_BATCH_NORM:  # batch norm is each worker's own by definition: compare without it
        for module in backbone.modules():
            for key, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, key, nn.GroupNorm(2, child.num_features))
    method = REGISTRY[name](backbone, REGISTRY[name].Config(**SMALL.get(name, {}))).double()
    method.progress = 0.25
    return method


def make_views(method: Method) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = [size for size, _ in method.views(32, ViewConfig())]
    return [torch.randn(12, 1, size, size, dtype=torch.float64, generator=generator) for size in sizes]


def result_of(method: Method, wrapped: nn.Module, views: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    loss = wrapped(*views)
    loss.backward()
    method.after_step()
    result = {f"grad {k}": p.grad for k, p in method.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **result, **dict(method.named_buffers())}


def worker(number: int, port: int, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=number, world_size=2)
    try:
        for name in sorted(REGISTRY):
            method = make_method(name)
            if method.JOINS_BATCH_NORM:
                join_batch_norms(method, CPU)
            mine = [view[6 * rank() : 6 * rank() + 6] for view in make_views(method)]
            result = result_of(method, DistributedDataParallel(method, broadcast_buffers=False), mine)
            result["loss"] = gather(result["loss"].view(1)).mean()
            torch.save(result, f"{out}/{name}-{number}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what each of two workers came to, method by method."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_two_workers_equal_one_on_the_joined_batch(name, results):
    method = make_method(name)
    expected = result_of(method, method, make_views(method))
    for number in (0, 1):
        result = torch.load(results / f"{name}-{number}.pt", weights_only=True)
        assert result.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(result[key], value, atol=1e-5, rtol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
