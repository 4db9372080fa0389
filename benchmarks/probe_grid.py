"""Cross-validated probes of a whole grid of episodes: at least 12 times as fast as scikit-learn in a loop.

    python benchmarks/probe_grid.py            # about a minute on two cores
    python benchmarks/probe_grid.py --seeds 3  # a third of the episodes

10 findings x 5 shots x 10 seeds on 2,048 features. Every episode chooses among five C by up to five stratified folds,
is fitted again and scores 200 held-out images; at 1 shot C is 1. The peer is LogisticRegressionCV as it comes, an
episode a call, over all cores by joblib. After that, each episode is solved by scikit-learn to a tight tolerance:
its AUC at our C, and the C it chooses, have to be ours. Features are made up: sparse, correlated, of norm 1, and of
findings easy and hard (AUC 0.6 to 0.95).
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import measure
import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from scarce.fewshot.auc import auc
from scarce.fewshot.logistic import fit_logistic
from scarce.fewshot.logistic_cv import fit_logistic_cv

FINDINGS, SHOTS, DIM, HELD_OUT, FOLDS = 10, (1, 5, 10, 23, 50), 2048, 200, 5
CS = (0.01, 0.1, 1.0, 10.0, 100.0)
FACTORS = 128  # what images differ in; a finding shifts some
POOL = 150  # images of either class that episodes are drawn from
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AUC_TOLERANCE = 0.002
POSITIVE_HELD_OUT = np.arange(HELD_OUT) < 60


@dataclass(frozen=True)
class Episodes:
    """Those of one number of shots.

    Attributes:
        x: float32 [E, n, DIM], the positives first.
        held_out: float32 [FINDINGS, HELD_OUT, DIM].
        finding: of every episode, [E].
    """

    shots: int
    x: np.ndarray
    held_out: np.ndarray
    finding: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """bool [n]."""
        return np.arange(2 * self.shots) < self.shots


def make_up(seeds: int) -> list[Episodes]:
    """Episodes of every number of shots; the 5-shot ones lie in the 10-shot ones, as in `draw_episodes`."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(FACTORS, DIM)) * np.arange(1, FACTORS + 1)[:, None] ** -0.5

    def images(count: int, shift: np.ndarray) -> np.ndarray:
        noise = rng.normal(size=(count, DIM))
        x = np.maximum((rng.normal(size=(count, FACTORS)) + shift) @ mixing + noise, 0)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    pools, held_out = [], []
    for strength in np.linspace(0.12, 0.45, FINDINGS):
        shift = strength * rng.normal(size=FACTORS) * (np.arange(FACTORS) >= 4)
        pools.append((images(POOL, shift), images(POOL, np.zeros(FACTORS))))
        ill = int(POSITIVE_HELD_OUT.sum())
        held_out.append(np.concatenate([images(ill, shift), images(HELD_OUT - ill, np.zeros(FACTORS))]))
    order = {(f, s, c): rng.permutation(POOL) for f in range(FINDINGS) for s in range(seeds) for c in (0, 1)}
    return [
        Episodes(
            shots,
            np.stack(
                [
                    np.concatenate([pools[f][c][order[f, s, c][:shots]] for c in (0, 1)])
                    for f in range(FINDINGS)
                    for s in range(seeds)
                ]
            ),
            np.stack(held_out),
            np.repeat(np.arange(FINDINGS), seeds),
        )
        for shots in SHOTS
    ]


