"""Which trial a search ends with: the best AUC, or the least shortcut among those that are about as good."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scarce.trials.records import TrialRecord

BEST_AUC = "the trial of the highest val_auc"
ONE_STANDARD_ERROR = (
    "the trial of the lowest val_shortcut among the Pareto-optimal ones whose val_auc is at least the best minus its "
    "standard error"
)


@dataclass(frozen=True)
class Point:
    """One trial as the choice sees it; all numbers are of its report with the best AUC, whose weights are kept."""

    trial: str  # identity
    val_auc: float
    val_auc_se: float
    val_shortcut: float
    val_shortcut_se: float


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other dominates, best AUC first.

    One point dominates another that has no higher AUC and no lower shortcut score, and is worse in one of them (Deb
    2001, Multi-Objective Optimization Using Evolutionary Algorithms, section 2.4). Equal points do not.
    """

    def dominates(a: Point, b: Point) -> bool:
        no_worse = a.val_auc >= b.val_auc and a.val_shortcut <= b.val_shortcut
        return no_worse and (a.val_auc, a.val_shortcut) != (b.val_auc, b.val_shortcut)

    front = [point for point in points if not any(dominates(other, point) for other in points)]
    return sorted(front, key=lambda point: (point.val_auc, point.trial), reverse=True)


def choose(points: Sequence[Point]) -> Point:
    """The Pareto-optimal point with the lowest shortcut score whose AUC is within one standard error of the best.

    The one-standard-error rule (Breiman, Friedman, Olshen & Stone 1984, section 3.4.3; Hastie, Tibshirani & Friedman
    2009, section 7.10), with the shortcut score in the place of the model's size. The standard error is the best
    trial's own, over the seeds of the episodes. All trials have the same episodes, so a difference between two of them
    is known better than that: the rule is generous to the shortcut score.

    Of equal points the identity that sorts last is chosen, as where AUC alone decides. (On the front, points of equal
    shortcut scores have equal AUCs.)
    """
    front = pareto_front(points)
    least = front[0].val_auc - front[0].val_auc_se
    good = [point for point in front if point.val_auc >= least]
    return min(good, key=lambda point: point.val_shortcut)


def choose_trial(records: Sequence[TrialRecord], objective: str) -> tuple[TrialRecord, dict[str, Any]]:
    """The trial that a search ends with, and what its summary says of the choice.

    Args:
        records: at least one. Trials that were pruned or collapsed are candidates with their best report, too.
        objective: as in `scarce.config.SearchConfig`.

    Returns:
        The trial; `objective`, `rule` in words, `chosen_trial`, `chosen_settings`, `chosen_probe`, `val_auc`,
        `val_auc_se`; with the shortcut as an objective also its `val_shortcut`, `val_shortcut_se` and the `front`, a
        dict of `Point` for every trial on it.
    """
    if objective == "auc":
        chosen = max(records, key=lambda record: (record.best["val_auc"], record.identity))
        rule, more = BEST_AUC, {}
    else:
        points = [_point(record) for record in records]
        name = choose(points).trial
        chosen = next(record for record in records if record.identity == name)
        front = [asdict(point) for point in pareto_front(points)]
        scores = {key: chosen.best[key] for key in ("val_shortcut", "val_shortcut_se")}
        rule, more = ONE_STANDARD_ERROR, {**scores, "front": front}
    return chosen, {
        "objective": objective,
        "rule": rule,
        "chosen_trial": chosen.identity,
        "chosen_settings": chosen.sampled,
        "chosen_probe": asdict(chosen.probe),
        "val_auc": chosen.best["val_auc"],
        "val_auc_se": chosen.best["val_auc_se"],
        **more,
    }


def _point(record: TrialRecord) -> Point:
    best = record.best
    return Point(record.identity, best["val_auc"], best["val_auc_se"], best["val_shortcut"], best["val_shortcut_se"])
