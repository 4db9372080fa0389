"""How a model's AUC grows with the labels it is given, and how many labels a target AUC would take.

The curve is the inverse power law AUC(n) = a − b n^(−c) of n positives (and as many negatives) in an episode, fitted by
weighted least squares (Figueroa et al. 2012, BMC Medical Informatics and Decision Making 12:8; Viering & Loog 2023,
IEEE TPAMI 45:7799, review such curves). a is the AUC that no number of labels exceeds, in [0.5, 1]; b ≥ 0, so the curve
never falls; c, in [0.1, 2], is how fast the gap to a closes: at 0.1 a thousandfold of the labels halves it, close to
logarithmic growth, and at 2 the second label closes three quarters of it.

A shot count weighs as much as the inverse bootstrap variance of its AUC. All share the held-out patients, so their
errors are correlated, which least squares ignores. That costs precision, not honesty: every bootstrap resample is
fitted anew, and the intervals are those of the refitted curves. In simulations with 5 shot counts, flat to steep, the
95% intervals of the curve covered it in 90 to 97% of 300 draws, four times beyond the largest shot count as well.

A curve is a mean over findings, and must be over the same ones at every point. A rare finding that runs out of
positives at 10 shots would otherwise leave the mean from there on, and the curve would bend because the findings
changed. So only findings with every shot count enter; those left out are named.

Beyond the largest shot count a curve is an assumption, not a measurement: the interval holds if the power law does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scarce.errors import UserError
from scarce.fewshot import statistics
from scarce.fewshot.evaluate import auc_by_cell
from scarce.fewshot.task import Scores, Task

ASYMPTOTES = (0.5, 1.0)
EXPONENTS = (0.1, 2.0)
GRID = 17  # exponents tried at a time, evenly spaced in log c
ZOOMS = 6  # times the grid is laid anew around its best exponent, 8 times finer; leaves a relative error of 1e-6
FLAT = 1e-6  # least root mean square by which a slope has to improve on a constant to count as one
LEAST_ERROR = 1e-3  # no AUC is known better than this, however alike its resamples are
DRAWN_TO = 4  # times the largest shot count: as far as the curve is reported
TOLD_TO = 100  # times the largest shot count: larger numbers of labels are only called "more than"
POINTS = 33  # of the reported curve, besides the shot counts


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A fitted curve and its B bootstrap refits. In every array, column 0 is the observed one.

    Attributes:
        shots: S different shot counts, ascending.
        findings: those averaged.
        left_out: those that lack a shot count.
        auc: mean AUC over the findings at every shot count, [S, 1 + B]; a column is NaN where a resample has none.
        parameters: a, b and c, [3, 1 + B]; NaN in the same columns. c says nothing where b is 0.
        kept: from `statistics.evidence`, for these findings, [B].
        confidence: coverage of the intervals, in (0, 1).
    """

    shots: tuple[int, ...]
    findings: tuple[str, ...]
    left_out: tuple[str, ...]
    auc: np.ndarray
    parameters: np.ndarray
    kept: np.ndarray
    confidence: float

    def at(self, positives: np.ndarray) -> np.ndarray:
        """The AUC of every curve at so many positives: [P] to [P, 1 + B]."""
        a, b, c = self.parameters
        values: np.ndarray = a - b * positives[:, None] ** -c
        return values

    def describe(self, target: float | None = None) -> dict[str, Any]:
        """The curve as plain JSON.

        Args:
            target: an AUC in (0.5, 1) to add `labels_for` of.

        Returns:
            `available`: true. `confidence`, `shots`, `findings`, `left_out`: as the attributes. `a`, `b`, `c`: `value`,
            `ci_low`, `ci_high`; all None where a flat curve has no c. `observed`: a point for every shot count, with
            `shots`, `auc`, `ci_low`, `ci_high`. `fitted`: the same for the curve, at the shot counts and between them
            up to four times the largest, with `extrapolated` true beyond the largest; the intervals are pointwise.
            `residual_rms`: root mean square of observed minus fitted, in AUC; with 3 shot counts it can be 0 however
            wrong the law is. `labels_for`: where there is a target.
        """
        grid = np.union1d(np.geomspace(self.shots[0], DRAWN_TO * self.shots[-1], POINTS), self.shots)
        observed = [self._point(n, draws) for n, draws in zip(self.shots, self.auc, strict=True)]
        fitted = [
            {**self._point(float(n), draws), "extrapolated": bool(n > self.shots[-1])}
            for n, draws in zip(grid, self.at(grid), strict=True)
        ]
        residuals = self.auc[:, 0] - self.at(np.array(self.shots, dtype=float))[:, 0]
        a, b, _ = self.parameters
        result = {
            "available": True,
            "confidence": self.confidence,
            "shots": list(self.shots),
            "findings": list(self.findings),
            "left_out": list(self.left_out),
            "a": _parameter(a[0], *statistics.auc_interval(a[1:], self.kept, self.confidence)),
            "b": _parameter(b[0], *_hull(b[1:], self._cautious()[1], self.confidence)),
            "c": self._exponent(),
            "observed": observed,
            "fitted": fitted,
            "residual_rms": float(np.sqrt(np.mean(residuals**2))),
        }
        return result if target is None else {**result, "labels_for": self.labels_for(target)}

    def labels_for(self, target: float) -> dict[str, Any]:
        """How many positives, and as many negatives, an AUC of `target` would take: n = (b / (a − target))^(1/c).

        A resample whose curve stays below the target counts as infinitely many.

        Args:
            target: AUC in (0.5, 1).

        Returns:
            `target`; `positives`, `ci_low`, `ci_high`: whole numbers, or None where the number exceeds `limit` (a
            hundred times the largest shot count) or the target is not reached at all; `reached`: share of the
            resamples that reach it at some number; `extrapolated`: whether the number, or None, lies outside the
            measured shot counts; `text`: all that in words.

        Raises:
            UserError: the target is not an AUC above chance and below 1.
        """
        check_target(target)
        a, b, c = self.parameters
        value = float(_positives(a[:1], b[:1], c[:1], target)[0])
        draws = _positives(a[1:], b[1:], c[1:], target)
        low, high = _hull(draws, _positives(*self._cautious(), c[1:], target), self.confidence, "inverted_cdf")
        known = draws[~np.isnan(draws)]
        limit = TOLD_TO * self.shots[-1]
        extrapolated = not self.shots[0] <= value <= self.shots[-1]
        words = [_in_words(number, limit) for number in (value, low, high)]
        interval = words[1] if words[1] == words[2] else f"{words[1]} to {words[2]}"
        unit = "of positives" if math.isinf(value) else "positives"
        note = f"; extrapolated from {self.shots[0]} to {self.shots[-1]}" if extrapolated else ""
        return {
            "target": float(target),
            "positives": _whole(value, limit),
            "ci_low": _whole(low, limit),
            "ci_high": _whole(high, limit),
            "limit": limit,
            "reached": float(np.isfinite(known).mean()),
            "extrapolated": extrapolated,
            "text": f"{words[0]} {unit} ({100 * self.confidence:g}% interval {interval}){note}",
        }

    def _point(self, positives: float, draws: np.ndarray) -> dict[str, float]:
        low, high = statistics.auc_interval(draws[1:], self.kept, self.confidence)
        return {"shots": positives, "auc": float(draws[0]), "ci_low": low, "ci_high": high}

    def _cautious(self) -> tuple[np.ndarray, np.ndarray]:
        """a and b of the resamples with the imaginary patients of `statistics.evidence` in: [B] each.

        These draw every AUC towards chance by one factor, so a with it and b by the factor; c stays.
        """
        a, b = self.parameters[:2, 1:]
        return statistics.towards_chance(a, self.kept), np.where(np.isnan(b), 0, self.kept * b)

    def _exponent(self) -> dict[str, float | None]:
        _, b, c = self.parameters
        rising = c[1:][b[1:] > 0]
        if not b[0] > 0 or not len(rising):
            return {"value": None, "ci_low": None, "ci_high": None}
        return _parameter(c[0], *statistics.percentile_interval(rising, self.confidence))


