"""The final table: the chosen model and every baseline on the same episodes, with intervals and tests."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scarce.fewshot import statistics
from scarce.fewshot.evaluate import auc_by_cell
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task

CHOSEN = "chosen"
INTERVAL_NOTE = (
    "Intervals cover the choice of held-out patients and of the few labelled images drawn from one pool. "
    "They do not cover another pretraining run, another pool, another hospital, nor the choice of the best trial "
    "(which was made on val)."
)


def compare(task: Task, scores_by_model: Mapping[str, Scores | str], config: ProtocolConfig) -> dict[str, Any]:
    """The content of `summary.json` about the models.

    Args:
        task: the test task, with seeds the search never used.
        scores_by_model: `chosen` and the baselines; for a baseline that can't be had, the reason instead.
        config: `bootstrap` and `confidence` are used.

    Returns:
        `chosen`: `auc` (mean over cells and seeds), `ci_low`, `ci_high`, `p_chance` and `cells`, one for every finding
        and shots with the same numbers, `p_chance_holm` (corrected for being many cells), `test_positives` (images)
        and `test_positive_patients`.
        `baselines`: by name the same with `available` and `difference` (chosen minus baseline: `auc`, `ci_low`,
        `ci_high`, `p`, and `p_holm`, corrected for being many baselines); or `available` false and `reason`.
        `protocol`: what was evaluated, and what the intervals cover.
    """
    resamples = statistics.draw_resamples(task, config.bootstrap)
    evidence = statistics.evidence(task, resamples)
    draws = {
        name: statistics.resampled_auc(task, scores, resamples)
        for name, scores in scores_by_model.items()
        if isinstance(scores, Scores)
    }
    results: dict[str, dict[str, Any]] = {}
    for name, scores in scores_by_model.items():
        if isinstance(scores, Scores):
            results[name] = _model(task, scores, draws[name], evidence, config.confidence)
        else:
            results[name] = {"available": False, "reason": scores}

    chosen = results.pop(CHOSEN)
    present = [name for name in results if name in draws]
    for name in present:
        difference = statistics.mean_over_cells(draws[CHOSEN] - draws[name])
        low, high = statistics.percentile_interval(difference, config.confidence)
        results[name]["available"] = True
        results[name]["difference"] = {
            "auc": chosen["auc"] - results[name]["auc"],
            "ci_low": low,
            "ci_high": high,
            "p": statistics.p_value(difference, 0.0),
        }
    adjusted = statistics.holm([results[name]["difference"]["p"] for name in present])
    for name, p in zip(present, adjusted, strict=True):
        results[name]["difference"]["p_holm"] = p
    return {"chosen": chosen, "baselines": results, "protocol": _protocol(task, config)}


def _model(
    task: Task, scores: Scores, draws: np.ndarray, evidence: tuple[np.ndarray, np.ndarray], confidence: float
) -> dict[str, Any]:
    by_finding, together = evidence
    aucs = np.concatenate(auc_by_cell(task, scores)).mean(axis=1)
    cells: list[dict[str, Any]] = []
    places = [(finding, shots) for finding, able in enumerate(task.shots) for shots in able]
    for (finding, shots), value, draw, kept in zip(places, aucs, draws, by_finding, strict=True):
        positives = task.evaluated[finding][task.truth(finding)]
        cells.append(
            {
                "finding": task.findings[finding],
                "shots": shots,
                "test_positives": len(positives),
                "test_positive_patients": len(np.unique(task.patients[positives])),
                **_number(float(value), draw, kept, confidence),
            }
        )
    for cell, p in zip(cells, statistics.holm([cell["p_chance"] for cell in cells]), strict=True):
        cell["p_chance_holm"] = p
    mean = statistics.mean_over_cells(draws)
    return {**_number(float(aucs.mean()), mean, together, confidence), "cells": cells}


def _number(auc: float, draws: np.ndarray, kept: np.ndarray, confidence: float) -> dict[str, float]:
    low, high = statistics.auc_interval(draws, kept, confidence)
    p = statistics.p_value(statistics.towards_chance(draws, kept), statistics.CHANCE)
    return {"auc": auc, "ci_low": low, "ci_high": high, "p_chance": p}


def _protocol(task: Task, config: ProtocolConfig) -> dict[str, Any]:
    held_out = np.unique(np.concatenate(task.evaluated))
    return {
        "held_out": task.held_out,
        "findings": list(task.findings),
        "shots": sorted({shots for able in task.shots for shots in able}),
        "skipped": [{"finding": finding, "shots": shots} for finding, shots in task.skipped],
        "seeds": list(task.seeds),
        "images": len(held_out),
        "patients": len(np.unique(task.patients[held_out])),
        "bootstrap": config.bootstrap,
        "confidence": config.confidence,
        "note": INTERVAL_NOTE,
    }
