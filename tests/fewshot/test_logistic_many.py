import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from scarce.fewshot import logistic_many
from scarce.fewshot.logistic import solve_dual
from scarce.fewshot.logistic_many import solve_many

LADDER = torch.tensor([1e-3, 1e-2, 1.0, 1e2, 1e3], dtype=torch.float64)


def gram_of(x):
    centred = torch.as_tensor(x, dtype=torch.float64)
    centred = centred - centred.mean(dim=1, keepdim=True)
    return centred @ centred.mT


def make(rng, kind, images, scale=1.0, episodes=3, dim=40):
    """Features of the shape [episodes, images, dim], half of them positive."""
    x = rng.normal(size=(episodes, images, dim))
    if kind == "separable":
        x[:, : images // 2, 0] += 30
    if kind == "duplicates":
        x[:, 1::2] = x[:, ::2]
    if kind == "in both classes":
        x[:, images // 2 :] = x[:, : images // 2]
    if kind == "zeros":
        x[:] = 0
    if kind == "nearly collapsed":
        return 1 + 1e-8 * x
    return scale * x / np.linalg.norm(x, axis=2, keepdims=True).clip(1e-12)


def assert_solved(gram, positive, C, kept=None):
    """Decision values of every problem are those of the Cholesky solver on its images cut out."""
    dual, intercept = solve_many(gram, positive, C, kept)
    assert dual.shape == (*positive.shape, len(C))
    for problem, value in enumerate(C.tolist()):
        rows = torch.ones(gram.shape[1], dtype=torch.bool) if kept is None else kept[:, problem]
        expected, level = solve_dual(gram[:, rows][:, :, rows], positive[:, rows], value)
        assert not dual[:, ~rows, problem].any()
        decisions = (gram @ dual[:, :, [problem]]).squeeze(2) + intercept[:, [problem]]
        wanted = (gram[:, :, rows] @ expected.unsqueeze(2)).squeeze(2) + level.unsqueeze(1)
        torch.testing.assert_close(decisions, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("images", [2, 10, 46, 100])
@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("noise", 1.0),
        ("noise", 20.0),
        ("separable", 1.0),
        ("separable", 1e3),
        ("duplicates", 1.0),
        ("in both classes", 1.0),
        ("zeros", 1.0),
        ("nearly collapsed", 1.0),
    ],
)
def test_every_problem_is_solved(kind, scale, images):
    gram = gram_of(make(np.random.default_rng(0), kind, images, scale))
    assert_solved(gram, (torch.arange(images) < images // 2).expand(3, -1), LADDER)


def test_images_left_out_are_as_if_they_were_not_there():
    rng = np.random.default_rng(0)
    positive = torch.tensor(rng.permuted(np.tile(np.arange(24) < 8, (4, 1)), axis=1))
    kept = torch.tensor(rng.random((24, len(LADDER))) < 0.8)
    assert_solved(gram_of(make(rng, "noise", 24, episodes=4)), positive, LADDER, kept)


def test_equals_scikit_learn_with_few_positives():
    rng = np.random.default_rng(0)
    x, positive = make(rng, "noise", 30, episodes=1)[0], np.arange(30) < 4
    centred = x - x.mean(axis=0)
    dual, intercept = solve_many(gram_of(x[None]), torch.tensor(positive)[None], LADDER)
    for problem, C in enumerate(LADDER.tolist()):
        peer = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="newton-cholesky").fit(centred, positive)
        np.testing.assert_allclose(dual[0, :, problem].numpy() @ centred, peer.coef_[0], rtol=1e-5, atol=1e-7)
        assert intercept[0, problem].item() == pytest.approx(peer.intercept_[0], rel=1e-5, abs=1e-7)


def test_an_episode_does_not_depend_on_those_beside_it():
    x = make(np.random.default_rng(0), "noise", 10, episodes=8)
    x[3] *= 1e3  # needs many more steps than the others
    gram, positive = gram_of(x), (torch.arange(10) < 5).expand(8, -1)
    together, _ = solve_many(gram, positive, LADDER)
    for episode in range(8):
        alone, _ = solve_many(gram[[episode]], positive[[episode]], LADDER)
        torch.testing.assert_close(together[episode], alone[0], rtol=1e-7, atol=1e-9)


def test_what_gradients_do_not_solve_in_time_is_solved_by_factorisation(monkeypatch):
    monkeypatch.setattr(logistic_many, "MAX_NEWTON_STEPS", 3)
    gram = gram_of(make(np.random.default_rng(0), "noise", 12))
    kept = torch.ones(12, len(LADDER), dtype=torch.bool)
    kept[[0, 7], 3] = False
    assert_solved(gram, (torch.arange(12) < 6).expand(3, -1), LADDER, kept)


def test_not_a_number_is_an_error_not_a_solution():
    gram = torch.full((1, 4, 4), float("nan"), dtype=torch.float64)
    with pytest.raises((FloatingPointError, torch.linalg.LinAlgError)):
        solve_many(gram, torch.arange(4)[None] < 2, LADDER)
