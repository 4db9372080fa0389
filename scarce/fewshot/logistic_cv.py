"""Logistic regression with C chosen by cross-validation, for all episodes of a size at once."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from scarce.fewshot.logistic_many import solve_many

CACHED_NUMBERS = 2**19  # float64 numbers that are worked on at a time: 4 MiB


def fit_logistic_cv(
    features: Tensor, positive: Tensor, Cs: Sequence[float], folds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What `sklearn.linear_model.LogisticRegressionCV(Cs, cv=folds, scoring="accuracy")` converges to, an episode each.

    The C of the highest mean accuracy over stratified folds of the images in their order, the first one where several
    are equal, is refitted on all images.

    Args:
        features: floating point [E, n, D]; solved in float64.
        positive: bool [n], the same for every episode; at least `folds` of either class.
        Cs: inverse strengths of the penalty, in the order of preference.
        folds: at least 2.

    Returns:
        Weights float64 [E, D], intercepts float64 [E] and the chosen C float64 [E].

    Raises:
        FloatingPointError, torch.linalg.LinAlgError: features that are not finite.
    """
    parts = features.split(max(1, CACHED_NUMBERS // features[0].numel()))
    gram = torch.cat([x @ x.mT for x, _ in map(_centre, parts)])
    problems = (folds + 1) * len(Cs)
    batches = gram.split(max(1, CACHED_NUMBERS // (4 * problems * len(positive))))
    solved = [_cross_validate(batch, positive, Cs, folds) for batch in batches]
    dual, intercept, chosen = (torch.cat(values) for values in zip(*solved, strict=True))
    weights, shifts = [], []
    for of_part, part in zip(dual.split(len(parts[0])), parts, strict=True):
        x, mean = _centre(part)  # once more: to keep all of it in float64 takes longer
        weights.append((of_part.unsqueeze(1) @ x).squeeze(1))
        shifts.append((weights[-1] * mean.squeeze(1)).sum(1))
    return torch.cat(weights), intercept - torch.cat(shifts), chosen


def _centre(features: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 [E, n, D] less the mean [E, 1, D] of an episode's images, and that mean."""
    x = features.to(torch.float64, copy=True)
    mean = x.mean(dim=1, keepdim=True)
    return x.sub_(mean), mean


def _cross_validate(gram: Tensor, positive: Tensor, Cs: Sequence[float], folds: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dual coefficients [E, n] and intercepts [E] of the fit on all images at the C chosen [E], from K [E, n, n]."""
    # Problems [folds + 1, Cs]: every fold left out in turn, and none.
    left_out = torch.zeros(folds + 1, len(positive), dtype=torch.bool)
    for fold, (_, rows) in enumerate(StratifiedKFold(folds).split(np.zeros(len(positive)), positive.cpu())):
        left_out[fold, rows] = True
    left_out = left_out.to(gram.device)
    ladder = torch.tensor(Cs, dtype=gram.dtype, device=gram.device)
    kept = (~left_out).repeat_interleave(len(Cs), dim=0).T
    dual, intercept = solve_many(gram, positive.expand(len(gram), -1), ladder.repeat(folds + 1), kept)

    decision = (gram @ dual + intercept.unsqueeze(1)).unflatten(2, (folds + 1, len(Cs)))
    right = (decision > 0) == positive.view(1, -1, 1, 1)
    count = (right & left_out.T.view(1, -1, folds + 1, 1)).sum(1)[:, :folds]
    # Equal means have to be equal to the last bit, so they are added up in scikit-learn's order.
    accuracy = (count / left_out[:folds].sum(1).view(1, -1, 1).double()).cpu().numpy().sum(axis=1)
    best = torch.from_numpy(accuracy.argmax(axis=1)).to(gram.device)
    episode, problem = torch.arange(len(gram), device=gram.device), folds * len(Cs) + best
    return dual[episode, :, problem], intercept[episode, problem], ladder[best]
