"""The pretraining loop. Plain PyTorch: it runs in a notebook, in a Tune trial and under Ray Train alike.

A step is a function of the seed and of its own number: which images, which views, which learning rate. Resuming is
therefore loading the state and counting on, also in the middle of an epoch, and gives the same numbers to the bit on
CPU as a run that was never stopped (with the same number of threads). On CUDA, kernels that sum in any order and
bfloat16 make runs agree only in distribution.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scarce.backbones import create_backbone, feature_dim
from scarce.checkpoint import load_last_checkpoint, save_checkpoint
from scarce.config import PretrainConfig
from scarce.data.pixels import Pixels
from scarce.distributed import join_batch_norms, rank, world_size
from scarce.methods import Method, MethodConfig, OptimiserConfig, find_method
from scarce.views import ViewConfig, draw_parameters, make_views, resize, to_input

Metrics = dict[str, float]
Report = Callable[[Metrics], None]
Evaluate = Callable[[nn.Module], Metrics]

MONITORED_IMAGES = 256


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a pretraining run computes, images apart."""

    pretrain: PretrainConfig
    method: MethodConfig
    optimiser: OptimiserConfig
    views: ViewConfig


def pretrain(
    recipe: Recipe,
    images: Pixels,
    folder: Path,
    *,
    device: torch.device,
    report: Report,
    evaluate: Evaluate | None = None,
) -> Method:
    """Pretrain on unlabelled images, from the last checkpoint in `folder` if there is one.

    Args:
        recipe: what to do.
        images: uint8 pixels; nothing else is known of them.
        folder: the run's own; checkpoints go there.
        device: where to train. With several workers each has its own.
        report: is given the metrics of every report, those before a restart included, in order.
        evaluate: measures the backbone (in eval mode) at every report; `val_auc` among them decides the best
            checkpoint. Called by the first worker only.

    Returns:
        The trained method; its `backbone` is what pretraining is for.
    """
    config = recipe.pretrain
    torch.manual_seed(config.seed)
    method = build_method(recipe).to(device).to(memory_format=torch.channels_last)
    if world_size() > 1 and method.JOINS_BATCH_NORM:
        join_batch_norms(method, device)
    optimiser = build_optimiser(method, recipe.optimiser, config.batch_size, device)
    total_steps = count_steps(config, len(images))
    steps_per_epoch = total_steps // config.epochs
    report_steps = max(1, round(config.report_epochs * steps_per_epoch))
    monitored = torch.from_numpy(images.gather(_monitored(len(images), config.seed)))

    step, history = 0, []
    state = load_last_checkpoint(folder, device)
    if state is not None:
        step, history = state["step"], state["history"]
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"].cpu())
    for metrics in history:
        report(metrics)

    # Buffers are not broadcast: batch-norm statistics are joined or the method's own affair, queues are equal anyway.
    wrapped = method if world_size() == 1 else DistributedDataParallel(method, broadcast_buffers=False)
    losses: list[Tensor] = []
    started, clock = step, time.perf_counter()
    while step < total_steps:
        method.train()
        first, second = next_views(images, recipe, step, device)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe.optimiser, config, step, total_steps)
        with autocast(config, device):
            loss = wrapped(first, second)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.optimiser.clip_norm > 0:
            nn.utils.clip_grad_norm_(method.parameters(), recipe.optimiser.clip_norm)
        optimiser.step()
        method.after_step()
        losses.append(loss.detach())
        step += 1

        if step % report_steps == 0 or step == total_steps:
            mean_loss = float(torch.stack(losses).mean())  # the only wait for the device since the last report
            if not math.isfinite(mean_loss):
                raise FloatingPointError(f"the loss is {mean_loss} at step {step}: lower the learning rate")
            seconds = time.perf_counter() - clock
            metrics = {
                "epoch": step / steps_per_epoch,
                "step": float(step),
                "loss": mean_loss,
                "lr": optimiser.param_groups[0]["lr"],
                "images_per_s": (step - started) * config.batch_size / seconds,
                **embedding_statistics(method.backbone, monitored, config.image_size, device),
            }
            if rank() == 0:
                metrics |= {} if evaluate is None else evaluate(method.backbone.eval())
                history.append(metrics)
                scores = [m["val_auc"] for m in history if "val_auc" in m]
                state = {
                    "step": step,
                    "history": history,
                    "method": method.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "rng": torch.get_rng_state(),
                }
                best = not scores or metrics["val_auc"] >= max(scores)
                save_checkpoint(folder, step, state, best)
            report(metrics)
            losses.clear()
            started, clock = step, time.perf_counter()
    return method


