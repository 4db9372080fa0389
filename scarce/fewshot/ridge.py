"""Ridge regression on the labels ±1, in closed form, all episodes of a size in one batch."""

import torch
from torch import Tensor


def fit_ridge(features: Tensor, positive: Tensor, C: float) -> tuple[Tensor, Tensor]:
    """Minimise ½‖w‖² + C/2 Σᵢ (sᵢ − wᵀxᵢ − b)², sᵢ = ±1, for every episode; b is not penalised.

    That is `sklearn.linear_model.Ridge(alpha=1 / C)`. With features and labels centred, w = Xᵀ(XXᵀ + I/C)⁻¹s: a system
    of n equations instead of D (Hoerl & Kennard 1970, in the dual form of Saunders et al. 1998, section 2).

    Args:
        features: float64 [E, n, D].
        positive: bool [E, n]; both classes in every episode.
        C: inverse strength of the penalty.

    Returns:
        Weights float64 [E, D] and intercepts float64 [E].
    """
    sign = torch.where(positive, 1.0, -1.0).to(features.dtype)
    mean, level = features.mean(dim=1), sign.mean(dim=1)
    centred = features - mean.unsqueeze(1)
    identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    factor = torch.linalg.cholesky(centred @ centred.mT + identity / C)
    dual = torch.cholesky_solve((sign - level.unsqueeze(1)).unsqueeze(2), factor)
    weights = (dual.mT @ centred).squeeze(1)
    return weights, level - (weights * mean).sum(1)
