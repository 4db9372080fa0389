"""The best probe for a backbone: all of a grid on one val task, from features extracted once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from scarce.fewshot.auc import auc
from scarce.fewshot.evaluate import auc_by_cell, check_finite, normalised_rows, score_task, summarise
from scarce.fewshot.kernel_probes import fit_linear, score_by_votes
from scarce.fewshot.probe import Kind, Normalisation, ProbeConfig
from scarce.fewshot.task import Task

NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
LINEAR: tuple[Kind, ...] = ("logistic", "ridge")
PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
NEIGHBOURS = (5, 20)
BATCH_NUMBERS = 2**19  # float64 numbers of inner products in one batch of episodes: 4 MiB
# Every kind of probe but attention, which needs the features of positions and costs more than all others together.
PROBE_GRID = (
    *(ProbeConfig(C, how, kind) for kind, how, C in product(LINEAR, NORMALISATIONS, PENALTIES)),
    *(ProbeConfig(normalise=how, kind="prototype") for how in NORMALISATIONS),
    *(ProbeConfig(normalise=how, kind="knn", neighbours=k) for how, k in product(NORMALISATIONS, NEIGHBOURS)),
)


def search_probe(
    task: Task, features: np.ndarray, grid: Sequence[ProbeConfig] = PROBE_GRID, device: torch.device | str = "cpu"
) -> tuple[ProbeConfig, dict[str, float]]:
    """The probe of `grid` with the best mean AUC on a val task, the first of several equal ones.

    Args:
        task: a val task of N images.
        features: of the task's images, float32 [N, D]; of every position, [N, P, D], for probes that use them.
        grid: at least one probe; all or none use positions.
        device: where the probes are solved.

    Returns:
        The probe and what `evaluate.validation` says of its scores.

    Raises:
        ValueError: a test task, features of another shape, or probes that take different ones.
        FloatingPointError: a feature is not finite, as after a diverged pretraining.
    """
    if task.held_out != "val":
        raise ValueError("a probe is chosen on the val task; test is for the final evaluation only")
    aucs = score_grid(task, features, grid, device)
    metrics = [summarise(task, cells) for cells in zip(*aucs, strict=True)]
    best = max(range(len(grid)), key=lambda index: metrics[index]["val_auc"])
    return grid[best], metrics[best]


def score_grid(
    task: Task, features: np.ndarray, grid: Sequence[ProbeConfig], device: torch.device | str = "cpu"
) -> list[np.ndarray]:
    """AUC of every probe on every episode: for every finding, float64 [len(grid), shots, seeds].

    As `auc_by_cell(task, score_task(task, features, probe))` for each probe, which would repeat what they share.
    """
    if all(probe.uses_positions for probe in grid):  # these share nothing
        by_probe = [auc_by_cell(task, score_task(task, features, probe, device)) for probe in grid]
        return [np.stack(cells) for cells in zip(*by_probe, strict=True)]
    if features.ndim != 2 or any(probe.uses_positions for probe in grid):
        raise ValueError(f"these probes take features [N, D] and none of positions, got the shape {features.shape}")
    check_finite(features)
    aucs = [np.empty((len(grid), len(shots), len(task.seeds))) for shots in task.shots]
    for how in NORMALISATIONS:
        wanted = [index for index, probe in enumerate(grid) if probe.normalise == how]
        if not wanted:
            continue
        x = normalised_rows(features, task.reference, grid[wanted[0]], device)(np.arange(len(features)))
        probes = [grid[index] for index in wanted]
        for finding, scores in enumerate(_scores(task, x, probes)):
            aucs[finding][wanted] = auc(scores, task.truth(finding))
    return aucs


@dataclass(frozen=True, eq=False)
class _Products:
    """Inner products of one finding's images, T of them in episodes and M held out."""

    trained: np.ndarray  # row numbers, ascending, int64 [T]
    gram: Tensor  # [T, T], about an origin that scores do not depend on
    held_out: Tensor  # [M, T], about the same
    cosines: np.ndarray  # [M, T]


def _products(task: Task, finding: int, x: Tensor) -> _Products:
    """From the normalised features of all images, float64 [N, D]."""
    episodes = [episode for episode in task.episodes if episode.finding == task.findings[finding]]
    trained = np.unique(np.concatenate([rows for e in episodes for rows in (e.positives, e.negatives)]))
    images, held_out = (x[torch.from_numpy(rows).to(x.device)] for rows in (trained, task.evaluated[finding]))
    # About one of the images, all others are exact zeros where features have collapsed, and their scores tie.
    origin = images[0].clone()
    lengths = [rows.norm(dim=1).clamp(min=1e-12) for rows in (held_out, images)]
    levels = [rows @ origin for rows in (held_out, images)]
    images -= origin
    held_out -= origin
    product = held_out @ images.T
    cosines = product + levels[0].unsqueeze(1) + (levels[1] - levels[1][0])
    cosines = (cosines / lengths[0].unsqueeze(1) / lengths[1]).cpu().numpy()
    return _Products(trained, images @ images.T, product, cosines)


def _scores(task: Task, x: Tensor, probes: Sequence[ProbeConfig]) -> Iterator[np.ndarray]:
    """Scores of every probe, of one normalisation: for every finding, float64 [probes, shots, seeds, held out]."""
    of_kind = {kind: [index for index, probe in enumerate(probes) if probe.kind == kind] for kind in get_args(Kind)}
    logistic, ridge = ([probes[index].C for index in of_kind[kind]] for kind in LINEAR)
    products = [_products(task, finding, x) for finding in range(len(task.findings))]
    scores = [np.empty((len(probes), *cells.shape)) for cells in task.empty_scores().values]
    # Coefficients of a finding's images in every cell and linear probe, zero outside the episode, intercepts first.
    linear = [
        x.new_zeros(1 + len(known.trained), *cells.shape[1:3], len(logistic) + len(ridge) + 1)
        for known, cells in zip(products, scores, strict=True)
    ]
    neighbours = [probes[index].neighbours for index in of_kind["knn"]]
    for shots in sorted({episode.shots for episode in task.episodes}):
        same_size = [episode for episode in task.episodes if episode.shots == shots]
        positive = np.arange(2 * shots) < shots
        step = max(1, BATCH_NUMBERS // (2 * shots) ** 2)
        for start in range(0, len(same_size), step):
            batch = same_size[start : start + step]
            places = [task.place(episode) for episode in batch]
            rows = [np.concatenate([episode.positives, episode.negatives]) for episode in batch]
            at = [np.searchsorted(products[f].trained, r) for r, (f, _) in zip(rows, places, strict=True)]
            gram = torch.stack([products[f].gram[index][:, index] for (f, _), index in zip(places, at, strict=True)])
            fitted = fit_linear(gram, torch.from_numpy(positive).to(x.device), logistic, ridge)
            for (finding, cell), index, coefficients in zip(places, at, fitted, strict=True):
                linear[finding][0, *cell], linear[finding][1 + index, *cell] = coefficients[0], coefficients[1:]
                votes = score_by_votes(products[finding].cosines[:, index], positive, neighbours)
                scores[finding][of_kind["knn"], *cell] = votes
    for known, coefficients, values in zip(products, linear, scores, strict=True):
        product = coefficients[0] + torch.tensordot(known.held_out, coefficients[1:], dims=1)
        decisions = product.permute(3, 1, 2, 0).cpu().numpy()
        values[of_kind["logistic"] + of_kind["ridge"]] = decisions[:-1]
        values[of_kind["prototype"]] = decisions[-1]
        yield values
