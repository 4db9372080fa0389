"""Logistic regression on positions pooled by attention with one learned query, all episodes of a size in one batch.

The mean over positions dilutes a finding that fills one of them. Here every image is pooled with weights
aₚ ∝ exp(qᵀxₚ) (Ilse, Tomczak & Welling 2018, "Attention-based deep multiple instance learning", equation 8 with a
linear score; the attentive probe of later work, with one query), and q is trained together with the classifier.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.fewshot.lbfgs import minimise
from scarce.fewshot.logistic import fit_logistic, solve_dual

STEPS = 50
TOLERANCE = 1e-4  # of the gradient; the objective is in nats, summed over an episode's images


def fit_attention(features: Tensor, positive: Tensor, C: float) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise ‖w‖²/(2C) + Σᵢ log(1 + exp(−sᵢ(wᵀzᵢ + b))) + ½v‖q‖² for every episode, zᵢ = Σₚ aᵢₚ xᵢₚ, sᵢ = ±1.

    v is the mean squared distance of an episode's positions to the mean of their image, so the last term says that
    attention's logits have a variance of about 1 before anything was seen, however the features are scaled. Without it
    q would grow without end on the few images that positions can tell apart.

    For a given q this is logistic regression on z, which is solved exactly. What is left is a function of q alone,
    whose gradient needs no derivative of w and b (variable projection; Golub & Pereyra 1973), and L-BFGS descends it
    from q = 0, the mean over positions. It is not convex: what is found is the valley that begins there.

    Args:
        features: of every position, float64 [E, n, P, D].
        positive: bool [E, n]; both classes in every episode.
        C: inverse strength of the penalty, as in `fit_logistic`.

    Returns:
        Queries float64 [E, D], weights float64 [E, D] and intercepts float64 [E].
    """
    deviations = features - features.mean(dim=2, keepdim=True)
    spread = _root_mean_square(deviations)
    # Positions that are all alike differ by rounding, which is not to be blown up.
    spread = torch.maximum(spread, 1e-6 * _root_mean_square(features)).clamp(min=1e-12)
    # A shift of all positions moves the intercept only; scaled, the penalty's curvature is 1.
    problem = _Projected(features - features.mean(dim=(1, 2), keepdim=True), positive, C, spread)
    start = torch.zeros_like(features[:, 0, 0])
    queries = minimise(problem, start, STEPS, TOLERANCE) / spread.unsqueeze(1)
    weights, intercepts = fit_logistic(_pool(features, _attend(features, queries)), positive, C)
    return queries, weights, intercepts


def score_by_attention(held_out: Tensor, query: Tensor, weights: Tensor, intercept: Tensor) -> Tensor:
    """wᵀz + b of images [M, P, D] under one episode's probe: float64 [M]."""
    logits, values = (held_out @ torch.stack([query, weights], dim=1)).unbind(2)
    return (logits.softmax(1) * values).sum(1) + intercept


def _root_mean_square(features: Tensor) -> Tensor:
    """Of the lengths of all positions: [E, n, P, D] to [E]."""
    return features.square().sum(3).mean((1, 2)).sqrt()


def _attend(features: Tensor, queries: Tensor) -> Tensor:
    """Attention of every position: [E, n, P, D] and [E, D] to [E, n, P]; sums to 1 over P."""
    episodes, images, positions, _ = features.shape
    logits = features.flatten(1, 2) @ queries.unsqueeze(2)
    return logits.view(episodes, images, positions).softmax(2)


def _pool(features: Tensor, attention: Tensor) -> Tensor:
    """The weighted mean over positions: [E, n, P, D] and [E, n, P] to [E, n, D]."""
    return (attention.unsqueeze(2) @ features).squeeze(2)


@dataclass(eq=False)
class _Projected:
    """The objective as a function of q · spread, with w and b at their best."""

    features: Tensor  # centred, [E, n, P, D]
    positive: Tensor
    C: float
    spread: Tensor
    solution: tuple[Tensor, Tensor] | None = None  # of the last logistic regression: the next one starts there

    def __call__(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        attention = _attend(self.features, scaled / self.spread.unsqueeze(1))
        pooled = _pool(self.features, attention)
        centred = pooled - pooled.mean(dim=1, keepdim=True)
        gram = centred @ centred.mT
        self.solution = solve_dual(gram, self.positive, self.C, self.solution)
        dual, intercept = self.solution
        decision = (gram @ dual.unsqueeze(2)).squeeze(2) + intercept.unsqueeze(1)
        weights = dual.unsqueeze(1) @ centred  # [E, 1, D]
        sign = torch.where(self.positive, 1.0, -1.0).to(gram.dtype)
        loss = F.softplus(-sign * decision).sum(1)
        value = loss + weights.square().sum((1, 2)) / (2 * self.C) + scaled.square().sum(1) / 2

        # The loss falls by dual / C for every unit that an image's decision rises.
        values = (self.features.flatten(1, 2) @ weights.mT).view_as(attention)
        surplus = values - (attention * values).sum(2, keepdim=True)
        slopes = -(dual / self.C).unsqueeze(2) * attention * surplus
        gradient = (slopes.flatten(1).unsqueeze(1) @ self.features.flatten(1, 2)).squeeze(1)
        return value, gradient / self.spread.unsqueeze(1) + scaled
