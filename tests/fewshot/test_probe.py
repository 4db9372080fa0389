import numpy as np
import pytest
import torch

from scarce.errors import UserError
from scarce.fewshot.probe import SEARCH_SPACE, ProbeConfig, fit_probe, normalise

HOW = ["l2", "standardise"]


@pytest.mark.parametrize("shape", [(50, 7), (50, 3, 7)], ids=["pooled", "positions"])
@pytest.mark.parametrize("how", HOW)
def test_normalising_looks_at_no_held_out_image(how, shape):
    rng = np.random.default_rng(0)
    features = rng.gamma(1.0, size=shape).astype(np.float32)
    features[..., 3] = 2.5  # a constant feature
    reference = np.arange(20)
    before = normalise(features, reference, how)
    features[30:] *= 100
    np.testing.assert_array_equal(normalise(features, reference, how)[:30], before[:30])
    assert before.shape == shape
    assert np.isfinite(before).all()
    pooled = before if before.ndim == 2 else before.mean(axis=1)
    assert (pooled[:20] ** 2).sum(axis=1).mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("how", HOW)
def test_positions_are_scaled_as_their_mean_is(how):
    features = np.random.default_rng(0).gamma(1.0, size=(30, 4, 6)).astype(np.float32)
    of_positions = normalise(features, np.arange(20), how)
    of_means = normalise(features.mean(axis=1), np.arange(20), how)
    np.testing.assert_allclose(of_positions.mean(axis=1), of_means, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
def test_an_image_without_any_activation_stays_finite(how, shape):
    features = np.ones(shape, dtype=np.float32)
    features[2] = 0
    assert np.isfinite(normalise(features, np.arange(5), how)).all()


@pytest.mark.parametrize("kind", SEARCH_SPACE["kind"].values)
def test_every_kind_gives_one_scorer_an_episode_that_ranks_what_it_was_shown(kind):
    generator = torch.Generator().manual_seed(0)
    config = ProbeConfig(C=100.0, kind=kind)
    shape = (3, 8, 5, 6) if config.uses_positions else (3, 8, 6)
    features = torch.randn(shape, generator=generator, dtype=torch.float64)
    positive = torch.arange(8).expand(3, -1) < 4
    features[positive] += 2 * torch.eye(6, dtype=torch.float64)[0]
    scorers = fit_probe(features, positive, config)
    assert len(scorers) == 3
    for x, scorer in zip(features, scorers, strict=True):
        scores = scorer(x)
        assert scores.shape == (8,)
        assert scores.dtype == torch.float64
        assert scores[:4].mean() > scores[4:].mean()


def test_the_search_space_stays_within_what_the_probe_accepts():
    assert set(SEARCH_SPACE) == set(ProbeConfig.__dataclass_fields__)
    for C in (SEARCH_SPACE["C"].low, SEARCH_SPACE["C"].high):
        assert ProbeConfig(C=C).C == C
    for name in ("normalise", "kind", "neighbours"):
        assert getattr(ProbeConfig(), name) in SEARCH_SPACE[name].values
        for value in SEARCH_SPACE[name].values:
            assert getattr(ProbeConfig(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"C": 0.0}, "C must be a positive number"),
        ({"C": float("nan")}, "C must be a positive number"),
        ({"kind": "svm"}, "'svm': expected one of logistic, prototype, ridge, knn, attention"),
        ({"normalise": "L2"}, "'L2': expected one of l2, standardise"),
        ({"neighbours": 1}, "at least 2 neighbours"),
    ],
)
def test_what_the_probe_does_not_accept_is_one_clear_line(values, words):
    with pytest.raises(UserError, match=words):
        ProbeConfig(**values)
