"""From features to numbers: a probe an episode, its scores on held-out images, and what they are worth."""

import numpy as np
import torch

from scarce.fewshot.auc import auc
from scarce.fewshot.probe import ProbeConfig, fit_logistic, normalise
from scarce.fewshot.task import Scores, Task

BATCH_NUMBERS = 2**24  # float64 numbers of training features in one batch of episodes: 128 MiB


def score_task(task: Task, features: np.ndarray, probe: ProbeConfig, device: torch.device | str = "cpu") -> Scores:
    """Train the probe on every episode and score the held-out images with it.

    Args:
        task: N images.
        features: of the task's images, float32 [N, D], finite.
        probe: its hyperparameters.
        device: where the probes are solved.

    Raises:
        FloatingPointError: a feature is not finite, as after a diverged pretraining.
    """
    if not np.isfinite(features).all():
        raise FloatingPointError("the backbone's features are not finite: its pretraining diverged")
    x = torch.from_numpy(normalise(features, task.reference, probe.normalise)).to(device)
    held_out = [x[torch.from_numpy(rows)] for rows in task.evaluated]
    scores = task.empty_scores()
    for shots in sorted({episode.shots for episode in task.episodes}):
        same_size = [episode for episode in task.episodes if episode.shots == shots]
        positive = torch.arange(2 * shots, device=x.device) < shots
        step = max(1, BATCH_NUMBERS // (2 * shots * x.shape[1]))
        for start in range(0, len(same_size), step):
            batch = same_size[start : start + step]
            rows = torch.from_numpy(np.stack([np.concatenate([e.positives, e.negatives]) for e in batch]))
            weights, intercepts = fit_logistic(x[rows], positive.expand(len(batch), -1), probe.C)
            for episode, weight, intercept in zip(batch, weights, intercepts, strict=True):
                finding, cell = task.place(episode)
                scores.values[finding][cell] = (held_out[finding] @ weight + intercept).cpu().numpy()
    return scores


def auc_by_cell(task: Task, scores: Scores) -> list[np.ndarray]:
    """AUC of every episode: for every finding, float64 [shots, seeds]."""
    return [auc(values, task.truth(finding)) for finding, values in enumerate(scores.values)]


def validation(task: Task, scores: Scores) -> dict[str, float]:
    """The search's objective: the mean AUC over cells (finding × shots) and seeds, and what it is made of.

    Returns:
        `val_auc`; `val_auc_se`, the standard error of that mean over seeds (how much of it is the luck of the draw of
        the few labelled images; the held-out patients stay the same); `val_auc_<k>shot` for every number of shots.
    """
    cells = np.concatenate(auc_by_cell(task, scores))
    by_seed = cells.mean(axis=0)
    shots = np.concatenate([np.asarray(able, dtype=int) for able in task.shots])
    return {
        "val_auc": float(by_seed.mean()),
        "val_auc_se": float(by_seed.std(ddof=1) / np.sqrt(len(by_seed))),
        **{f"val_auc_{count}shot": float(cells[shots == count].mean()) for count in sorted(set(shots.tolist()))},
    }
