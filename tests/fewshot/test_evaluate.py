import numpy as np
import pytest
from fewshot_cases import make_task
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from scarce.fewshot import evaluate
from scarce.fewshot.evaluate import auc_by_cell, score_task, validation
from scarce.fewshot.probe import ProbeConfig, normalise


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def logistic(x, y, held_out):
    return LogisticRegression(C=3.0, tol=1e-8, solver="newton-cholesky").fit(x, y).decision_function(held_out)


def ridge(x, y, held_out):
    return Ridge(alpha=1 / 3.0).fit(x, 2.0 * y - 1).predict(held_out)


def prototype(x, y, held_out):
    near, far = (np.linalg.norm(held_out - x[of].mean(axis=0), axis=1) ** 2 for of in (y, ~y))
    return far - near


def knn(x, y, held_out):
    peer = KNeighborsClassifier(min(5, len(x)), metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    return peer.fit(x, y).predict_proba(held_out)[:, 1]


@pytest.mark.parametrize("peer", [logistic, ridge, prototype, knn])
@pytest.mark.parametrize("how", ["l2", "standardise"])
def test_scores_are_those_of_one_probe_an_episode(rng, peer, how):
    task = make_task(rng, findings=2)
    features = rng.normal(size=(len(task.images), 20)).astype(np.float32)
    scores = score_task(task, features, ProbeConfig(3.0, how, peer.__name__, neighbours=5))
    x = normalise(features, task.reference, how)
    for episode in task.episodes:
        finding, cell = task.place(episode)
        rows = np.concatenate([episode.positives, episode.negatives])
        expected = peer(x[rows], task.labels[rows, finding], x[task.evaluated[finding]])
        np.testing.assert_allclose(scores.values[finding][cell], expected, atol=1e-6)
        assert auc_by_cell(task, scores)[finding][cell] == pytest.approx(roc_auc_score(task.truth(finding), expected))


@pytest.mark.parametrize("how", ["l2", "standardise"])
def test_attention_over_equal_positions_is_the_logistic_probe(rng, how):
    task = make_task(rng)
    features = rng.gamma(1.0, size=(len(task.images), 20)).astype(np.float32)
    positions = np.repeat(features[:, None], 3, axis=1)
    attention = score_task(task, positions, ProbeConfig(3.0, how, "attention"))
    for a, b in zip(attention.values, score_task(task, features, ProbeConfig(3.0, how)).values, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_attention_finds_what_the_mean_over_positions_drowns(rng):
    task = make_task(rng, findings=1, shots=(20,), positives=40)
    positions = rng.normal(size=(len(task.images), 16, 24)).astype(np.float32)
    ill = np.flatnonzero(task.labels[:, 0])
    positions[ill, rng.integers(16, size=len(ill)), 0] += 4
    found = validation(task, score_task(task, positions, ProbeConfig(1.0, "standardise", "attention")))
    drowned = validation(task, score_task(task, positions.mean(axis=1), ProbeConfig(1.0, "standardise")))
    assert found["val_auc"] > drowned["val_auc"] + 0.2


@pytest.mark.parametrize("kind", ["logistic", "knn", "attention"])
def test_a_probe_takes_features_of_its_own_shape_only(rng, kind):
    task = make_task(rng)
    shape = (len(task.images), 5) if kind == "attention" else (len(task.images), 2, 5)
    with pytest.raises(ValueError, match=rf"{kind} probe takes features \[N"):
        score_task(task, rng.normal(size=shape).astype(np.float32), ProbeConfig(kind=kind))


@pytest.mark.parametrize("kind", ["logistic", "prototype", "ridge", "knn", "attention"])
def test_episodes_and_images_in_several_parts_score_alike(rng, monkeypatch, kind):
    task = make_task(rng)
    probe = ProbeConfig(kind=kind)
    shape = (len(task.images), 3, 20) if probe.uses_positions else (len(task.images), 20)
    features = rng.normal(size=shape).astype(np.float32)
    whole = score_task(task, features, probe)
    monkeypatch.setattr(evaluate, "BATCH_NUMBERS", 500)
    monkeypatch.setattr(evaluate, "PART_NUMBERS", 500)
    for a, b in zip(whole.values, score_task(task, features, probe).values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5 if probe.uses_positions else 1e-9, atol=1e-7)


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error(rng, value):
    task = make_task(rng)
    features = np.zeros((len(task.images), 3), dtype=np.float32)
    features[5, 1] = value
    with pytest.raises(FloatingPointError, match="diverged"):
        score_task(task, features, ProbeConfig())


@pytest.mark.parametrize("kind", ["logistic", "prototype", "ridge", "knn", "attention"])
@pytest.mark.parametrize("how", ["l2", "standardise"])
def test_collapsed_features_score_at_chance(rng, kind, how):
    task = make_task(rng)
    probe = ProbeConfig(normalise=how, kind=kind)
    shape = (len(task.images), 3, 8) if probe.uses_positions else (len(task.images), 8)
    scores = score_task(task, np.ones(shape, dtype=np.float32), probe)
    assert validation(task, scores)["val_auc"] == pytest.approx(0.5, abs=1e-3)
