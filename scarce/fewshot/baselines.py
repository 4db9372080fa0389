"""What a pretrained backbone has to beat: features that know nothing of X-rays, and a forest on pixels."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scarce.fewshot.evaluate import score_task, validation
from scarce.fewshot.features import extract_features
from scarce.fewshot.forest import random_forest
from scarce.fewshot.probe import Normalisation, ProbeConfig
from scarce.fewshot.task import Scores, Task
from scarce.views import resize

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
HISTOGRAM_BINS = 32
FOREST_SIDE = 64  # pixels; larger images are shrunk
NORMALISATIONS: tuple[Normalisation, ...] = ("l2", "standardise")
PROBE_GRID = tuple(ProbeConfig(C, how) for how, C in product(NORMALISATIONS, (0.01, 0.1, 1.0, 10.0, 100.0)))


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


def tune_probe(features: np.ndarray, task: Task, grid: Sequence[ProbeConfig] = PROBE_GRID) -> ProbeConfig:
    """The probe of `grid` with the best mean AUC on a val task, so that a baseline is given the search's own chance."""
    if task.held_out != "val":
        raise ValueError("a probe is chosen on the val task; test is for the final evaluation only")
    return max(grid, key=lambda probe: validation(task, score_task(task, features, probe))["val_auc"])


def evaluate_baselines(
    val: Task, test: Task, untrained: nn.Module, image_size: int, device: torch.device | str
) -> dict[str, Scores | str]:
    """Scores of every baseline on the test task, or the reason why there are none.

    Args:
        val: chooses each baseline's probe.
        test: is scored.
        untrained: a backbone of the chosen model's architecture with random weights, on `device`.
        image_size: pixels a side that the backbone gets.
        device: where the backbone lies.
    """
    featurisers = {
        "pixel_statistics": pixel_statistics,
        "pixels_16": pixels_16,
        "random_weights": lambda images: extract_features(untrained, images, image_size, device),
    }
    scores: dict[str, Scores | str] = {}
    for name, featurise in featurisers.items():
        probe = tune_probe(featurise(val.images), val)
        scores[name] = score_task(test, featurise(test.images), probe)
    scores["random_forest"] = random_forest(test, small_pixels(test.images))
    scores["from_scratch"] = "supervised training from scratch is not part of this version"
    scores["imagenet"] = "no file of ImageNet weights was given"
    return scores
