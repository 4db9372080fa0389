"""Area under the ROC curve of many score vectors at once."""

import numpy as np
import torch


def auc(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """AUC of every row of `scores`; a tie between a positive and a negative counts one half.

    The share of pairs in which the positive scores higher: the Mann-Whitney statistic (Hanley & McNeil 1982, Radiology
    143:29).

    Args:
        scores: finite, [..., N]; higher means more likely positive.
        positive: bool [N], with both classes present.

    Returns:
        float64 [...], each in [0, 1].
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        raise ValueError(f"AUC needs both classes, got {positives} positives and {negatives} negatives")
    ill, well = (torch.from_numpy(np.ascontiguousarray(scores[..., of_class])) for of_class in (positive, ~positive))
    well = well.sort().values
    won = torch.searchsorted(well, ill) + torch.searchsorted(well, ill, right=True)  # twice, as a tie counts one half
    values: np.ndarray = won.sum(-1).numpy() / (2 * positives * negatives)
    return values
