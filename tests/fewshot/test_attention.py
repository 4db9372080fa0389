import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from scarce.fewshot import attention
from scarce.fewshot.attention import fit_attention, score_by_attention
from scarce.fewshot.logistic import fit_logistic


def episodes(count=3, shots=6, positions=5, dim=8, evidence=3.0, seed=0):
    """Noise, but for one position of every positive image, each time another, that points along the first axis."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2 * shots, positions, dim, generator=generator, dtype=torch.float64)
    where = torch.randint(positions, (count, shots), generator=generator)
    x[torch.arange(count)[:, None], torch.arange(shots), where, 0] += evidence
    return x, (torch.arange(2 * shots) < shots).expand(count, -1)


def objective(x, positive, C, q, w, b):
    """What `fit_attention` minimises for one episode, written down from its docstring."""
    pooled = (torch.softmax(x @ q, dim=1).unsqueeze(2) * x).sum(1)
    sign = torch.where(positive, 1.0, -1.0)
    loss = F.softplus(-sign * (pooled @ w + b)).sum()
    variance = (x - x.mean(1, keepdim=True)).square().sum(2).mean()
    return w @ w / (2 * C) + loss + variance * (q @ q) / 2


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_the_solution_is_a_minimum_of_the_objective_and_below_the_start(C):
    x, positive = episodes()
    fitted = fit_attention(x, positive, C)
    for episode in range(3):
        point = [values[episode].clone().requires_grad_() for values in fitted]
        value = objective(x[episode], positive[episode], C, *point)
        for gradient in torch.autograd.grad(value, point):
            assert gradient.norm() < 1e-3
        start, level = fit_logistic(x[[episode]].mean(dim=2), positive[[episode]], C)
        assert value < objective(x[episode], positive[episode], C, torch.zeros(8).double(), start[0], level[0])
        assert fitted[0][episode].norm() > 1e-4


def test_for_the_query_found_the_classifier_is_scikit_learns():
    x, positive = episodes()
    queries, weights, intercepts = fit_attention(x, positive, 3.0)
    for episode in range(3):
        pooled = (torch.softmax(x[episode] @ queries[episode], dim=1).unsqueeze(2) * x[episode]).sum(1)
        peer = LogisticRegression(C=3.0, tol=1e-10, solver="newton-cholesky").fit(pooled, positive[episode])
        np.testing.assert_allclose(weights[episode], peer.coef_[0], rtol=1e-5, atol=1e-6)
        expected = peer.decision_function(pooled)
        actual = score_by_attention(x[episode], queries[episode], weights[episode], intercepts[episode])
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_evidence_in_one_position_is_found_where_the_mean_drowns_it():
    (x, positive), (held_out, truth) = (episodes(4, 20, 16, 32, evidence=4.0, seed=s) for s in (0, 1))
    fitted = fit_attention(x, positive, 1.0)
    plain = fit_logistic(x.mean(dim=2), positive, 1.0)
    found, drowned = [], []
    for episode in range(4):
        scores = score_by_attention(held_out[episode], *(values[episode] for values in fitted))
        found.append(roc_auc_score(truth[episode], scores))
        drowned.append(roc_auc_score(truth[episode], held_out[episode].mean(dim=1) @ plain[0][episode]))
    assert min(found) > 0.8
    assert np.mean(found) > np.mean(drowned) + 0.15


def test_positions_that_are_all_alike_give_the_logistic_probe():
    x, positive = episodes()
    x = x[:, :, :1].expand_as(x).contiguous()
    queries, weights, intercepts = fit_attention(x, positive, 10.0)
    expected = fit_logistic(x[:, :, 0], positive, 10.0)
    assert queries.abs().max() < 1e-8
    np.testing.assert_allclose(weights, expected[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(intercepts, expected[1], rtol=1e-6, atol=1e-8)


def test_a_query_held_at_zero_gives_the_logistic_probe_on_the_mean(monkeypatch):
    monkeypatch.setattr(attention, "STEPS", 0)
    x, positive = episodes()
    queries, weights, intercepts = fit_attention(x, positive, 10.0)
    expected = fit_logistic(x.mean(dim=2), positive, 10.0)
    assert not queries.any()
    np.testing.assert_allclose(weights, expected[0], rtol=1e-9, atol=1e-12)
    held_out = episodes(seed=1)[0][0]
    scores = score_by_attention(held_out, queries[0], weights[0], intercepts[0])
    np.testing.assert_allclose(scores, held_out.mean(1) @ expected[0][0] + expected[1][0], rtol=1e-9, atol=1e-12)


def test_the_scale_of_features_is_taken_up_by_C():
    x, positive = episodes()
    held_out = episodes(seed=1)[0]
    small, large = fit_attention(x, positive, 4.0), fit_attention(10 * x, positive, 4.0 / 100)
    for episode in range(3):
        one = score_by_attention(held_out[episode], *(values[episode] for values in small))
        other = score_by_attention(10 * held_out[episode], *(values[episode] for values in large))
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3)


def test_the_order_of_positions_plays_no_part():
    x, positive = episodes()
    one, other = fit_attention(x, positive, 4.0), fit_attention(x[:, :, [3, 1, 4, 0, 2]], positive, 4.0)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_an_episode_does_not_depend_on_those_beside_it():
    x, positive = episodes(count=6)
    x[2] *= 30  # needs many more steps than the others
    together = fit_attention(x, positive, 10.0)
    for episode in (0, 2, 5):
        for a, b in zip(together, fit_attention(x[[episode]], positive[[episode]], 10.0), strict=True):
            np.testing.assert_allclose(a[episode], b[0], rtol=1e-4, atol=1e-6)


def test_the_same_episodes_give_the_same_bytes():
    x, positive = episodes()
    for a, b in zip(fit_attention(x, positive, 10.0), fit_attention(x, positive, 10.0), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
