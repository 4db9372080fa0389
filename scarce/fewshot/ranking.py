"""Which pretraining method is best, when each was run with several seeds: a ranking that says how sure it is.

Held-out patients, episode seeds and pretraining seeds are crossed, so all three are resampled, independently, as in
the bootstrap of data arrays (Owen & Eckles 2012, Annals of Applied Statistics 6:895). Patients and episodes are the
same for every method, so that differences are paired. Pretraining seeds are drawn for every method anew, because seed k
of one method has nothing in common with seed k of another; a method's own random initialisation shares its seeds and is
drawn with it.

S pretraining seeds are few. Drawing S of S understates the variance of their mean by (S − 1) / S, so the draws'
distances from the mean are stretched by √(S / (S − 1)) (Rao & Wu 1988, Journal of the American Statistical Association
83:231; with as many drawn as there are). That mends the variance, not the shape: nothing stands in for Student's
heavier tails. In simulations of equal methods a test at 5% rejected in 5 to 8% of cases while the pretraining seeds
spread no wider than patients and episodes together; where they spread three times as wide, in up to 18% of cases with 2
seeds, 13% with 3 and 8% with 5. `sd` beside the interval tells which case it is.

The leader is found on the same data that it is then compared on. Correcting only for the methods it is compared with
would forget that any other pair could have been the first and the last: of 9 equal methods one was then falsely found
behind in 12 to 18% of simulations. So the p-values are corrected over all pairs of methods, which holds for whichever
leads (2 to 4%; with seeds three times as wide 37% with 2 seeds, 22% with 3 and 6% with 5).

Percentile intervals of ranks follow Goldstein & Spiegelhalter (1996, Journal of the Royal Statistical Society A
159:385). Where methods are nearly equal such an interval is too narrow rather than too wide (Hall & Miller 2009, Annals
of Statistics 37:3929): two methods are different where their difference says so, not where their ranks do.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata

from scarce.errors import UserError
from scarce.fewshot import statistics
from scarce.fewshot.compare import describe_protocol, mean_auc
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task

RANKING_NOTE = (
    "Intervals cover the choice of held-out patients, of the few labelled images drawn from one pool, and of the "
    "pretraining seed. They do not cover another pool, another hospital, nor other settings of a method."
)


def rank_models(
    task: Task,
    scores_by_model: Mapping[str, Sequence[Scores]],
    reference: Mapping[str, Sequence[Scores]],
    config: ProtocolConfig,
) -> dict[str, Any]:
    """Rank methods by their mean AUC over pretraining seeds.

    Args:
        task: the test task.
        scores_by_model: of every method, one `Scores` a pretraining seed, at least 2, each on all episode seeds.
        reference: of the methods that have one, the scores of the same backbones before pretraining, seed by seed.
            Methods that start from the same weights may share the objects, which are then resampled once.
        config: `bootstrap` (the least number of resamples: more are drawn where otherwise no corrected p-value could be
            below 1 − `confidence`) and `confidence` are used.

    Returns:
        `leader`: the method with the highest AUC.
        `methods`: best first, each with `method`; `auc`, `ci_low`, `ci_high`; `sd`, standard deviation of the AUC over
        pretraining seeds, and `seed_aucs`; `rank` (1 is best; equal methods share it), `rank_low`, `rank_high` (a
        percentile interval) and `p_best`, the share of the resamples in which it is first.
        `behind`: leader minus it, `auc`, `ci_low`, `ci_high`, `p`, `p_holm` (corrected over all pairs of methods); None
        for the leader.
        `random`: of its random initialisation `auc`, `ci_low`, `ci_high`, `seed_aucs` and `difference`, method minus
        initialisation, as in `behind` but `p_holm` corrected over the methods; None where there is no reference.
        `protocol`: what was evaluated, and what the intervals cover.

    Raises:
        UserError: a method has one pretraining seed only.
        ValueError: no methods, scores that don't fit the task, or a reference with another number of seeds.
    """
    _check(task, scores_by_model, reference)
    pairs = math.comb(len(scores_by_model), 2)
    count = max(config.bootstrap, math.ceil(2 * pairs / (1 - config.confidence)))
    resamples = statistics.draw_resamples(task, count)
    kept = statistics.evidence(task, resamples)[1]
    known: dict[int, np.ndarray] = {}  # by identity of the scores, for what methods share

    def by_seed(models: Sequence[Scores]) -> np.ndarray:
        for scores in models:
            if id(scores) not in known:
                draws = statistics.mean_over_cells(statistics.resampled_auc(task, scores, resamples))
                known[id(scores)] = np.concatenate([[mean_auc(task, scores)], draws])
        return np.stack([known[id(scores)] for scores in models])

    aucs, draws, starts, start_draws = {}, {}, {}, {}
    for name, models in scores_by_model.items():
        weights = seed_weights(name, len(models), count)
        aucs[name] = by_seed(models)
        draws[name] = _weighted_mean(aucs[name], weights)
        if name in reference:
            starts[name] = by_seed(reference[name])
            start_draws[name] = _weighted_mean(starts[name], weights)

    standing = _standing(draws, config.confidence)
    order = sorted(draws, key=lambda name: int(standing[name]["rank"]))
    behind = _differences({pair: draws[pair[0]] - draws[pair[1]] for pair in combinations(order, 2)}, config.confidence)
    above = _differences({name: draws[name] - start for name, start in start_draws.items()}, config.confidence)
    rows = []
    for name in order:
        row = {
            "method": name,
            **_number(aucs[name], draws[name], kept, config.confidence),
            "sd": float(aucs[name][:, 0].std(ddof=1)),
            **standing[name],
            "behind": behind.get((order[0], name)),
            "random": None,
        }
        if name in starts:
            start = _number(starts[name], start_draws[name], kept, config.confidence)
            row["random"] = {**start, "difference": above[name]}
        rows.append(row)
    described = {**describe_protocol(task, config), "bootstrap": count, "note": RANKING_NOTE}
    return {"leader": order[0], "methods": rows, "protocol": described}


def seed_weights(name: str, seeds: int, count: int) -> np.ndarray:
    """What each pretraining seed of a method counts for: float64 [seeds, 1 + count], the columns sum to 1.

    Column 0 is the plain mean, the others are resamples of it, the same ones on every call. Stretched as they are, some
    are negative: the mean of two seeds is at times drawn a fifth of their distance outside them.
    """
    generator = statistics.generator(["pretraining seeds", name])
    shares = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count).T / seeds
    stretched = 1 / seeds + math.sqrt(seeds / (seeds - 1)) * (shares - 1 / seeds)
    return np.concatenate([np.full((seeds, 1), 1 / seeds), stretched], axis=1)


def _weighted_mean(aucs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[S, 1 + B] each to [1 + B]. Of distances from the first seed: where all agree, the weights change no bit."""
    mean: np.ndarray = aucs[0] + (weights * (aucs - aucs[0])).sum(axis=0)
    return mean


