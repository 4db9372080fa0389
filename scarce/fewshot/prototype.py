"""The nearest class mean, all episodes of a size in one batch."""

from torch import Tensor


def fit_prototypes(features: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of either class (Snell, Swersky & Zemel 2017, equation 1) as a linear score.

    The score is ‖x − c₋‖² − ‖x − c₊‖² = 2(c₊ − c₋)ᵀx + ‖c₋‖² − ‖c₊‖², the log-odds of their equation 2.

    Args:
        features: float64 [E, n, D].
        positive: bool [E, n]; both classes in every episode.

    Returns:
        Weights float64 [E, D] and intercepts float64 [E].
    """
    means = []
    for members in (positive, ~positive):
        share = members.to(features.dtype) / members.sum(dim=1, keepdim=True)
        means.append((share.unsqueeze(1) @ features).squeeze(1))
    near, far = means
    return 2 * (near - far), (far * far).sum(1) - (near * near).sum(1)
