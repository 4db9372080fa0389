"""One trial of a sweep: its folder, its pretraining under Ray Train, and what it reports to Tune and TensorBoard.

One training worker runs in the trial's own process (Ray Train's local mode: no second process to start). Several run
as a Ray Train worker group that the trial's process drives. `run_trial` is the only place that knows the difference.
Tune reuses that process for one trial after the other, and it keeps its worker group: starting either costs seconds.
"""

import gc
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from scarce.audit.shortcut_score import shortcut_score, without_thorax
from scarce.cluster.notice import Notice
from scarce.config import SweepConfig
from scarce.data.feed import Feed
from scarce.distributed import rank, world_size
from scarce.fewshot.features import extract_features
from scarce.fewshot.probe_search import search_probe
from scarce.fewshot.task import Task
from scarce.files import write_json
from scarce.memory import is_out_of_memory
from scarce.mirror import BOARDS, NOT_MIRRORED, Mirror
from scarce.pretrain import Metrics, Preempted, build_method, pretrain
from scarce.settings import Settings, Value, override
from scarce.space import Dimension
from scarce.trials.attempts import recorded_attempt
from scarce.trials.failures import failure, is_final, mark_failed, mark_out_of_memory, mark_preempted, micro_batch
from scarce.trials.records import FAILED, METRIC, PROBE_PREFIX, SETTINGS_NAME, TRIALS
from scarce.trials.watchdog import Watchdog
from scarce.watching.board import BoardWriter
from scarce.watching.live_metrics import LiveMetrics

if TYPE_CHECKING:
    from scarce.cluster.worker_group import WorkerGroup

SHOWN_IMAGES = 6  # whose views are drawn


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a sweep share; small, as the images travel by reference."""

    config: SweepConfig
    base: Settings  # the defaults, and what the user fixed
    data_digests: tuple[str, ...]
    folder: Path  # of the run, absolute
    cpus: float  # of a training worker
    gpus: float  # of a training worker; a share of one GPU, or several
    mirror: Mirror = NOT_MIRRORED  # of `folder`
    space: Mapping[str, Dimension] = field(default_factory=dict)  # that a search samples from

    @property
    def run(self) -> str:
        """What names the run wherever it goes on."""
        return self.mirror.remote.base if self.mirror.remote else str(self.folder)

    def settings(self, sampled: Mapping[str, Value]) -> Settings:
        """The settings of the trial that the sampler chose these values for."""
        return override(self.base, sampled)

    def trial_folder(self, settings: Settings) -> Path:
        """Where that trial keeps its checkpoints: its identity is its address."""
        return self.folder / TRIALS / settings.identity(self.data_digests, self.config.protocol)


def run_trial(sampled: dict[str, Value], *, context: TrialContext, feed: Feed, task: Task) -> None:
    """Tune's trainable: pretrain with the sampled settings and report the search's objectives along the way.

    What would fail again is not raised, as Tune would try it again: the last report names it, and has no objectives.
    """
    from ray import tune

    folder = context.trial_folder(context.settings(sampled))
    try:
        if failure(folder) is None:
            attempt_trial(sampled, context=context, feed=feed, task=task)
    except Exception:
        if failure(folder) is None:
            raise
    if (reason := failure(folder)) is not None:
        nothing = dict.fromkeys(("loss", METRIC, *context.config.search.objectives), math.nan)
        tune.report({**nothing, "trial": folder.name, "epoch": 0.0, "step": 0.0, FAILED: reason})


def attempt_trial(sampled: dict[str, Value], *, context: TrialContext, feed: Feed, task: Task) -> None:
    """Pretrain in this process, or drive the workers that do."""
    from ray import tune
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    settings = context.settings(sampled)
    folder = context.trial_folder(settings)
    write_json(folder / SETTINGS_NAME, {"sampled": sampled, "settings": asdict(settings)})
    context.mirror.push_file(folder / SETTINGS_NAME)
    gc.collect()  # the trial before in this process has left reference cycles, and with them memory of the GPU
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()

    if context.config.search.workers_per_trial == 1:

        def work() -> None:
            train_worker(sampled, tune.report, context=context, feed=feed, task=task)

        TorchTrainer(work, scaling_config=ScalingConfig(num_workers=0)).fit()
    else:
        kept_worker_group(context, feed, task).do(sampled, tune.report)


_kept: "list[WorkerGroup]" = []  # at most one; the process's and no object's, as it is the process that Tune reuses


def kept_worker_group(context: TrialContext, feed: Feed, task: Task) -> "WorkerGroup":
    """This process's worker group, started if there is none. Tune reuses a process within one search only."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from scarce.cluster.worker_group import WorkerGroup

    if not _kept or not _kept[0].alive:
        on_gpu = context.gpus > 0
        _kept[:] = [
            WorkerGroup(
                partial(train_worker, context=context, feed=feed, task=task),
                ScalingConfig(
                    num_workers=context.config.search.workers_per_trial,
                    use_gpu=on_gpu,
                    resources_per_worker={"CPU": context.cpus, **({"GPU": context.gpus} if on_gpu else {})},
                ),
                TorchConfig(backend="nccl" if on_gpu and torch.cuda.is_available() else "gloo"),
                RunConfig(name=uuid.uuid4().hex[:12], storage_path=str(context.folder / "ray_train")),
            )
        ]
    return _kept[0]


