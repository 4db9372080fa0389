"""The few-shot probe: which classifier is trained on frozen features, and how these are scaled for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from scarce.errors import UserError
from scarce.fewshot.attention import fit_attention, score_by_attention
from scarce.fewshot.logistic import fit_logistic
from scarce.fewshot.neighbours import score_by_neighbours
from scarce.fewshot.prototype import fit_prototypes
from scarce.fewshot.ridge import fit_ridge
from scarce.space import Choice, Dimension, Float

Normalisation = Literal["l2", "standardise"]
Kind = Literal["logistic", "prototype", "ridge", "knn", "attention"]
Scorer = Callable[[Tensor], Tensor]

SEARCH_SPACE: dict[str, Dimension] = {
    "C": Float(1e-3, 1e2, log=True),
    "normalise": Choice(get_args(Normalisation)),
    "kind": Choice(get_args(Kind)),
    "neighbours": Choice((3, 5, 10, 20, 50)),
}


@dataclass(frozen=True)
class ProbeConfig:
    """The probe's hyperparameters."""

    C: float = 1.0
    """Inverse strength of the L2 penalty in logistic, ridge and attention, as in scikit-learn's LogisticRegression;
    features have a norm of about 1."""
    normalise: Normalisation = "l2"
    """`l2`: every image's features to norm 1. `standardise`: every feature to mean 0 and equal variance."""
    kind: Kind = "logistic"
    """`logistic`, `ridge`: regularised linear models. `prototype`: the nearer class mean. `knn`: votes of the nearest
    images. `attention`: logistic regression on positions pooled by a learned query."""
    neighbours: int = 20
    """Images that vote in knn; all of an episode's where these are fewer."""

    def __post_init__(self) -> None:
        if not 0 < self.C < float("inf"):
            raise UserError(f"the probe's C must be a positive number, got {self.C}")
        for value, known in ((self.normalise, get_args(Normalisation)), (self.kind, get_args(Kind))):
            if value not in known:
                raise UserError(f"the probe has no {value!r}: expected one of {', '.join(known)}")
        if self.neighbours < 2:  # a single one would give every image one of two scores
            raise UserError(f"the probe needs at least 2 neighbours, got {self.neighbours}")

    @property
    def uses_positions(self) -> bool:
        """Whether the probe takes the features of every position, [N, P, D], and not the pooled ones, [N, D]."""
        return self.kind == "attention"


@dataclass(frozen=True, eq=False)
class Scaling:
    """What `normalise` does to features [N, (P,) D]: subtract `centre`, divide by `deviation` and then by `norm`."""

    centre: np.ndarray  # float64 [D]
    deviation: np.ndarray  # float64 [D]
    norm: np.ndarray  # float64 [N]


def find_scaling(features: np.ndarray, reference: np.ndarray, how: Normalisation) -> Scaling:
    """Scaling to rows of norm 1 or about 1, so that C means the same in both cases.

    A handful of images says nothing about a feature's spread, so `standardise` takes means and standard deviations
    from a few hundred pool images. Their labels play no part, and no held-out image does. A feature that is constant
    there is only centred.

    Positions are scaled as the mean over the positions of their image is, so that evenly spread attention is the
    probe on that mean, with the same C.

    Args:
        features: float32 [N, D], or of every position [N, P, D].
        reference: row numbers of the pool images.
        how: see `ProbeConfig`.
    """
    x = features.astype(np.float64) if features.ndim == 2 else features.mean(axis=1, dtype=np.float64)
    images, dim = x.shape
    if how == "l2":
        norms = np.linalg.norm(x, axis=1)
        return Scaling(np.zeros(dim), np.ones(dim), np.where(norms > 0, norms, 1))
    pool = x[reference]
    deviation = pool.std(axis=0)
    floor = 1e-6 * np.abs(pool).max(initial=1e-12)
    return Scaling(pool.mean(axis=0), np.where(deviation > floor, deviation, 1) * np.sqrt(dim), np.ones(images))


def normalise(features: np.ndarray, reference: np.ndarray, how: Normalisation) -> np.ndarray:
    """Features as the probe sees them, float64 of the same shape; see `find_scaling`."""
    scaling = find_scaling(features, reference, how)
    norm = scaling.norm.reshape(-1, *[1] * (features.ndim - 1))
    scaled: np.ndarray = (features.astype(np.float64) - scaling.centre) / scaling.deviation / norm
    return scaled


def fit_probe(features: Tensor, positive: Tensor, config: ProbeConfig) -> list[Scorer]:
    """Train a probe on every episode of a batch.

    Args:
        features: normalised, float64 [E, n, D], or [E, n, P, D] for a probe that uses positions.
        positive: bool [E, n]; both classes in every episode.
        config: which probe.

    Returns:
        For every episode a function from held-out features, float64 [M, D] or [M, P, D], to scores float64 [M]; higher
        means more likely positive.
    """
    if config.kind == "knn":
        return [
            partial(score_by_neighbours, features=x, positive=y, neighbours=config.neighbours)
            for x, y in zip(features, positive, strict=True)
        ]
    if config.kind == "attention":
        fitted = zip(*fit_attention(features, positive, config.C), strict=True)
        return [partial(score_by_attention, query=q, weights=w, intercept=b) for q, w, b in fitted]
    if config.kind == "prototype":
        weights, intercepts = fit_prototypes(features, positive)
    else:
        fit = fit_ridge if config.kind == "ridge" else fit_logistic
        weights, intercepts = fit(features, positive, config.C)
    return [partial(_linear, weights=w, intercept=b) for w, b in zip(weights, intercepts, strict=True)]


def _linear(held_out: Tensor, weights: Tensor, intercept: Tensor) -> Tensor:
    return held_out @ weights + intercept
