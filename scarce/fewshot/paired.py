"""Finished models against each other: differences of test AUC, paired over the same test patients and episodes."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from scarce.fewshot import statistics
from scarce.fewshot.compare import describe_protocol
from scarce.fewshot.evaluate import auc_by_cell
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task

PAIRED_NOTE = (
    "Differences are paired: every model was scored on the same episodes and the same test patients, which are drawn "
    "together. They do not cover another pretraining seed, another pool or another hospital. To take the best of "
    "several runs by this table is a choice on test data: its AUC is then too high."
)


def compare_pairs(task: Task, scores_by_model: Mapping[str, Scores], config: ProtocolConfig) -> dict[str, Any]:
    """Every model, and every pair of them.

    Args:
        task: the test task that all were scored on.
        scores_by_model: at least two, on all seeds of the task.
        config: `bootstrap` and `confidence` are used.

    Returns:
        `models`: by name `auc`, the mean over cells and seeds, `ci_low` and `ci_high`.
        `pairs`: of each two models `first`, `second` and `difference`, the first minus the second (`auc`, `ci_low`,
        `ci_high`, `p` and `p_holm`, corrected for the number of pairs); and `cells`, the same for every `finding` and
        `shots`, with both AUCs as `first_auc` and `second_auc`, the `test_positives`, and p corrected for the number of
        cells of all pairs together.
        `protocol`: what was evaluated, and what the intervals cover.

    Raises:
        ValueError: fewer than two models, or scores that don't fit the task.
    """
    if len(scores_by_model) < 2:
        raise ValueError(f"a comparison needs two models, found {len(scores_by_model)}")
    for name, scores in scores_by_model.items():
        if statistics.seeds_scored(task, scores) < len(task.seeds):
            raise ValueError(f"{name} was scored on some of the task's {len(task.seeds)} seeds: score it on all")
    resamples = statistics.draw_resamples(task, config.bootstrap)
    kept = statistics.evidence(task, resamples)[1]
    aucs = {n: np.concatenate(auc_by_cell(task, scores)).mean(axis=1) for n, scores in scores_by_model.items()}
    draws = {n: statistics.resampled_auc(task, scores, resamples) for n, scores in scores_by_model.items()}
    models = {}
    for name in scores_by_model:
        low, high = statistics.auc_interval(statistics.mean_over_cells(draws[name]), kept, config.confidence)
        models[name] = {"auc": float(aucs[name].mean()), "ci_low": low, "ci_high": high}
    places = [(finding, shots) for finding, able in enumerate(task.shots) for shots in able]
    pairs: list[dict[str, Any]] = []
    for first, second in combinations(scores_by_model, 2):
        apart, drawn = aucs[first] - aucs[second], draws[first] - draws[second]
        cells: list[dict[str, Any]] = [
            {
                "finding": task.findings[finding],
                "shots": shots,
                "test_positives": int(task.truth(finding).sum()),
                "first_auc": float(aucs[first][place]),
                "second_auc": float(aucs[second][place]),
                **_difference(float(apart[place]), drawn[place], config.confidence),
            }
            for place, (finding, shots) in enumerate(places)
        ]
        over_all = _difference(float(apart.mean()), statistics.mean_over_cells(drawn), config.confidence)
        pairs.append({"first": first, "second": second, "difference": over_all, "cells": cells})
    _correct([pair["difference"] for pair in pairs])
    _correct([cell for pair in pairs for cell in pair["cells"]])
    return {"models": models, "pairs": pairs, "protocol": {**describe_protocol(task, config), "note": PAIRED_NOTE}}


def _difference(value: float, draws: np.ndarray, confidence: float) -> dict[str, float]:
    low, high = statistics.percentile_interval(draws, confidence)
    return {"auc": value, "ci_low": low, "ci_high": high, "p": statistics.p_value(draws, 0.0)}


def _correct(differences: list[dict[str, Any]]) -> None:
    for difference, p in zip(differences, statistics.holm([one["p"] for one in differences]), strict=True):
        difference["p_holm"] = p
