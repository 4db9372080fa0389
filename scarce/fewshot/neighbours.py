"""Nearest neighbours by cosine similarity."""

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07  # of Wu et al. 2018, section 3.4


def score_by_neighbours(held_out: Tensor, features: Tensor, positive: Tensor, neighbours: int) -> Tensor:
    """The positives' share of the votes of the nearest training images (Wu et al. 2018, section 3.4).

    A neighbour of cosine similarity s votes with weight exp(s / 0.07). A share rather than the sum of votes: an image
    that resembles everything is not therefore ill. With one positive and one negative it is a sigmoid of the
    difference of their similarities. Images whose neighbours all belong to one class are tied.

    Args:
        held_out: float64 [M, D].
        features: of one episode, float64 [n, D].
        positive: bool [n].
        neighbours: so many vote, or all where the episode has fewer.

    Returns:
        float64 [M], in [0, 1].
    """
    similarity = F.normalize(held_out, dim=1) @ F.normalize(features, dim=1).T
    nearest, index = similarity.topk(min(neighbours, len(features)), dim=1)
    votes = torch.exp((nearest - nearest[:, :1]) / TEMPERATURE)
    # As a share of two sums it is exactly 0 or 1 where all neighbours are of one class, so that such images tie.
    ill, well = ((votes * of_class[index]).sum(1) for of_class in (positive, ~positive))
    return ill / (ill + well)
