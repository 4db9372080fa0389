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


def shortcut_score(task: Task, features: np.ndarray, probe: ProbeConfig) -> float:
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
        In [0, 0.5].

    Raises:
        FloatingPointError: a feature is not finite.
    """
    by_finding = auc_by_cell(task, score_task(task, features, probe))
    cells = np.concatenate([values.mean(axis=1) for values in by_finding])
    return float(np.maximum(cells - CHANCE, 0).mean())