def count_steps(config: PretrainConfig, images: int) -> int:
    """Optimiser steps of a whole run; an epoch's last, incomplete batch is left out."""
    return config.epochs * max(1, images // config.batch_size)


def build_method(recipe: Recipe) -> Method:
    """The method with a fresh backbone, both initialised from the recipe's seed; on the CPU."""
    config = recipe.pretrain
    backbone = create_backbone(config.backbone, config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return find_method(config.method)(backbone, feature_dim(config.backbone), recipe.method)


def build_optimiser(
    method: Method, config: OptimiserConfig, batch_size: int, device: torch.device
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trained parameters; weight decay on matrices and filters only."""
    trained = [p for p in method.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = device.type == "cuda"
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)


def learning_rate(optimiser: OptimiserConfig, config: PretrainConfig, step: int, total_steps: int) -> float:
    """The rate of a step: linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017, equation 5).

    The peak grows in proportion to the batch (Goyal et al. 2017, section 2.1).
    """
    peak = optimiser.lr * config.batch_size / optimiser.reference_batch
    warmup = total_steps * min(0.1, optimiser.warmup_epochs / config.epochs)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total_steps - warmup)))


def next_views(images: Pixels, recipe: Recipe, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """This worker's share of the two views of a step's batch, float32 [B / workers, 1, S, S] each.

    Every epoch is a new permutation. All workers draw the whole batch's
    parameters and take their own part, so the views do not depend on how many workers there are (pixel noise does).
    """
    config = recipe.pretrain
    batch = min(config.batch_size, len(images))
    epoch, position = divmod(step, count_steps(config, len(images)) // config.epochs)
    order = np.random.default_rng([config.seed, 1, epoch]).permutation(len(images))
    share = batch // world_size()
    mine = slice(rank() * share, (rank() + 1) * share)
    index = order[position * batch : (position + 1) * batch][mine]
    pixels = torch.from_numpy(images.gather(index)).to(device)
    views = []
    for view in (0, 1):
        generator = _generator([config.seed, 2, step, view], torch.device("cpu"))
        parameters = draw_parameters(batch, config.image_size, recipe.views, generator).rows(mine).to(device)
        noise = _generator([config.seed, 3, step, view, rank()], device)
        x = make_views(pixels, config.image_size, recipe.views, parameters, noise)
        views.append(x.contiguous(memory_format=torch.channels_last))
    return views[0], views[1]


def autocast(config: PretrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the config or the device asks for it."""
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


@torch.inference_mode()
def embedding_statistics(backbone: nn.Module, monitored: Tensor, image_size: int, device: torch.device) -> Metrics:
    """Whether the features of some fixed images still differ: the signs of collapse.

    `embedding_std` is the mean over dimensions of the standard deviation of unit-length features, times the root of
    the dimension (1 when spread evenly over the sphere, 0 when collapsed; Chen and He 2021, section 4.1).
    `mean_cosine` is the mean cosine between two different images. `effective_rank` is the exponential of the entropy
    of the normalised singular values of the centred features (Roy and Vetterli 2007, definition 1).

    Args:
        backbone: put into eval mode.
        monitored: uint8 [N, H, W], N >= 2.
    """
    x = to_input(resize(monitored.to(device), image_size)).contiguous(memory_format=torch.channels_last)
    features = F.normalize(backbone.eval()(x).float(), dim=1)
    count, dim = features.shape
    cosines = features @ features.T
    singular = torch.linalg.svdvals(features - features.mean(dim=0))
    share = singular / singular.sum().clamp(min=1e-12)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return {
        "embedding_std": float(features.std(dim=0).mean()) * math.sqrt(dim),
        "mean_cosine": float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))),
        "effective_rank": float(entropy.exp()),
    }


def _monitored(count: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng([seed, 0]).permutation(count)[:MONITORED_IMAGES])


def _generator(key: list[int], device: torch.device) -> torch.Generator:
    """A generator whose stream is a function of `key`: neighbouring keys give unrelated streams."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) & (2**63 - 1))
