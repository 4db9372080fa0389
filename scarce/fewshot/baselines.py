"""What a pretrained backbone has to beat: features that know nothing of X-rays, and a forest on pixels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scarce.backbones import Backbone
from scarce.errors import UserError
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.evaluate import auc_by_cell, score_task
from scarce.fewshot.features import extract_features
from scarce.fewshot.finetune import FinetuneConfig, finetune_task
from scarce.fewshot.forest import random_forest
from scarce.fewshot.imagenet import DOWNLOAD, download_imagenet, imagenet_size, load_imagenet
from scarce.fewshot.probe_search import search_probe
from scarce.fewshot.task import Scores, Task
from scarce.views import resize

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
HISTOGRAM_BINS = 32
FOREST_SIDE = 64  # pixels; larger images are shrunk
# As good as it got at about two minutes of one CPU core for the phantoms; see `from_scratch`.
SCRATCH = FinetuneConfig(unfreeze_from=0, batch_norm="batch", validation_from=0, augment=True, steps=25)
SCRATCH_RATES = (1e-3, 1e-2)  # of the backbone, chosen on val


def pixel_statistics(images: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, percentiles and histogram of every image: uint8 [N, H, W] to float32 [N, 41]."""
    flat = images.reshape(len(images), -1)
    counts = np.stack([np.bincount(image, minlength=256) for image in flat])
    bins = counts.reshape(len(images), HISTOGRAM_BINS, -1).sum(axis=2) / flat.shape[1]
    # Percentiles from the counts of the 256 grey levels: sorting every image's pixels would cost far more.
    below = np.cumsum(counts, axis=1)
    percentiles = [(below < share / 100 * flat.shape[1]).sum(axis=1) for share in PERCENTILES]
    moments = [flat.mean(axis=1) / 255, flat.std(axis=1) / 255]
    return np.column_stack([*moments, *(np.array(percentiles) / 255), bins]).astype(np.float32)


def pixels_16(images: np.ndarray) -> np.ndarray:
    """Images averaged to 16 × 16 pixels: uint8 [N, H, W] to float32 [N, 256] in [0, 1]."""
    batches = np.array_split(images, range(1024, len(images), 1024))
    small = [F.adaptive_avg_pool2d(torch.from_numpy(batch).float() / 255, 16).flatten(1) for batch in batches]
    return torch.cat(small).numpy()


def small_pixels(images: np.ndarray) -> np.ndarray:
    """Images of at most 64 × 64 pixels as rows: uint8 [N, H, W] to float32 [N, D] in [0, 255]."""
    side = min(FOREST_SIDE, images.shape[1])
    batches = np.array_split(images, range(1024, len(images), 1024))
    return torch.cat([resize(torch.from_numpy(batch), side).flatten(1) for batch in batches]).numpy()


def from_scratch(
    val: Task, test: Task, untrained: Backbone, image_size: int, device: torch.device | str, seeds: int
) -> Scores | str:
    """Supervised training of the whole network on the few labels alone, on the test task's first `seeds` seeds.

    It starts from the same random weights as the chosen model, with a head that is their nearest-prototype classifier.
    The learning rate is the better of two on val, by one episode a finding of the most shots.

    What was tried, as the mean AUC over shots 1 to 50 on val of the phantom hospital (resnet_small, 64 pixels, two
    seeds; random weights without a step: 0.52): rates of 1e-3, 3e-3 and 1e-2 give 0.56, 0.59 and 0.59, without
    augmentation 0.55, 0.57 and 0.58. 40 steps give 0.61, but take it past two minutes of one CPU core; 50 steps on
    minibatches of 8 give 0.60, no cheaper; standardised features 0.57.

    Returns:
        The scores, or why there are none: training that diverges at either rate costs a run this row only.
    """
    most = max(max(shots) for shots in val.shots)
    kept = tuple(episode for episode in val.episodes if episode.shots == most and episode.seed == val.seeds[0])
    able = [index for index, shots in enumerate(val.shots) if most in shots]
    trial = replace(val, episodes=kept, seeds=val.seeds[:1], shots=((most,),) * len(val.findings))

    def mean_auc(config: FinetuneConfig) -> float:
        try:
            scores = finetune_task(untrained, trial, config, image_size, device)
        except FloatingPointError:
            return -np.inf
        by_finding = auc_by_cell(trial, scores)
        return float(np.mean([by_finding[index] for index in able]))

    configs = [replace(SCRATCH, backbone_lr=rate) for rate in SCRATCH_RATES]
    try:
        return finetune_task(untrained, test, max(configs, key=mean_auc), image_size, device, seeds=seeds)
    except FloatingPointError as error:
        return f"not available: {error}"


def evaluate_baselines(
    val: Task,
    test: Task,
    untrained: Backbone,
    backbone_name: str,
    image_size: int,
    device: torch.device | str,
    config: BaselinesConfig,
) -> dict[str, Scores | str]:
    """Scores of every baseline on the test task, or the reason why there are none.

    Args:
        val: chooses each baseline's probe.
        test: is scored.
        untrained: a backbone of the chosen model's architecture with random weights, on `device`.
        backbone_name: that architecture's name.
        image_size: pixels a side that the backbone gets.
        device: where the backbone lies.
        config: which of the costly baselines are wanted.
    """

    def probed(featurise: Callable[[np.ndarray], np.ndarray]) -> Scores:
        probe, _ = search_probe(val, featurise(val.images))  # the search's own chance
        return score_task(test, featurise(test.images), probe)

    scores: dict[str, Scores | str] = {
        "pixel_statistics": probed(pixel_statistics),
        "pixels_16": probed(pixels_16),
        "random_weights": probed(lambda images: extract_features(untrained, images, image_size, device)),
        "random_forest": random_forest(test, small_pixels(test.images)),
        "from_scratch": "not asked for (--scratch-seeds 0)",
    }
    if config.scratch_seeds:
        seeds = min(config.scratch_seeds, len(test.seeds))
        scores["from_scratch"] = from_scratch(val, test, untrained, image_size, device, seeds)
    network = imagenet_network(config.imagenet, backbone_name)
    if isinstance(network, str):
        scores["imagenet"] = network
    else:
        network, size = network.to(device), imagenet_size(image_size)
        scores["imagenet"] = probed(lambda images: extract_features(network, images, size, device))
    return scores


def imagenet_network(source: str, backbone_name: str) -> nn.Module | str:
    """The network that `--imagenet` names, or why it is not available.

    Raises:
        UserError: a file that holds no such weights.
    """
    if not source:
        return "not available: no ImageNet weights were given (--imagenet PATH or --imagenet download)"
    if source != DOWNLOAD:
        return load_imagenet(source)
    try:
        return download_imagenet(backbone_name)
    except (OSError, UserError) as error:  # the latter for what an earlier download left damaged
        return f"not available: {error}"
