"""The pretraining loop. Plain PyTorch: it runs in a notebook, in a Tune trial and under Ray Train alike.

A step is a function of the seed and of its own number: which images, which views, which learning rate. Resuming is
therefore loading the state and counting on, also in the middle of an epoch, and gives the same numbers to the bit on
CPU as a run that was never stopped (with the same number of threads). On CUDA, kernels that sum in any order and
bfloat16 make runs agree only in distribution.
"""

import functools
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scarce.allocator import keep_freed_memory
from scarce.backbones import check_image_size, create_backbone
from scarce.checkpoint import load_last_checkpoint, mend_history, save_checkpoint
from scarce.collapse import collapse_reason, measure
from scarce.config import PretrainConfig
from scarce.data.pixels import Pixels
from scarce.distributed import broadcast_from_first, join_batch_norms, rank, sum_over_workers, world_size
from scarce.methods import Method, MethodConfig, OptimiserConfig, find_method
from scarce.transfer import to_device
from scarce.views import ViewConfig, draw_parameters, make_views

Metrics = dict[str, Any]  # numbers, but for what an evaluation names, such as its probe
Report = Callable[[Metrics], None]
Evaluate = Callable[[nn.Module], Metrics]

LEAVE_STEPS = 4  # of several workers; of the 30 s that a spot machine has, a few steps are a few
MONITORED_IMAGES = 256  # at most, and at most a tenth of all


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
    stop_on_collapse: bool = False,
    micro_batch: int | None = None,
    beat: Callable[[], None] = lambda: None,
    must_leave: Callable[[], bool] = lambda: False,
) -> Method:
    """Pretrain on unlabelled images, from the last checkpoint in `folder` if there is one.

    Args:
        recipe: what to do.
        images: uint8 pixels; nothing else is known of them. A few are held out to watch for collapse on.
        folder: the run's own; checkpoints go there.
        device: where to train. With several workers each has its own.
        report: is given the metrics of every report, those before a restart included, in order.
        evaluate: measures the backbone (in eval mode) at every report; `val_auc` among them decides the best
            checkpoint. Called by the first worker only.
        stop_on_collapse: end the run after the report at which `scarce.collapse` calls it dead.
        micro_batch: at most so many images (over all workers) are in memory at a time, see `train_step`; by default
            a whole batch.
        must_leave: asked after every step; where it says so (on any worker), a checkpoint is saved at once, also
            between two reports.
        beat: called whenever the run has got further, and while it waits for room on a full disk.

    Raises:
        Preempted: had to leave; the next call with the same folder goes on from that very step.
        FloatingPointError: the loss or the weights are not finite any more.

    Returns:
        The trained method; its `backbone` is what pretraining is for.
    """
    config = recipe.pretrain
    torch.manual_seed(config.seed)
    method, optimiser = set_up(recipe, device)
    watched, images = hold_out(images, recipe, method, device)
    steps_per_epoch = steps_an_epoch(config, len(images))
    total_steps = whole_steps(config.epochs, steps_per_epoch)
    report_steps = whole_steps(config.report_epochs, steps_per_epoch)

    batch = min(config.batch_size, len(images))
    parts = math.ceil(batch / (micro_batch or batch))

    step, history, losses = 0, [], list[Tensor]()
    state = load_last_checkpoint(folder, device)
    if state is not None:
        step, history, losses = state["step"], state["history"], list(state.get("losses", []))
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"].cpu())
        if rank() == 0:
            mend_history(folder, history)
    for metrics in history:
        report(metrics)
    stopped = stop_on_collapse and bool(history) and history[-1]["collapsed"] == 1

    # Buffers are not broadcast: batch-norm statistics are joined or the method's own affair, queues are equal anyway.
    wrapped = method if world_size() == 1 else DistributedDataParallel(method, broadcast_buffers=False)

    def save(best: bool) -> None:
        state = {
            "step": step,
            "history": history,
            "losses": losses,  # since the last report
            "method": method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(folder, step, state, best, beat=beat)

    started, clock = step, time.perf_counter()
    while step < total_steps and not stopped:
        method.train()
        method.progress = step / total_steps
        views = next_views(images, recipe, method, step, device)
        for group in optimiser.param_groups:
            if not group["constant"]:
                group["lr"] = learning_rate(recipe.optimiser, config, step, total_steps)
        losses.append(train_step(wrapped, method, optimiser, recipe, views, device, parts))
        step += 1
        beat()

        if step % report_steps == 0 or step == total_steps:
            mean_loss = float(torch.stack(losses).mean())  # the only wait for the device since the last report
            if not math.isfinite(mean_loss):
                raise diverged(f"the loss is {mean_loss}", step, recipe)
            losses.clear()
            seconds = time.perf_counter() - clock
            metrics = {
                "epoch": step / steps_per_epoch,
                "step": float(step),
                "loss": mean_loss,
                "lr": optimiser.param_groups[0]["lr"],
                "micro_batch": float(math.ceil(batch / parts)),
                "images_per_s": (step - started) * config.batch_size / seconds,
                **measured(method, watched, step, recipe),
            }
            if rank() == 0:
                dead = method.CAN_COLLAPSE and collapse_reason([*history, metrics]) is not None
                metrics |= {"collapsed": float(dead), **({} if evaluate is None else evaluate(method.backbone.eval()))}
                history.append(metrics)
                scores = [m["val_auc"] for m in history if "val_auc" in m]
                save(best=not scores or metrics["val_auc"] >= max(scores))
            report(metrics)
            beat()
            # Only the first worker knows; the others' batch-norm statistics may be their own.
            ends = torch.tensor(metrics.get("collapsed", 0.0), device=device)
            stopped = stop_on_collapse and bool(broadcast_from_first(ends))
            started, clock = step, time.perf_counter()
        if step < total_steps and not stopped and one_must_leave(must_leave, step, device):
            if losses and rank() == 0:
                save(best=False)
            broadcast_from_first(torch.zeros((), device=device))  # no worker ends before that is done
            raise Preempted(f"this machine is about to go: left it at step {step}")
    return method


class Preempted(Exception):  # no error of the run's
    """The run had to leave its machine, and has saved all that it did there."""


def one_must_leave(must_leave: Callable[[], bool], step: int, device: torch.device) -> bool:
    """Whether any worker must leave; several ask each other every few steps only, as an answer is waited for."""
    if world_size() == 1:
        return must_leave()
    return step % LEAVE_STEPS == 0 and bool(sum_over_workers(torch.tensor(float(must_leave()), device=device)))


def measured(method: Method, watched: tuple[Tensor, Tensor], step: int, recipe: Recipe) -> Metrics:
    """The signs of collapse. FloatingPointError where the last step broke the weights, after a loss that was finite."""
    try:
        return measure(method, *watched)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise diverged("the embeddings are not finite", step, recipe) from error


def diverged(what: str, step: int, recipe: Recipe) -> FloatingPointError:
    """The error of a run whose numbers are none any more."""
    return FloatingPointError(
        f"{what} at step {step}: lower the learning rate (optimiser.lr was {recipe.optimiser.lr:.3g}), "
        "or clip gradients (optimiser.clip_norm)"
    )


def train_step(
    wrapped: nn.Module,
    method: Method,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    views: list[Tensor],
    device: torch.device,
    parts: int = 1,
) -> Tensor:
    """One optimiser step on the views; the loss, detached. `wrapped` is the method, or what joins its workers.

    In several `parts`, where a whole batch does not fit into memory, their gradients are summed before the step.
    Queues, centres, learning rates and momenta are those of the whole batch then; batch-norm statistics, negatives from
    the batch and statistics over it (SimCLR, MoCo v3, Barlow Twins, VICReg, MoCo's variance term) are each part's own.
    """
    losses = []
    for number, part in enumerate(zip(*(view.tensor_split(parts) for view in views), strict=True), start=1):
        share = len(part[0]) / len(views[0])
        last = number == parts  # before it, workers keep their gradients to themselves
        with wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) and not last else nullcontext():
            with autocast(recipe.pretrain, device):
                loss: Tensor = wrapped(*part)
            if number == 1:
                optimiser.zero_grad(set_to_none=True)
            (loss if parts == 1 else loss * share).backward()
        losses.append(loss.detach() if parts == 1 else loss.detach() * share)
    if recipe.optimiser.clip_norm > 0:
        nn.utils.clip_grad_norm_(method.parameters(), recipe.optimiser.clip_norm)
    optimiser.step()
    method.after_step()
    return losses[0] if parts == 1 else torch.stack(losses).sum()


