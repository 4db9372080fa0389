import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from scarce.fewshot.neighbours import score_by_neighbours


def episode(shots, dim=6):
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, dim)), rng.normal(size=(2 * shots, dim)), np.arange(2 * shots) < shots


def scores_of(held_out, x, positive, neighbours):
    return score_by_neighbours(torch.tensor(held_out), torch.tensor(x), torch.tensor(positive), neighbours).numpy()


@pytest.mark.parametrize(("shots", "neighbours"), [(1, 20), (5, 3), (10, 20), (10, 50), (50, 20)])
def test_equals_scikit_learn(shots, neighbours):
    held_out, x, positive = episode(shots)
    peer = KNeighborsClassifier(
        min(neighbours, 2 * shots), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(x, positive)
    actual = scores_of(held_out, x, positive, neighbours)
    np.testing.assert_allclose(actual, peer.predict_proba(held_out)[:, 1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shots", [1, 5, 10])
def test_where_all_vote_no_two_images_are_tied(shots):
    held_out, x, positive = episode(shots)
    assert len(np.unique(scores_of(held_out, x, positive, 20))) == len(held_out)


def test_lengths_of_features_play_no_part():
    held_out, x, positive = episode(5)
    lengths = np.random.default_rng(1).uniform(0.1, 10, size=(10, 1))
    once, again = scores_of(held_out, x, positive, 5), scores_of(3 * held_out, lengths * x, positive, 5)
    np.testing.assert_allclose(again, once, rtol=1e-9)