def train_worker(
    sampled: Mapping[str, Value],
    report: Callable[[dict[str, Any]], None],
    *,
    context: TrialContext,
    feed: Feed,
    task: Task,
) -> None:
    """One training worker: plain PyTorch from here on. What its end means for the next attempt is written down."""
    folder, notice = context.trial_folder(context.settings(sampled)), Notice()
    with notice.unsaved():
        context.mirror.pull_trial(folder)
        tried = micro_batch(folder)
        begins = not notice.given()  # Ray may give a trial to a machine that it does not know to be about to go
        try:
            if not begins:
                raise Preempted("this machine was about to go")
            work_on_trial(sampled, report, folder, tried, notice, context=context, feed=feed, task=task)
        except Exception as error:
            if isinstance(error, Preempted) and rank() == 0:
                mark_preempted(folder)
            if is_final(error):
                mark_failed(folder, error)
            if is_out_of_memory(error):
                mark_out_of_memory(folder, context.config.pretrain.batch_size, tried, world_size())
            if rank() == 0:
                context.mirror.push_trial(folder, context.folder / BOARDS / folder.name)
            if not begins:
                with notice.saved():
                    notice.wait_out()
            raise


def work_on_trial(
    sampled: Mapping[str, Value],
    report: Callable[[dict[str, Any]], None],
    folder: Path,
    micro_batch: int | None,
    notice: Notice,
    *,
    context: TrialContext,
    feed: Feed,
    task: Task,
) -> None:
    """Pretrain in the trial's folder, and evaluate and report if this is the first worker."""
    settings = context.settings(sampled)
    torch.set_num_threads(max(1, int(context.config.search.cpus_per_trial)))
    device = worker_device(context.gpus)
    recipe = settings.recipe
    stop, objectives = context.config.search.stop_on_collapse, context.config.search.objectives
    watchdog = Watchdog(folder, context.config.search.hang_minutes)

    def evaluate(backbone: nn.Module) -> Metrics:
        beats = backbone.register_forward_hook(lambda *_: watchdog.beat())
        try:
            return scores(backbone)
        finally:
            beats.remove()

    def scores(backbone: nn.Module) -> Metrics:
        def features_of(images: np.ndarray) -> np.ndarray:
            size, positions = recipe.pretrain.image_size, settings.probes[0].uses_positions
            return extract_features(backbone, images, size, device, positions=positions)

        probe, metrics = search_probe(task, features_of(task.images), settings.probes)
        if "val_shortcut" in objectives:
            hidden = features_of(without_thorax(task.images))
            metrics |= shortcut_score(task, hidden, probe)
        return {**metrics, **{f"{PROBE_PREFIX}{name}": value for name, value in asdict(probe).items()}}

    images = feed.open()  # may have to be decoded first
    train = partial(
        pretrain,
        recipe,
        images,
        folder,
        device=device,
        stop_on_collapse=stop,
        micro_batch=micro_batch,
        beat=watchdog.beat,
        must_leave=notice.given,
    )
    if rank() != 0:
        with context.mirror.bringing_attempts(folder), recorded_attempt(folder), watchdog:
            train(report=report)
        return
    board_folder = context.folder / BOARDS / folder.name
    board_writer = BoardWriter(board_folder, sampled, objectives, context.space)
    with (
        context.mirror.bringing_attempts(folder),
        recorded_attempt(folder),
        watchdog,
        board_writer as board,
        LiveMetrics(context.run, folder.name) as live,
    ):
        shown = np.linspace(0, len(images) - 1, min(SHOWN_IMAGES, len(images))).astype(int)
        board.show_views(images.gather(shown), build_method(recipe).views(recipe.pretrain.image_size, recipe.views))

        def report_everywhere(metrics: Metrics) -> None:
            board.add(metrics)
            live.set(metrics)
            context.mirror.push_trial(folder, board_folder)
            with notice.saved():
                report({**metrics, "trial": folder.name})

        train(report=report_everywhere, evaluate=evaluate)


def worker_device(gpus: float) -> torch.device:
    """This worker's device. A fraction of a GPU comes with that fraction of its memory and no more."""
    if not gpus or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return torch.device("cuda", torch.cuda.current_device())
