import numpy as np
import pytest
import torch

from scarce.fewshot.kernel_probes import fit_linear, score_by_votes
from scarce.fewshot.logistic import fit_logistic
from scarce.fewshot.neighbours import score_by_neighbours
from scarce.fewshot.prototype import fit_prototypes
from scarce.fewshot.ridge import fit_ridge


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (5, 5), (4, 9)])
def test_linear_probes_are_those_fitted_on_features(positives, negatives):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, positives + negatives, 30, generator=generator, dtype=torch.float64) + 1
    held_out = torch.randn(50, 30, generator=generator, dtype=torch.float64)
    positive = torch.arange(positives + negatives) < positives
    truth = positive.expand(3, -1)
    peers = [*(fit_logistic(x, truth, C) for C in (0.1, 10.0)), *(fit_ridge(x, truth, C) for C in (0.3, 30.0))]
    peers.append(fit_prototypes(x, truth))
    # About another origin the prototypes' scores are the same only with their intercepts.
    origin = torch.randn(30, generator=generator, dtype=torch.float64)
    centred = x - origin
    coefficients = fit_linear(centred @ centred.mT, positive, (0.1, 10.0), (0.3, 30.0))
    scores = coefficients[:, :1] + ((held_out - origin) @ centred.mT) @ coefficients[:, 1:]
    for column, (weights, intercepts) in enumerate(peers):
        expected = held_out @ weights.T + intercepts
        torch.testing.assert_close(scores[..., column].T, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shots", [1, 10, 23, 50])
def test_votes_are_those_of_the_nearest(shots):
    rng = np.random.default_rng(0)
    x, held_out, positive = rng.normal(size=(2 * shots, 12)), rng.normal(size=(40, 12)), np.arange(2 * shots) < shots
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (held_out, x)]
    scores = score_by_votes(unit[0] @ unit[1].T, positive, (3, 20))
    for score, neighbours in zip(scores, (3, 20), strict=True):
        expected = score_by_neighbours(*map(torch.tensor, (held_out, x, positive)), neighbours)
        np.testing.assert_allclose(score, expected, rtol=1e-9, atol=1e-12)


def test_images_whose_neighbours_are_of_one_class_tie():
    rng = np.random.default_rng(0)
    positive = np.arange(46) < 23
    similarity = np.where(positive, 0.9, 0.1) + 0.05 * rng.random((200, 46))
    assert set(score_by_votes(similarity, positive, (20,))[0]) == {1.0}
    assert set(score_by_votes(similarity, ~positive, (20,))[0]) == {0.0}
