"""The shortcut score of a backbone: the few-shot evidence that survives when nobody can see the lungs."""

import numpy as np

from scarce.audit.regions import black_out, thorax_box
from scarce.fewshot.evaluate import auc_by_cell, score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.statistics import CHANCE
from scarce.fewshot.task import Task


def without_thorax(images: np.ndarray) -> np.ndarray:
    """The images with the central thorax blacked out, one box for all: uint8 [N, S, S] to the same; a copy."""
    return black_out(images, thorax_box(images.shape[1]))


def shortcut_score(task: Task, features: np.ndarray, probe: ProbeConfig) -> dict[str, float]:
    """The mean over cells (finding × shots) of max(0, AUC − 0.5), where the AUC is a cell's mean over seeds.

    0: nothing survives. 0.5: every finding is recognised without the thorax, from markers, borders, exposure and the
    way the patient lies. The probe is trained as well as scored on images without the thorax, on the task's own
    episodes, so the score is what these features hold of a shortcut and not what a probe of whole images makes of
    pictures that it has never seen the like of.

    The positive part, because an AUC below chance is luck, or a hospital where the shortcut points the other way: no
    evidence that a classifier would be better off with, and it must not make up for a shortcut to another finding.

    The score is therefore biased upwards: without any shortcut, a cell whose AUC has the standard error s is expected
    at s / √(2π), not at 0. All trials of a search have the same episodes and the same held-out images, so about the
    same bias: the score compares trials, and is no estimate of how much a model relies on shortcuts. Nor is all that it
    counts a shortcut: arms, neck and upper abdomen lie outside the box.

    Args:
        task: N images.
        features: of `without_thorax(task.images)`, in the shape that `score_task` takes.
        probe: the one whose AUC on whole images the score stands beside.

    Returns:
        `val_shortcut`, the score in [0, 0.5], and `val_shortcut_se`, its standard error over seeds by the jackknife
        (Efron & Tibshirani 1993, equation 11.5): the mean of an episode's positive part would not be the score.

    Raises:
        FloatingPointError: a feature is not finite.
    """
    cells = np.concatenate(auc_by_cell(task, score_task(task, features, probe)))
    seeds = cells.shape[1]
    without_one = np.array([_score(np.delete(cells, seed, axis=1)) for seed in range(seeds)])
    error = np.sqrt((seeds - 1) / seeds * ((without_one - without_one.mean()) ** 2).sum())
    return {"val_shortcut": _score(cells), "val_shortcut_se": float(error)}


def _score(cells: np.ndarray) -> float:
    return float(np.maximum(cells.mean(axis=1) - CHANCE, 0).mean())
