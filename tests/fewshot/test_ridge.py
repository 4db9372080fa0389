import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from scarce.fewshot.ridge import fit_ridge


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e2])
@pytest.mark.parametrize(("positives", "negatives", "dim"), [(1, 1, 40), (5, 5, 40), (3, 9, 4), (50, 50, 20)])
def test_equals_scikit_learn(C, positives, negatives, dim):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, positives + negatives, dim)) + 5  # an offset that only the intercept may take
    positive = np.arange(positives + negatives) < positives
    weights, intercepts = fit_ridge(torch.tensor(x), torch.tensor(positive).expand(3, -1), C)
    for episode in range(3):
        peer = Ridge(alpha=1 / C, solver="cholesky").fit(x[episode], 2.0 * positive - 1)
        np.testing.assert_allclose(weights[episode], peer.coef_, rtol=1e-8, atol=1e-12)
        assert intercepts[episode].item() == pytest.approx(peer.intercept_, rel=1e-8, abs=1e-10)


def test_identical_images_in_both_classes_give_no_weights():
    weights, intercepts = fit_ridge(torch.ones(1, 6, 4, dtype=torch.float64), torch.arange(6)[None] < 2, 100.0)
    np.testing.assert_allclose(weights, 0, atol=1e-12)
    assert intercepts.item() == pytest.approx(-1 / 3)  # the mean label
