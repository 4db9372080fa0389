import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from scarce.fewshot.prototype import fit_prototypes


@pytest.mark.filterwarnings("ignore:invalid value")  # of scikit-learn, which divides by the spread in a class
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (5, 5), (2, 9)])
def test_scores_are_differences_of_distances_and_decide_as_scikit_learn(positives, negatives):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, positives + negatives, 8))
    positive = np.arange(positives + negatives) < positives
    held_out = rng.normal(size=(200, 8))
    weights, intercepts = fit_prototypes(torch.tensor(x), torch.tensor(positive).expand(3, -1))
    for episode in range(3):
        scores = held_out @ weights[episode].numpy() + intercepts[episode].item()
        distances = [((held_out - x[episode][of].mean(axis=0)) ** 2).sum(axis=1) for of in (positive, ~positive)]
        np.testing.assert_allclose(scores, distances[1] - distances[0], rtol=1e-9, atol=1e-9)
        decisions = NearestCentroid().fit(x[episode], positive).predict(held_out)
        np.testing.assert_array_equal(scores > 0, decisions)
