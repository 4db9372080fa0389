"""L2-regularised logistic regression on frozen features, all episodes of a size in one batch.

An episode has n images and D features, n ≪ D. So the problem is solved for n dual coefficients instead of D weights,
in float64, by Newton's method (IRLS); `sklearn.linear_model.LogisticRegression` minimises the same objective.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_NEWTON_STEPS = 100
MAX_HALVINGS = 40
TOLERANCE = 1e-8  # largest relative change in the last step; what is left after it is about the square


def fit_logistic(features: Tensor, positive: Tensor, C: float) -> tuple[Tensor, Tensor]:
    """Minimise ½‖w‖² + C Σᵢ log(1 + exp(−sᵢ(wᵀxᵢ + b))), sᵢ = ±1, for every episode; b is not penalised.

    Args:
        features: float64 [E, n, D].
        positive: bool [E, n]; both classes in every episode.
        C: inverse strength of the penalty.

    Returns:
        Weights float64 [E, D] and intercepts float64 [E].

    Raises:
        FloatingPointError: Newton's method did not converge (features that are not finite).
    """
    # Centring only moves the intercept, and keeps what all images share from drowning their differences.
    mean = features.mean(dim=1)
    centred = features - mean.unsqueeze(1)
    dual, intercept = solve_dual(centred @ centred.mT, positive, C)
    weights = (dual.unsqueeze(1) @ centred).squeeze(1)
    return weights, intercept - (weights * mean).sum(1)


def solve_dual(
    gram: Tensor, positive: Tensor, C: float, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Dual coefficients [E, n] (w = Xᵀα, so that their sum is 0) and intercepts [E] of the optimum.

    A Newton step solves (K + W⁻¹) α + b1 = f + W⁻¹g with 1ᵀα = 0, where g is the negative gradient and W the curvature
    of the loss at the decision values f. W⁻¹ overflows on well-separated images, so the step is written with
    M = (K + W⁻¹)⁻¹ = W^½ (I + W^½KW^½)⁻¹ W^½ (Rasmussen & Williams 2006, eq. 3.27 and Algorithm 3.1), which gives
    M (f + W⁻¹g) = Mf + g − MKg without a division. The intercept follows from 1ᵀα = 0.

    Args:
        gram: K = XXᵀ of centred features, float64 [E, n, n].
        positive: bool [E, n]; both classes in every episode.
        C: inverse strength of the penalty.
        start: a guess at the result, such as that of similar features; by default, and where zeros are better, zeros.
    """
    sign = torch.where(positive, 1.0, -1.0).to(gram.dtype)
    dual, values = torch.zeros_like(sign), torch.zeros_like(sign)
    intercept = torch.zeros_like(sign[:, 0])
    if start is not None:
        dual, intercept = _unless_worse_than_zeros(start, gram, sign, C)
        values = _times(gram, dual) + intercept.unsqueeze(1)
    identity = torch.eye(sign.shape[1], dtype=gram.dtype, device=gram.device)
    for _ in range(MAX_NEWTON_STEPS):
        miss = torch.sigmoid(-sign * values)  # probability given to the wrong class, exact even where it is tiny
        gradient = C * sign * miss
        root = (C * miss * torch.sigmoid(sign * values)).sqrt()
        factor = torch.linalg.cholesky(identity + root.unsqueeze(2) * gram * root.unsqueeze(1))
        right = torch.stack([values, _times(gram, gradient), torch.ones_like(values)], dim=2)
        m_values, m_gram_gradient, m_one = (
            root.unsqueeze(2) * torch.cholesky_solve(root.unsqueeze(2) * right, factor)
        ).unbind(2)
        target = m_values + gradient - m_gram_gradient
        new_intercept = target.sum(1) / m_one.sum(1).clamp(min=torch.finfo(gram.dtype).tiny)
        dual_step = target - new_intercept.unsqueeze(1) * m_one - dual
        intercept_step = new_intercept - intercept
        gram_step = _times(gram, dual_step)
        linear, quadratic = (dual * gram_step).sum(1), (dual_step * gram_step).sum(1)
        length = step_length(values, gram_step + intercept_step.unsqueeze(1), sign, C, linear, quadratic)
        dual = dual + length.unsqueeze(1) * dual_step
        intercept = intercept + length * intercept_step
        before, values = values, _times(gram, dual) + intercept.unsqueeze(1)
        dual_change = (length.unsqueeze(1) * dual_step).abs().amax(1) / dual.abs().amax(1)
        values_change = (values - before).abs().amax(1) / (1 + values.abs().amax(1))
        if bool((torch.maximum(dual_change, values_change) <= TOLERANCE).all()):
            return dual, intercept
    raise FloatingPointError(f"the probe did not converge in {MAX_NEWTON_STEPS} Newton steps")


def _unless_worse_than_zeros(
    start: tuple[Tensor, Tensor], gram: Tensor, sign: Tensor, C: float
) -> tuple[Tensor, Tensor]:
    """The guess where its objective is below that of zeros, else zeros: far off, all curvature may have underflowed."""
    dual, intercept = start
    product = _times(gram, dual)
    loss = C * F.softplus(-sign * (product + intercept.unsqueeze(1))).sum(1)
    better = loss + (dual * product).sum(1) / 2 < C * math.log(2) * sign.shape[1]
    return torch.where(better.unsqueeze(1), dual, 0.0), torch.where(better, intercept, 0.0)


def step_length(
    values: Tensor, values_step: Tensor, sign: Tensor, C: float | Tensor, linear: Tensor, quadratic: Tensor
) -> Tensor:
    """The largest of 1, ½, ¼, ... for every problem at which the objective does not grow: [E] or [E, J].

    Args:
        values: decision values [E, n] or [E, n, J].
        values_step: what the whole step adds to them.
        sign: ±1, and `C` the weight of the loss: whatever broadcasts to `values`.
        linear: the penalty ½‖w‖² grows by `linear` t + `quadratic` t² / 2 at a length of t.
    """
    before = (C * F.softplus(-sign * values)).sum(1)
    length = torch.ones_like(linear)
    for _ in range(MAX_HALVINGS):
        loss = (C * F.softplus(-sign * (values + length.unsqueeze(1) * values_step))).sum(1)
        growth = loss - before + length * linear + length**2 * quadratic / 2
        grows = growth > 1e-13 * before
        if not bool(grows.any()):
            break
        length = torch.where(grows, length / 2, length)
    return length


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors.unsqueeze(2)).squeeze(2)
