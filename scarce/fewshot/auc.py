"""Area under the ROC curve of many score vectors at once."""

import numpy as np
from scipy.stats import rankdata


def auc(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """AUC of every row of `scores`; a tie between a positive and a negative counts one half.

    From the positives' average ranks, as the Mann-Whitney statistic (Hanley & McNeil 1982, Radiology 143:29).

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
    rank_sum = rankdata(scores, axis=-1)[..., positive].sum(axis=-1)
    values: np.ndarray = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
    return values
