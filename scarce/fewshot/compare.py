"""The final table: the chosen model and every baseline on the same episodes, with intervals and tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarce.fewshot import statistics
from scarce.fewshot.evaluate import auc_by_cell
from scarce.fewshot.learning_curve import learning_curve
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task

CHOSEN = "chosen"
INTERVAL_NOTE = (
    "Intervals cover the choice of held-out patients and of the few labelled images drawn from one pool. "
    "They do not cover another pretraining run, another pool, another hospital, nor the choice of the best trial "
    "(which was made on val)."
)


@dataclass(frozen=True, eq=False)
class _Episodes:
    """The episodes of a task's first seeds, and resamples; the patients drawn are the same for any number of seeds."""

    task: Task
    resamples: statistics.Resamples
    evidence: tuple[np.ndarray, np.ndarray]


def compare(task: Task, scores_by_model: Mapping[str, Scores | str], config: ProtocolConfig) -> dict[str, Any]:
    """The content of `summary.json` about the models.

    A baseline too expensive for all episodes may be scored on the task's first k seeds, at least 2: its scores are
    [shots, k, images]. Its numbers are of these episodes, and so are both sides of its difference.

    Args:
        task: the test task, with seeds the search never used.
        scores_by_model: `chosen`, on all seeds, and the baselines; for a baseline that can't be had, the reason
            instead.
        config: `bootstrap` and `confidence` are used, and `target_auc`: the learning curves tell how many labels would
            reach it.

    Returns:
        `chosen`: `auc` (mean over cells and seeds), `ci_low`, `ci_high`, `p_chance` and `cells`, one for every finding
        and shots with the same numbers, `p_chance_holm` (corrected for being many cells), `test_positives` (images)
        and `test_positive_patients`; `by_shots`, the mean over the findings that have a number of shots, with the same
        numbers, `shots` and how many `findings` that are; `learning_curve`: from `LearningCurve.describe`, or
        `available` false and `reason`.
        `baselines`: by name the same with `available` and `difference` (chosen minus baseline: `auc`, `ci_low`,
        `ci_high`, `p`, and `p_holm`, corrected for being many baselines), and `seeds`, k, where that is not all; or
        `available` false and `reason`.
        `protocol`: what was evaluated, and what the intervals cover.

    Raises:
        ValueError: scores that don't fit the task; see `statistics.seeds_scored`.
    """
    scores = {name: entry for name, entry in scores_by_model.items() if isinstance(entry, Scores)}
    seeds = {name: statistics.seeds_scored(task, entry) for name, entry in scores.items()}
    if seeds[CHOSEN] < len(task.seeds):
        raise ValueError(f"the chosen model was scored on {seeds[CHOSEN]} of {len(task.seeds)} seeds: score it on all")
    episodes = {count: _first_seeds(task, count, config.bootstrap) for count in sorted(set(seeds.values()))}
    chosen_on = {count: _cut(scores[CHOSEN], count) for count in episodes}
    chosen_draws = {
        count: statistics.resampled_auc(part.task, chosen_on[count], part.resamples) for count, part in episodes.items()
    }
    draws = {CHOSEN: chosen_draws[len(task.seeds)]}
    for name in scores.keys() - draws.keys():
        part = episodes[seeds[name]]
        draws[name] = statistics.resampled_auc(part.task, scores[name], part.resamples)
    results: dict[str, dict[str, Any]] = {}
    for name, reason in scores_by_model.items():
        if name in scores:
            part = episodes[seeds[name]]
            results[name] = _model(part, scores[name], draws[name], config.confidence)
            results[name]["learning_curve"] = _curve(task, part, scores[name], draws[name], config, config.target_auc)
        else:
            results[name] = {"available": False, "reason": reason}

    chosen = results.pop(CHOSEN)
    present = [name for name in results if name in draws]
    for name in present:
        count = seeds[name]
        difference = statistics.mean_over_cells(chosen_draws[count] - draws[name])
        low, high = statistics.percentile_interval(difference, config.confidence)
        results[name]["available"] = True
        results[name]["difference"] = {
            "auc": mean_auc(episodes[count].task, chosen_on[count]) - results[name]["auc"],
            "ci_low": low,
            "ci_high": high,
            "p": statistics.p_value(difference, 0.0),
        }
        if count < len(task.seeds):
            results[name]["seeds"] = count
    adjusted = statistics.holm([results[name]["difference"]["p"] for name in present])
    for name, p in zip(present, adjusted, strict=True):
        results[name]["difference"]["p_holm"] = p
    return {
        "chosen": chosen,
        "baselines": results,
        "protocol": {**describe_protocol(task, config), "note": INTERVAL_NOTE},
    }


def mean_auc(task: Task, scores: Scores) -> float:
    """The mean over cells (finding × shots) and seeds."""
    return float(np.concatenate(auc_by_cell(task, scores)).mean(axis=1).mean())


def _first_seeds(task: Task, count: int, bootstrap: int) -> _Episodes:
    part = task.first_seeds(count)
    resamples = statistics.draw_resamples(part, bootstrap)
    return _Episodes(part, resamples, statistics.evidence(part, resamples))


def _cut(scores: Scores, seeds: int) -> Scores:
    return Scores(tuple(values[:, :seeds] for values in scores.values))


def _curve(
    task: Task, part: _Episodes, scores: Scores, draws: np.ndarray, config: ProtocolConfig, target: float | None
) -> dict[str, Any]:
    """Only of a model with all seeds: another's curve could not be laid over the chosen one's."""
    if part.task.seeds != task.seeds:
        reason = f"scored on {len(part.task.seeds)} of {len(task.seeds)} episodes a cell"
        return {"available": False, "reason": reason}
    curve = learning_curve(task, scores, draws, part.resamples, config.confidence)
    return {"available": False, "reason": curve} if isinstance(curve, str) else curve.describe(target)


def _model(part: _Episodes, scores: Scores, draws: np.ndarray, confidence: float) -> dict[str, Any]:
    task, (by_finding, together) = part.task, part.evidence
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
    by_shots = []
    for count in sorted({shots for _, shots in places}):
        here = np.array([shots == count for _, shots in places])
        able = [finding for finding, shots in places if shots == count]
        kept = statistics.pooled_evidence(task, part.resamples, able)
        number = _number(float(aucs[here].mean()), statistics.mean_over_cells(draws[here]), kept, confidence)
        by_shots.append({"shots": count, "findings": len(able), **number})
    return {**_number(float(aucs.mean()), mean, together, confidence), "by_shots": by_shots, "cells": cells}


def _number(auc: float, draws: np.ndarray, kept: np.ndarray, confidence: float) -> dict[str, float]:
    low, high = statistics.auc_interval(draws, kept, confidence)
    p = statistics.p_value(statistics.towards_chance(draws, kept), statistics.CHANCE)
    return {"auc": auc, "ci_low": low, "ci_high": high, "p_chance": p}


def describe_protocol(task: Task, config: ProtocolConfig) -> dict[str, Any]:
    """What is evaluated, and with how many resamples."""
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
    }
