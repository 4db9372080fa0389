"""AUC of every finding with its interval and p-values, for models on the same patients and the same resamples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.stats import t as student

from scarce.fewshot import statistics
from scarce.fewshot.evaluate import auc_by_cell
from scarce.fewshot.statistics import CHANCE, Resamples
from scarce.fewshot.task import Scores, Task

Scale = Literal["AUC", "difference", "share", "excess", "correlation", "shift"]


@dataclass(frozen=True)
class Number:
    """A value with its interval, NaN where it is not known."""

    value: float
    low: float
    high: float
    scale: Scale = "AUC"  # what it measures: "difference" of AUCs, "share" of a map, "excess" over a share by area, ...


@dataclass(frozen=True, eq=False)
class Measured:
    """A quantity of every finding: its value [F] and its bootstrap draws [F, B], NaN where a draw has no such value."""

    values: np.ndarray
    draws: np.ndarray

    def over_findings(self) -> tuple[float, np.ndarray]:
        """The mean over findings and its draws [B], NaN where any finding's is."""
        return float(self.values.mean()), self.draws.mean(axis=0)

    def minus(self, other: "Measured") -> "Measured":
        """The paired difference."""
        return Measured(self.values - other.values, self.draws - other.draws)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Measures scores on a task of one number of shots a finding.

    The resamples depend on the patients' names, the findings and the seeds only, so numbers of several pipelines are
    paired.
    """

    task: Task
    count: int = 1000  # bootstrap resamples
    confidence: float = 0.95

    @cached_property
    def resamples(self) -> Resamples:
        """Of the task's held-out patients and seeds."""
        return statistics.draw_resamples(self.task, self.count)

    @cached_property
    def kept(self) -> np.ndarray:
        """`statistics.evidence` of every finding, [F, B]."""
        return statistics.evidence(self.task, self.resamples)[0]

    @cached_property
    def patients(self) -> list[tuple[int, int]]:
        """Positive and negative patients of every finding."""
        counts = []
        for finding, rows in enumerate(self.task.evaluated):
            truth = self.task.truth(finding)
            positive = np.unique(self.task.patients[rows[truth]])
            counts.append((len(positive), len(np.setdiff1d(self.task.patients[rows[~truth]], positive))))
        return counts

    def auc(self, scores: Scores) -> Measured:
        """AUC, the mean over seeds."""
        values = np.concatenate(auc_by_cell(self.task, scores)).mean(axis=1)
        return Measured(values, statistics.resampled_auc(self.task, scores, self.resamples))

    def matched_auc(self, scores: Scores, strata: np.ndarray) -> Measured:
        """AUC over the pairs of a positive and a negative image of the same stratum, the mean over seeds.

        Each stratum's AUC counts by its pairs, so that nothing that is constant within strata can contribute (as in
        the stratified Mann-Whitney statistic of van Elteren 1960, with pairs for weights).

        Args:
            scores: of the task's held-out images.
            strata: a stratum's number for every image of the task, int [N]; below 0 for images to leave out.

        Returns:
            NaN for findings of which no stratum has both classes.
        """
        findings = len(self.task.findings)
        won, pairs = np.zeros(findings), np.zeros(findings)
        won_draws, pairs_draws = np.zeros((findings, self.count)), np.zeros((findings, self.count))
        for stratum in np.unique(strata[strata >= 0]):
            for finding, rows in enumerate(self.task.evaluated):
                here = strata[rows] == stratum
                truth = self.task.truth(finding)[here]
                if not truth.any() or truth.all():
                    continue
                part = self.only(finding, rows[here])
                cut = Scores((scores.values[finding][..., here],))
                of_finding = replace(self.resamples, seeds=self.resamples.seeds[finding : finding + 1])
                weights = self.resamples.patients[:, self.resamples.codes[rows[here]]].astype(float)
                drawn = weights[:, truth].sum(axis=1) * weights[:, ~truth].sum(axis=1)
                draws = statistics.resampled_auc(part, cut, of_finding)[0]
                count = float(truth.sum() * (~truth).sum())
                won[finding] += count * np.concatenate(auc_by_cell(part, cut)).mean()
                pairs[finding] += count
                won_draws[finding] += np.where(drawn > 0, drawn * np.nan_to_num(draws), 0)
                pairs_draws[finding] += drawn
        with np.errstate(invalid="ignore"):
            return Measured(won / pairs, won_draws / pairs_draws)

    def only(self, finding: int, rows: np.ndarray) -> Task:
        """The task with one finding and some of its images, to be scored but not trained on."""
        return replace(
            self.task,
            labels=self.task.labels[:, finding : finding + 1],
            findings=self.task.findings[finding : finding + 1],
            shots=self.task.shots[finding : finding + 1],
            episodes=(),
            evaluated=(rows,),
        )

    def number(self, measured: Measured, finding: int) -> Number:
        """An AUC of a finding with its interval (`statistics.auc_interval`)."""
        low, high = statistics.auc_interval(measured.draws[finding], self.kept[finding], self.confidence)
        return Number(float(measured.values[finding]), low, high)

    def difference(self, measured: Measured, finding: int) -> Number:
        """A difference of AUCs with its percentile interval."""
        return interval(float(measured.values[finding]), measured.draws[finding], self.confidence, "difference")

    def p_auc(self, measured: Measured, finding: int) -> float:
        """One-sided p of the hypothesis that an AUC is no better than chance."""
        return self.p_difference(measured, finding, CHANCE)

    def p_difference(self, measured: Measured, finding: int, null: float) -> float:
        """One-sided p of the hypothesis that a difference is at most `null`."""
        draws = measured.draws[finding]
        return p_above(float(measured.values[finding]), draws, null, self.patients[finding])


def interval(value: float, draws: np.ndarray, confidence: float, scale: Scale = "AUC") -> Number:
    """A value with the percentile interval of its draws; NaN draws are left out."""
    if np.isnan(value) or np.isnan(draws).all():
        return Number(value, math.nan, math.nan, scale)
    return Number(value, *statistics.percentile_interval(draws, confidence), scale)


def p_above(value: float, draws: np.ndarray, null: float, patients: Sequence[int]) -> float:
    """One-sided p of the hypothesis that a quantity is at most `null`.

    From the distance in bootstrap standard errors, by Student's t with one degree of freedom less than the rarer class
    has patients: shares of draws could not go below 1 / B, and corrections for many audits need smaller ones. Never
    below the probability that so many patients are perfectly separated by luck, 1 / C(n₊ + n₋, n₊).
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < 2:
        return 1.0
    distance, error = round(value - null, 12), round(float(known.std(ddof=1)), 12)  # without the errors of rounding
    steps = distance / error if error else math.copysign(math.inf, distance or -1)
    p = float(student.sf(steps, max(1, min(patients) - 1)))
    luck = math.exp(math.lgamma(patients[0] + 1) + math.lgamma(patients[1] + 1) - math.lgamma(sum(patients) + 1))
    return min(1.0, max(p, luck))
