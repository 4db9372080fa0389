import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegressionCV

from scarce.fewshot import logistic_cv
from scarce.fewshot.logistic_cv import fit_logistic_cv

CS = (0.01, 0.1, 1.0, 10.0, 100.0)


def make(rng, episodes, positives, negatives, dim=60, shift=1.0):
    """Features of norm 1, float32, positives first."""
    x = rng.normal(size=(episodes, positives + negatives, dim)) + 0.5
    x[:, :positives, :5] += shift
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    return x.astype(np.float32), np.arange(positives + negatives) < positives


def fit(x, positive, folds):
    return fit_logistic_cv(torch.tensor(x), torch.tensor(positive), CS, folds)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (5, 5), (7, 12), (23, 23), (50, 50)])
def test_equals_scikit_learn(positives, negatives):
    x, positive = make(np.random.default_rng(0), 6, positives, negatives)
    folds = min(5, positives)
    weights, intercepts, chosen = fit(x, positive, folds)
    peers = [
        LogisticRegressionCV(Cs=CS, cv=folds, scoring="accuracy", tol=1e-10, max_iter=100_000).fit(features, positive)
        for features in x
    ]
    assert chosen.tolist() == [peer.C_[0] for peer in peers]
    np.testing.assert_allclose(weights, [peer.coef_[0] for peer in peers], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(intercepts, [peer.intercept_[0] for peer in peers], rtol=1e-4, atol=1e-4)


def test_these_episodes_do_not_all_choose_the_same():
    x, positive = make(np.random.default_rng(0), 6, 23, 23)
    assert len(set(fit(x, positive, 5)[2].tolist())) > 1


def test_the_first_of_equally_good_values_is_chosen():
    x, positive = make(np.random.default_rng(0), 2, 10, 10, shift=100.0)  # every C tells all images
    assert fit(x, positive, 5)[2].tolist() == [0.01, 0.01]
    backwards = fit_logistic_cv(torch.tensor(x), torch.tensor(positive), CS[::-1], 5)
    assert backwards[2].tolist() == [100.0, 100.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_make_no_difference_and_features_stay_as_they_were(dtype, monkeypatch):
    x, positive = make(np.random.default_rng(0), 7, 10, 10)
    features = torch.tensor(x.astype(dtype))
    whole = fit_logistic_cv(features, torch.tensor(positive), CS, 5)
    monkeypatch.setattr(logistic_cv, "CACHED_NUMBERS", 2 * x[0].size)
    for one, other in zip(whole, fit_logistic_cv(features, torch.tensor(positive), CS, 5), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(features, x)
