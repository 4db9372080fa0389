import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from scarce.fewshot.auc import auc
from scarce.fewshot.logistic import fit_logistic, solve_dual


def data(rng, episodes, positives, negatives, dim, shift, scale):
    x = rng.normal(size=(episodes, positives + negatives, dim))
    x[:, :positives, 0] += shift
    x *= scale / np.linalg.norm(x, axis=2, keepdims=True)
    return x, np.arange(positives + negatives) < positives


def check_against_scikit_learn(rng, x, positive, C):
    weights, intercepts = fit_logistic(torch.tensor(x), torch.tensor(positive).expand(len(x), -1), C)
    held_out = rng.normal(size=(200, x.shape[2]))
    truth = rng.random(200) < 0.4
    for episode in range(len(x)):
        peer = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="newton-cholesky").fit(x[episode], positive)
        np.testing.assert_allclose(weights[episode], peer.coef_[0], rtol=1e-5, atol=1e-6)
        assert intercepts[episode].item() == pytest.approx(peer.intercept_[0], rel=1e-5, abs=1e-6)
        scores = held_out @ weights[episode].numpy() + intercepts[episode].item()
        expected = roc_auc_score(truth, peer.decision_function(held_out))
        assert auc(scores, truth) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("C", [1e-3, 1e-2, 1.0, 10.0, 1e2])
@pytest.mark.parametrize("shots", [1, 2, 5, 23, 50])
@pytest.mark.parametrize("shift", [0.0, 30.0], ids=["noise", "separable"])
def test_equals_scikit_learn(shots, C, shift):
    rng = np.random.default_rng(0)
    x, positive = data(rng, episodes=2, positives=shots, negatives=shots, dim=40, shift=shift, scale=1.0)
    check_against_scikit_learn(rng, x, positive, C)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    positives=st.integers(1, 12),
    negatives=st.integers(1, 12),
    dim=st.integers(2, 30),
    shift=st.floats(0, 5),
    scale=st.floats(0.1, 20),
    log_C=st.floats(-3, 2),
)
def test_equals_scikit_learn_on_any_shape(seed, positives, negatives, dim, shift, scale, log_C):
    rng = np.random.default_rng(seed)
    x, positive = data(rng, 2, positives, negatives, dim, shift, scale)
    check_against_scikit_learn(rng, x, positive, 10**log_C)


def test_an_episode_does_not_depend_on_those_beside_it():
    rng = np.random.default_rng(0)
    x, positive = data(rng, episodes=8, positives=5, negatives=5, dim=30, shift=1.0, scale=1.0)
    x[3] *= 1e3  # needs many more Newton steps than the others
    batch, _ = fit_logistic(torch.tensor(x), torch.tensor(positive).expand(8, -1), 10.0)
    for episode in range(8):
        alone, _ = fit_logistic(torch.tensor(x[[episode]]), torch.tensor(positive)[None], 10.0)
        np.testing.assert_allclose(batch[episode], alone[0], rtol=1e-8, atol=1e-12)


def test_identical_images_in_both_classes_give_no_weights():
    x = torch.ones(1, 6, 4, dtype=torch.float64)
    weights, intercepts = fit_logistic(x, torch.arange(6)[None] < 3, 100.0)
    np.testing.assert_allclose(weights, 0, atol=1e-12)
    assert intercepts.item() == pytest.approx(0, abs=1e-9)


def test_not_a_number_is_an_error_not_a_score():
    x = torch.full((1, 4, 3), float("nan"), dtype=torch.float64)
    with pytest.raises((FloatingPointError, torch.linalg.LinAlgError)):
        fit_logistic(x, torch.arange(4)[None] < 2, 1.0)


@pytest.mark.parametrize("guess", ["the solution", "that of other features", "far off"])
def test_a_guess_changes_the_way_and_not_the_solution(guess):
    rng = np.random.default_rng(0)
    x, positive = data(rng, episodes=4, positives=6, negatives=6, dim=20, shift=1.0, scale=1.0)
    features, truth = torch.tensor(x), torch.tensor(positive).expand(4, -1)
    centred = features - features.mean(dim=1, keepdim=True)
    gram = centred @ centred.mT
    dual, intercept = solve_dual(gram, truth, 30.0)
    starts = {
        "the solution": (dual, intercept),
        "that of other features": solve_dual(gram.roll(1, 0), truth, 30.0),
        "far off": (100 * torch.randn_like(dual, generator=torch.Generator().manual_seed(0)), intercept + 50),
    }
    again, same = solve_dual(gram, truth, 30.0, starts[guess])
    np.testing.assert_allclose(again, dual, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(same, intercept, rtol=1e-7, atol=1e-10)
