"""Many probes at once on the images of an episode, from inner products of their features alone.

Of a probe's features only inner products matter: these are taken once and serve every kind of probe and every C. The
formulas are those of `logistic`, `ridge`, `prototype` and `neighbours`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scarce.fewshot.logistic_many import solve_many
from scarce.fewshot.neighbours import TEMPERATURE


def fit_linear(gram: Tensor, positive: Tensor, logistic: Sequence[float], ridge: Sequence[float]) -> Tensor:
    """Linear probes as coefficients of an episode's images: a held-out image's score is (1, xᵀX) times these.

    Args:
        gram: K = XXᵀ about whatever origin, float64 [E, n, n].
        positive: bool [n], the same for every episode; both classes.
        logistic: C of each logistic probe.
        ridge: C of each ridge probe.

    Returns:
        float64 [E, 1 + n, J], the intercepts first: logistic probes, ridge probes, the nearest class mean.
    """
    rows = gram.mean(dim=1, keepdim=True)
    centred = gram - rows - rows.mT + rows.mean(dim=2, keepdim=True)
    sign = torch.where(positive, 1.0, -1.0).to(gram.dtype)
    level = sign.mean()
    identity = torch.eye(len(sign), dtype=gram.dtype, device=gram.device)
    truth, right = positive.expand(len(gram), -1), (sign - level).expand(len(gram), -1).unsqueeze(2)
    duals, levels = solve_many(centred, truth, torch.tensor(logistic, dtype=gram.dtype, device=gram.device))
    solved = [torch.cholesky_solve(right, torch.linalg.cholesky(centred + identity / C)) for C in ridge]
    dual = torch.cat([duals, *solved], dim=2)
    intercept = torch.cat([levels, level.expand(len(gram), len(ridge))], dim=1).unsqueeze(1) - rows @ dual
    share = torch.stack([positive / positive.sum(), ~positive / (~positive).sum()]).to(gram.dtype)
    near, far = (share @ gram @ share.T).diagonal(dim1=1, dim2=2).unbind(1)
    prototype = torch.cat([(far - near).unsqueeze(1), (2 * (share[0] - share[1])).expand(len(gram), -1)], dim=1)
    return torch.cat([torch.cat([intercept, dual], dim=1), prototype.unsqueeze(2)], dim=2)


def score_by_votes(similarity: np.ndarray, positive: np.ndarray, neighbours: Sequence[int]) -> np.ndarray:
    """`score_by_neighbours` for several numbers of neighbours; images tied with the last of them vote as well.

    Args:
        similarity: cosines of held-out and training images, float64 [..., n].
        positive: bool [n].
        neighbours: so many vote, or all where there are fewer.

    Returns:
        float64 [J, ...], in [0, 1].
    """
    images = len(positive)
    ascending = np.sort(similarity, axis=-1)  # of NumPy: on short rows ten times as fast as torch's
    votes = np.exp((similarity - ascending[..., -1:]) / TEMPERATURE)
    scores = np.empty((len(neighbours), *similarity.shape[:-1]))
    for score, count in zip(scores, neighbours, strict=True):
        last = ascending[..., max(0, images - count), None]
        voting = np.where(similarity >= last, votes, 0.0)
        ill, well = voting[..., positive].sum(axis=-1), voting[..., ~positive].sum(axis=-1)
        score[...] = ill / (ill + well)  # exactly 1 for all whose neighbours are all ill: they tie
    return scores