def check_target(target: float) -> None:
    """Raise a UserError unless `target` is an AUC above chance and below 1."""
    if not statistics.CHANCE < target < 1:
        raise UserError(f"the target AUC must lie between 0.5 and 1, got {target:g}")


def learning_curve(
    task: Task, scores: Scores, draws: np.ndarray, resamples: statistics.Resamples, confidence: float
) -> LearningCurve | str:
    """The learning curve of a model that was scored on all seeds, or the reason why there is none.

    Args:
        task: what it was scored on.
        scores: its scores.
        draws: from `statistics.resampled_auc`, [cells, B].
        resamples: behind the draws.
        confidence: coverage of the intervals, in (0, 1).
    """
    shots = sorted({count for able in task.shots for count in able})
    if len(shots) < 3:
        return f"a learning curve needs at least 3 different shot counts, got {', '.join(map(str, shots))}"
    complete = [finding for finding, able in enumerate(task.shots) if len(able) == len(shots)]
    if not complete:
        return f"no finding has enough positives for all of {', '.join(map(str, shots))} shots"
    cells = np.concatenate([np.concatenate(auc_by_cell(task, scores)).mean(axis=1, keepdims=True), draws], axis=1)
    starts = np.cumsum([0, *(len(able) for able in task.shots)])[complete]
    # A resample without a class of a finding lacks it at every shot count alike, so the mean stays over the same ones.
    auc = np.stack([statistics.mean_over_cells(cells[starts + place]) for place in range(len(shots))])
    return fit_learning_curve(
        shots,
        auc,
        statistics.pooled_evidence(task, resamples, complete),
        confidence,
        findings=[task.findings[finding] for finding in complete],
        left_out=[name for finding, name in enumerate(task.findings) if finding not in complete],
    )


