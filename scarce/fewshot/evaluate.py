"""From features to numbers: a probe an episode, its scores on held-out images, and what they are worth."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from scarce.fewshot.auc import auc
from scarce.fewshot.probe import ProbeConfig, Scorer, find_scaling, fit_probe
from scarce.fewshot.task import Scores, Task

BATCH_NUMBERS = 2**24  # float64 numbers of training features in one batch of episodes: 128 MiB
PART_NUMBERS = 2**20  # the same for features of positions, which are gone through again and again: 8 MiB


def score_task(task: Task, features: np.ndarray, probe: ProbeConfig, device: torch.device | str = "cpu") -> Scores:
    """Train the probe on every episode and score the held-out images with it.

    Args:
        task: N images.
        features: of the task's images, float32, finite: [N, P, D] of every position for a probe that uses positions,
            else [N, D]. The former are copied by parts only.
        probe: its hyperparameters.
        device: where the probes are solved.

    Raises:
        ValueError: features of the other shape.
        FloatingPointError: a feature is not finite, as after a diverged pretraining.
    """
    if features.ndim != (3 if probe.uses_positions else 2):
        wanted = "[N, P, D]" if probe.uses_positions else "[N, D]"
        raise ValueError(f"the {probe.kind} probe takes features {wanted}, got the shape {features.shape}")
    check_finite(features)
    normalised = normalised_rows(features, task.reference, probe, device)
    scorers: list[list[tuple[tuple[int, int], Scorer]]] = [[] for _ in task.findings]
    for shots in sorted({episode.shots for episode in task.episodes}):
        same_size = [episode for episode in task.episodes if episode.shots == shots]
        positive = torch.arange(2 * shots, device=device) < shots
        numbers = PART_NUMBERS if probe.uses_positions else BATCH_NUMBERS
        step = max(1, numbers // (2 * shots * features[0].size))
        for start in range(0, len(same_size), step):
            batch = same_size[start : start + step]
            rows = np.stack([np.concatenate([e.positives, e.negatives]) for e in batch])
            fitted = fit_probe(normalised(rows), positive.expand(len(batch), -1), probe)
            for episode, scorer in zip(batch, fitted, strict=True):
                finding, cell = task.place(episode)
                scorers[finding].append((cell, scorer))
    scores = task.empty_scores()
    for values, rows, of_finding in zip(scores.values, task.evaluated, scorers, strict=True):
        step = max(1, PART_NUMBERS // features[0].size) if probe.uses_positions else len(rows)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            held_out = normalised(rows[part])
            for cell, scorer in of_finding:
                values[cell][part] = scorer(held_out).cpu().numpy()
    return scores


def check_finite(features: np.ndarray) -> None:
    """Raise FloatingPointError where a feature is not a finite number."""
    if not np.isfinite([features.min(), features.max()]).all():  # both are NaN where one feature is
        raise FloatingPointError("the backbone's features are not finite: its pretraining diverged")


def normalised_rows(
    features: np.ndarray, reference: np.ndarray, probe: ProbeConfig, device: torch.device | str
) -> Callable[[np.ndarray], Tensor]:
    """A function from row numbers of any shape to the normalised features of these images, float64, on the device."""
    scaling = find_scaling(features, reference, probe.normalise)
    x = torch.from_numpy(features).to(device)
    centre, deviation, norm = (
        torch.from_numpy(values).to(device) for values in (scaling.centre, scaling.deviation, scaling.norm)
    )

    def rows(index: np.ndarray) -> Tensor:
        at = torch.from_numpy(index).to(device)
        divisor = norm[at].view(*index.shape, *[1] * (features.ndim - 1))
        return (x[at].double() - centre).div_(deviation).div_(divisor)

    return rows


@contextmanager
def one_thread() -> Iterator[None]:
    """For probes on the CPU: their matrices are small, and beside other jobs two threads took 20 times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def auc_by_cell(task: Task, scores: Scores) -> list[np.ndarray]:
    """AUC of every episode: for every finding, float64 [shots, seeds]."""
    return [auc(values, task.truth(finding)) for finding, values in enumerate(scores.values)]


def validation(task: Task, scores: Scores) -> dict[str, float]:
    """The search's objective: the mean AUC over cells (finding × shots) and seeds, and what it is made of.

    Returns:
        `val_auc`; `val_auc_se`, the standard error of that mean over seeds (how much of it is the luck of the draw of
        the few labelled images; the held-out patients stay the same); `val_auc_<k>shot` for every number of shots.
    """
    return summarise(task, auc_by_cell(task, scores))


def summarise(task: Task, aucs: Sequence[np.ndarray]) -> dict[str, float]:
    """`validation` of what `auc_by_cell` gave."""
    cells = np.concatenate(aucs)
    by_seed = cells.mean(axis=0)
    shots = np.concatenate([np.asarray(able, dtype=int) for able in task.shots])
    return {
        "val_auc": float(by_seed.mean()),
        "val_auc_se": float(by_seed.std(ddof=1) / np.sqrt(len(by_seed))),
        **{f"val_auc_{count}shot": float(cells[shots == count].mean()) for count in sorted(set(shots.tolist()))},
    }
