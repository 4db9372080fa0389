"""Search spaces and samplers in Optuna's terms, for searches with Ray and without."""

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from scarce.space import Choice, Dimension


def to_distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """A search space in Optuna's terms."""
    return {
        key: CategoricalDistribution(dimension.values)
        if isinstance(dimension, Choice)
        else FloatDistribution(dimension.low, dimension.high, log=dimension.log)
        for key, dimension in space.items()
    }


def make_sampler(name: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Multivariate TPE (after a quarter of the trials, at most ten, at random) or random search."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, n_startup_trials=max(1, min(10, trials // 4))
    )