def _standing(draws: Mapping[str, np.ndarray], confidence: float) -> dict[str, dict[str, float]]:
    """Rank, its interval and the share of first places of every method; resamples without an AUC are left out."""
    table = np.stack(list(draws.values()))
    ranks = rankdata(-table[:, ~np.isnan(table[0])], method="min", axis=0).astype(int)
    first = ranks[:, 1:] == 1
    p_best = (first / first.sum(axis=0)).mean(axis=1)
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    lows, highs = np.quantile(ranks[:, 1:], levels, axis=1, method="inverted_cdf")
    return {
        name: {"rank": int(rank), "rank_low": int(low), "rank_high": int(high), "p_best": float(p)}
        for name, rank, low, high, p in zip(draws, ranks[:, 0], lows, highs, p_best, strict=True)
    }


def _differences(draws: Mapping[Any, np.ndarray], confidence: float) -> dict[Any, dict[str, float]]:
    """Interval, p, and p corrected for being many, of every difference [1 + B]."""
    differences = {}
    for key, difference in draws.items():
        low, high = statistics.percentile_interval(difference[1:], confidence)
        p = statistics.p_value(difference[1:], 0.0)
        differences[key] = {"auc": float(difference[0]), "ci_low": low, "ci_high": high, "p": p}
    adjusted = statistics.holm([difference["p"] for difference in differences.values()])
    return {
        key: {**difference, "p_holm": p} for (key, difference), p in zip(differences.items(), adjusted, strict=True)
    }


def _number(of_seeds: np.ndarray, draws: np.ndarray, kept: np.ndarray, confidence: float) -> dict[str, Any]:
    low, high = statistics.auc_interval(np.clip(draws[1:], 0, 1), kept, confidence)
    return {"auc": float(draws[0]), "ci_low": low, "ci_high": high, "seed_aucs": of_seeds[:, 0].tolist()}


def _check(
    task: Task, scores_by_model: Mapping[str, Sequence[Scores]], reference: Mapping[str, Sequence[Scores]]
) -> None:
    if not scores_by_model:
        raise ValueError("a ranking needs at least one method")
    for name, models in scores_by_model.items():
        if len(models) < 2:
            raise UserError(
                f"a ranking needs at least 2 pretraining seeds of every method, found {len(models)} of {name}: "
                "pretrain it with more seeds, or leave it out"
            )
        if name in reference and len(reference[name]) != len(models):
            raise ValueError(f"{name} has {len(models)} pretraining seeds and {len(reference[name])} initialisations")
        for scores in (*models, *reference.get(name, ())):
            if statistics.seeds_scored(task, scores) < len(task.seeds):
                raise ValueError(f"{name} was scored on some of the task's {len(task.seeds)} seeds: score it on all")