def ours(grid: list[Episodes]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every number of shots: scores [E, HELD_OUT] and the chosen C [E]."""
    results = []
    for part in grid:
        x, positive = (torch.from_numpy(values).to(DEVICE) for values in (part.x, part.positive))
        if part.shots == 1:
            weights, intercepts = fit_logistic(x.double(), positive.expand(len(x), -1), 1.0)
            chosen = torch.ones_like(intercepts)
        else:
            weights, intercepts, chosen = fit_logistic_cv(x, positive, CS, min(FOLDS, part.shots))
        held_out = torch.from_numpy(part.held_out).to(DEVICE).double()
        scores = weights.unflatten(0, (FINDINGS, -1)) @ held_out.mT  # an episode's finding comes first in their order
        results.append(((scores.flatten(0, 1) + intercepts.unsqueeze(1)).cpu().numpy(), chosen.cpu().numpy()))
    return results


def probe(shots: int, **settings: object) -> LogisticRegressionCV | LogisticRegression:
    """scikit-learn's, with its defaults but for what is said here."""
    if shots == 1:
        return LogisticRegression(C=1.0, **settings)
    return LogisticRegressionCV(Cs=CS, cv=min(FOLDS, shots), scoring="accuracy", **settings)


def peer(x: np.ndarray, positive: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """One episode's scores."""
    with warnings.catch_warnings():  # of attributes that will be renamed
        warnings.simplefilter("ignore", FutureWarning)
        return probe(len(positive) // 2, max_iter=1000).fit(x, positive).decision_function(held_out)


def check(
    x: np.ndarray, positive: np.ndarray, held_out: np.ndarray, scores: np.ndarray, chosen: float
) -> tuple[float, bool, bool]:
    """One episode against scikit-learn at a tight tolerance: the difference in AUC at our C, whether it chooses another
    C, and whether that has another fold score.
    """
    tight = {"tol": 1e-8, "max_iter": 100_000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        exact = probe(len(positive) // 2, **tight).fit(x, positive)
    other = worse = False
    if len(positive) > 2:
        folds = next(iter(exact.scores_.values())) if isinstance(exact.scores_, dict) else exact.scores_
        mean = np.reshape(folds, (-1, len(CS))).mean(axis=0)
        other = float(np.ravel(exact.C_)[0]) != chosen
        worse = abs(mean[CS.index(chosen)] - mean.max()) > 1e-12
        if other:
            exact = LogisticRegression(C=chosen, **tight).fit(x, positive)
    expected = auc(exact.decision_function(held_out), POSITIVE_HELD_OUT)
    return abs(float(auc(scores, POSITIVE_HELD_OUT) - expected)), other, worse


def bound(grid: list[Episodes]) -> float:
    """Seconds for the inner products of features alone, at the rate of one large float64 matrix product."""
    a = torch.randn(2048, 2048, dtype=torch.float64, device=DEVICE)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        times.append(time.perf_counter() - start)
    products = sum(len(part.x) * (2 * part.shots) * (2 * part.shots + 1) / 2 + len(part.x) * HELD_OUT for part in grid)
    return products * DIM * min(times) / 2048**3


def main() -> None:
    """Measure, check, print a row."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=10, help="episodes a finding and number of shots")
    seeds = arguments.parse_args().seeds
    grid = make_up(seeds)
    total = sum(len(part.x) for part in grid)
    jobs = [(x, part.positive, part.held_out[f]) for part in grid for x, f in zip(part.x, part.finding, strict=True)]
    pool = Parallel(n_jobs=-1)

    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return total / (time.perf_counter() - start)

    ratio = measure.alternate(
        {
            measure.OURS: lambda: timed(lambda: ours(grid)),
            "scikit-learn": lambda: timed(lambda: pool(delayed(peer)(*job) for job in jobs)),
        },
        repeats=3,
    )["scikit-learn"]

    found = ours(grid)
    scores, chosen = (np.concatenate([part[index] for part in found]) for index in (0, 1))
    for part, (values, _) in zip(grid, found, strict=True):
        print(f"  {part.shots} shots: mean AUC {auc(values, POSITIVE_HELD_OUT).mean():.3f}")
    checks = pool(delayed(check)(*job, s, float(c)) for job, s, c in zip(jobs, scores, chosen, strict=True))
    differences, others, worse = (np.array(column) for column in zip(*checks, strict=True))
    far = int((differences > AUC_TOLERANCE).sum())
    print(
        f"  of {total} episodes {far} differ by more than {AUC_TOLERANCE} in AUC (largest {differences.max():.1e}), "
        f"{others.sum()} in the C chosen, {worse.sum()} in its fold score"
    )
    least = bound(grid)
    took = min(total / timed(lambda: ours(grid)) for _ in range(3))
    measure.row(
        f"Probe grid: {FINDINGS} findings x {len(SHOTS)} shots x {seeds} seeds, {DIM} features",
        "scikit-learn LogisticRegressionCV, joblib, all cores",
        ratio,
        "at least 12; same AUC and C",
        f"inner products alone {least:.2g} s; took {took:.2g} s ({took / least:.1f}x)",
    )
    if far or worse.any():
        raise SystemExit("the solutions differ")


if __name__ == "__main__":
    main()
