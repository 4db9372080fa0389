"""Two workers (gloo, CPU) against one worker on the joined batch."""

import copy
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scarce.backbones import SmallResNet
from scarce.distributed import gather, join_batch_norms, rank
from scarce.methods import REGISTRY, Method
from scarce.methods.moco import MoCoConfig

CPU = torch.device("cpu")


def make_method(name: str) -> Method:
    torch.manual_seed(0)
    config = MoCoConfig(dim=8, queue=32) if name == "moco" else REGISTRY[name].Config()
    method = REGISTRY[name](SmallResNet((8, 8, 16, 16)), 16, config).double()
    if name == "moco":  # MoCo's batch norm is each worker's own by definition: compare without it
        for module in method.modules():
            for key, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, key, nn.GroupNorm(2, child.num_features).double())
        method.key_encoder = copy.deepcopy(nn.Sequential(method.backbone, method.projector)).requires_grad_(False)
    return method


def make_views() -> torch.Tensor:
    return torch.randn(2, 12, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def result_of(method: Method, wrapped: nn.Module, first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
    loss = wrapped(first, second)
    loss.backward()
    method.after_step()
    result = {f"grad {k}": p.grad for k, p in method.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **result, **dict(method.named_buffers())}


def worker(number: int, port: int, name: str, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=number, world_size=2)
    try:
        method = make_method(name)
        if method.JOINS_BATCH_NORM:
            join_batch_norms(method, CPU)
        first, second = make_views().view(2, 2, 6, 1, 32, 32)[:, rank()]
        result = result_of(method, DistributedDataParallel(method, broadcast_buffers=False), first, second)
        result["loss"] = gather(result["loss"].view(1)).mean()
        torch.save(result, f"{out}/{number}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_two_workers_equal_one_on_the_joined_batch(name, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, name, str(tmp_path)), nprocs=2)
    method = make_method(name)
    expected = result_of(method, method, *make_views())
    for number in (0, 1):
        result = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert result.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(result[key], value, atol=1e-5, rtol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
