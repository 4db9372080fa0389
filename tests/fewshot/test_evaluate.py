import numpy as np
import pytest
from fewshot_cases import make_task
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from scarce.fewshot import evaluate
from scarce.fewshot.evaluate import auc_by_cell, score_task, validation
from scarce.fewshot.probe import ProbeConfig, normalise


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_scores_are_those_of_one_probe_an_episode(rng):
    task = make_task(rng, findings=2)
    features = rng.normal(size=(len(task.images), 20)).astype(np.float32)
    scores = score_task(task, features, ProbeConfig(C=3.0))
    x = normalise(features, task.reference, "l2")
    for episode in task.episodes:
        finding, cell = task.place(episode)
        rows = np.concatenate([episode.positives, episode.negatives])
        peer = LogisticRegression(C=3.0, tol=1e-8, solver="newton-cholesky").fit(x[rows], task.labels[rows, finding])
        expected = peer.decision_function(x[task.evaluated[finding]])
        np.testing.assert_allclose(scores.values[finding][cell], expected, atol=1e-6)
        assert auc_by_cell(task, scores)[finding][cell] == pytest.approx(roc_auc_score(task.truth(finding), expected))


def test_episodes_in_several_batches_score_alike(rng, monkeypatch):
    task = make_task(rng)
    features = rng.normal(size=(len(task.images), 20)).astype(np.float32)
    whole = score_task(task, features, ProbeConfig())
    monkeypatch.setattr(evaluate, "BATCH_NUMBERS", 500)
    for a, b in zip(whole.values, score_task(task, features, ProbeConfig()).values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_validation_averages_cells_and_tells_the_spread_over_seeds(rng):
    task = make_task(rng, split="val")
    scores = score_task(task, rng.normal(size=(len(task.images), 20)).astype(np.float32), ProbeConfig())
    cells = np.stack(auc_by_cell(task, scores))  # [findings, shots, seeds]
    metrics = validation(task, scores)
    assert metrics["val_auc"] == pytest.approx(cells.mean())
    assert metrics["val_auc_se"] == pytest.approx(cells.mean(axis=(0, 1)).std(ddof=1) / 2)
    assert metrics["val_auc_1shot"] == pytest.approx(cells[:, 0].mean())
    assert set(metrics) == {"val_auc", "val_auc_se", "val_auc_1shot", "val_auc_4shot"}


def test_informative_features_score_high_and_held_out_labels_play_no_part(rng):
    task = make_task(rng, findings=1)
    features = rng.normal(size=(len(task.images), 5)).astype(np.float32)
    features[:, 0] += 6 * task.labels[:, 0]
    scores = score_task(task, features, ProbeConfig())
    assert validation(task, scores)["val_auc_4shot"] > 0.9
    task.labels[task.evaluated[0]] = rng.permutation(task.labels[task.evaluated[0]])
    np.testing.assert_array_equal(score_task(task, features, ProbeConfig()).values[0], scores.values[0])


def test_features_that_are_not_finite_are_an_error(rng):
    task = make_task(rng)
    features = np.zeros((len(task.images), 3), dtype=np.float32)
    features[5, 1] = np.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        score_task(task, features, ProbeConfig())


def test_collapsed_features_score_at_chance(rng):
    task = make_task(rng)
    for how in ("l2", "standardise"):
        scores = score_task(task, np.ones((len(task.images), 8), dtype=np.float32), ProbeConfig(normalise=how))
        assert validation(task, scores)["val_auc"] == pytest.approx(0.5, abs=1e-3)