def fit_learning_curve(
    shots: Sequence[int],
    auc: np.ndarray,
    kept: np.ndarray,
    confidence: float,
    *,
    findings: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> LearningCurve:
    """Fit the observed AUC and its resamples; arguments as the attributes of `LearningCurve`."""
    known = ~np.isnan(auc).any(axis=0)
    variance = np.maximum(np.var(auc[:, 1:][:, known[1:]], axis=1, ddof=1), LEAST_ERROR**2)
    parameters = np.full((3, auc.shape[1]), np.nan)
    parameters[:, known] = fit_power_law(np.asarray(shots), auc[:, known], 1 / variance)
    return LearningCurve(tuple(shots), tuple(findings), tuple(left_out), auc, parameters, kept, confidence)


def fit_power_law(shots: np.ndarray, auc: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Minimise Σ w (AUC − a + b n^(−c))² with 0.5 ≤ a ≤ 1, b ≥ 0 and 0.1 ≤ c ≤ 2, for many curves at once.

    At a given c that is a linear problem in a and b with bounds, solved exactly. c is sought on a grid of its
    logarithm, which is then laid anew around its best point, ever finer.

    Args:
        shots: S different positive numbers, at least 3.
        auc: of M curves, [S, M], finite.
        weights: positive, [S].

    Returns:
        a, b and c, float64 [3, M]. Where no slope improves on a constant, b is 0 and c is the least exponent.
    """
    low, high = np.log(EXPONENTS)
    curves = np.arange(auc.shape[1])
    centre, reach = np.full(auc.shape[1], (low + high) / 2), (high - low) / 2
    share = (weights / weights.sum())[:, None, None]
    for _ in range(1 + ZOOMS):
        grid = np.clip(centre[:, None] + np.linspace(-reach, reach, GRID), low, high)  # [M, G]
        x = np.asarray(shots, dtype=float)[:, None, None] ** -np.exp(grid)
        loss, a, b = _bounded_line(x, auc[:, :, None], share)
        best = loss.argmin(axis=1)
        centre = grid[curves, best]
        reach *= 2 / (GRID - 1)
    return np.stack([a[curves, best], b[curves, best], np.exp(centre)])


def _bounded_line(x: np.ndarray, y: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of y = a − b x within the bounds of a and b.

    The loss is convex, so its least value lies inside the bounds, where the free solution is, or on one of the three
    edges b = 0, a = 0.5 and a = 1, where it is quadratic in the other one.

    Args:
        x: [S, M, G].
        y: [S, M, 1].
        share: of the weights, [S, 1, 1]; they sum to 1.

    Returns:
        Mean squared error, a and b, [M, G] each.
    """
    mean_x, mean_y = (share * x).sum(axis=0), (share * y).sum(axis=0)
    from_mean = x - mean_x
    slope = -(share * from_mean * (y - mean_y)).sum(axis=0) / (share * from_mean**2).sum(axis=0)
    power = (share * x**2).sum(axis=0)
    nothing = np.zeros_like(slope)
    pairs = [(np.clip(mean_y, *ASYMPTOTES) + nothing, nothing), (mean_y + slope * mean_x, slope)]
    for a in ASYMPTOTES:
        pairs.append((nothing + a, np.maximum((share * x * (a - y)).sum(axis=0) / power, 0)))
    losses = np.stack([(share * (y - a + b * x) ** 2).sum(axis=0) for a, b in pairs])
    free_a, free_b = pairs[1]
    losses[1, (free_b < 0) | (free_a < ASYMPTOTES[0]) | (free_a > ASYMPTOTES[1])] = np.inf
    losses[1:] += FLAT**2
    best = losses.argmin(axis=0)[None]
    all_a, all_b = (np.stack(values) for values in zip(*pairs, strict=True))
    loss, a, b = (np.take_along_axis(values, best, axis=0)[0] for values in (losses, all_a, all_b))
    return loss, a, b


def _positives(a: np.ndarray, b: np.ndarray, c: np.ndarray, target: float) -> np.ndarray:
    """Positives at which every curve reaches the target, at least 1; inf where it never does, NaN where there is none.

    c may be NaN where b is 0.
    """
    gap = a - target
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = np.where(b > 0, (b / gap) ** (1 / c), 1.0)
    return np.where(np.isnan(a), np.nan, np.where(gap > 0, np.maximum(needed, 1.0), np.inf))


def _hull(plain: np.ndarray, cautious: np.ndarray, confidence: float, method: Any = "linear") -> tuple[float, float]:
    """The hull of two percentile intervals, as `statistics.auc_interval` for what is no AUC; NaN draws are left out."""
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends = [np.quantile(draws[~np.isnan(draws)], levels, method=method) for draws in (plain, cautious)]
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _parameter(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": float(value), "ci_low": low, "ci_high": high}


def _whole(number: float, limit: int) -> int | None:
    """The smallest whole number that is enough, but for rounding errors; None beyond the limit."""
    return math.ceil(number * (1 - 1e-6)) if number <= limit else None


def _in_words(number: float, limit: int) -> str:
    if math.isinf(number):
        return "not reached at any number"
    return f"{_whole(number, limit):,}" if number <= limit else f"more than {limit:,}"