def steps_an_epoch(config: PretrainConfig, images: int) -> int:
    """Optimiser steps an epoch; the last, incomplete batch is left out."""
    return max(1, images // config.batch_size)


def count_held_out(images: int) -> int:
    """How many of the pretraining images are not trained on but watched."""
    return min(MONITORED_IMAGES, max(2, images // 10))


def count_steps(config: PretrainConfig, images: int) -> int:
    """Optimiser steps of a whole run over so many images, held-out ones included."""
    return whole_steps(config.epochs, steps_an_epoch(config, images - count_held_out(images)))


def whole_steps(epochs: float, steps_per_epoch: int) -> int:
    """The fewest whole steps that make up so many epochs; at least one."""
    return max(1, math.ceil(epochs * steps_per_epoch - 1e-6))


def set_up(recipe: Recipe, device: torch.device) -> tuple[Method, torch.optim.Optimizer]:
    """What a run begins with: the fresh method on its device, as `train_step` wants it, and its optimiser."""
    if device.type == "cpu":
        keep_freed_memory()
    config = recipe.pretrain
    method = build_method(recipe).to(device, dtype_of(config)).to(memory_format=torch.channels_last)
    if world_size() > 1 and method.JOINS_BATCH_NORM:
        join_batch_norms(method, device)
    return method, build_optimiser(method, recipe.optimiser, config.batch_size, device)


def build_method(recipe: Recipe) -> Method:
    """The method with a fresh backbone, both initialised from the recipe's seed; on the CPU.

    Raises:
        UserError: method, backbone and image size do not go together.
    """
    config = recipe.pretrain
    backbone = create_backbone(config.backbone, config.seed)
    check_image_size(backbone, config.backbone, config.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = find_method(config.method)(backbone, recipe.method)
    method.views(config.image_size, recipe.views)
    return method


def build_optimiser(
    method: Method, config: OptimiserConfig, batch_size: int, device: torch.device
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trained parameters; weight decay on matrices and filters only."""
    trained = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    peak = config.lr * batch_size / config.reference_batch
    groups = [
        {
            "params": [p for name, p in trained if (p.dim() > 1) == decays and _constant(method, name) == constant],
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr": peak,
            "constant": constant,
        }
        for decays in (True, False)
        for constant in (False, True)
    ]
    groups = [group for group in groups if group["params"]]
    fused = device.type in ("cpu", "cuda")  # one pass over weights, gradients and state
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)


def _constant(method: Method, name: str) -> bool:
    return name.startswith(method.CONSTANT_LR)


def learning_rate(optimiser: OptimiserConfig, config: PretrainConfig, step: int, total_steps: int) -> float:
    """The rate of a step: linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017, equation 5).

    The peak grows in proportion to the batch (Goyal et al. 2017, section 2.1).
    """
    peak = optimiser.lr * config.batch_size / optimiser.reference_batch
    warmup = total_steps * min(0.1, optimiser.warmup_epochs / config.epochs)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total_steps - warmup)))


def next_views(images: Pixels, recipe: Recipe, method: Method, step: int, device: torch.device) -> list[Tensor]:
    """This worker's share of the views of a step's batch, float32 [B / workers, 1, S, S] each.

    Every epoch is a new permutation. All workers draw the whole batch's
    parameters and take their own part, so the views do not depend on how many workers there are (pixel noise does).
    """
    config = recipe.pretrain
    batch = min(config.batch_size, len(images))
    epoch, position = divmod(step, steps_an_epoch(config, len(images)))
    order = _order(config.seed, epoch, len(images))
    share = batch // world_size()
    mine = slice(rank() * share, (rank() + 1) * share)
    index = order[position * batch : (position + 1) * batch][mine]
    pixels = to_device(torch.from_numpy(images.gather(index)), device)
    views = []
    for number, (size, view) in enumerate(method.views(config.image_size, recipe.views)):
        generator = _generator([config.seed, 2, step, number], torch.device("cpu"))
        parameters = draw_parameters(batch, size, view, generator).rows(mine).to(device)
        noise = _generator([config.seed, 3, step, number, rank()], device)
        x = make_views(pixels, size, view, parameters, noise)
        views.append(x.to(dtype_of(config)).contiguous(memory_format=torch.channels_last))
    return views


@functools.lru_cache(maxsize=1)
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    """An epoch's permutation of the images."""
    return np.random.default_rng([seed, 1, epoch]).permutation(images)


def hold_out(
    images: Pixels, recipe: Recipe, method: Method, device: torch.device
) -> tuple[tuple[Tensor, Tensor], Pixels]:
    """Two fixed views of a few images, float32 [N, 1, S, S] each, and the other images, which are trained on."""
    config = recipe.pretrain
    chosen = np.random.default_rng([config.seed, 0]).permutation(len(images))[: count_held_out(len(images))]
    pixels = torch.from_numpy(images.gather(chosen)).to(device)
    size, view = method.views(config.image_size, recipe.views)[0]
    views = []
    for number in (0, 1):
        parameters = draw_parameters(len(chosen), size, view, _generator([config.seed, 4, number], torch.device("cpu")))
        x = make_views(pixels, size, view, parameters.to(device), _generator([config.seed, 5, number], device))
        views.append(x.to(dtype_of(config)).contiguous(memory_format=torch.channels_last))
    return (views[0], views[1]), images.without(chosen)


def dtype_of(config: PretrainConfig) -> torch.dtype:
    """What weights and views are held in; bfloat16 is only computed in."""
    return torch.float64 if config.precision == "float64" else torch.float32


def autocast(config: PretrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the config or the device asks for it."""
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def _generator(key: list[int], device: torch.device) -> torch.Generator:
    """A generator whose stream is a function of `key`: neighbouring keys give unrelated streams."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) & (2**63 - 1))
