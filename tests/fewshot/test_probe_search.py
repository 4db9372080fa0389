from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fewshot_cases import make_task

from scarce.fewshot import probe_search
from scarce.fewshot.evaluate import auc_by_cell, score_task, summarise
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.probe_search import PROBE_GRID, score_grid, search_probe


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_features(rng, task, dim=40):
    """Relu-like features that tell a little of every finding."""
    x = rng.normal(size=(len(task.images), dim))
    x[:, : task.labels.shape[1]] += 0.8 * task.labels
    return np.maximum(x + 0.5, 0).astype(np.float32)


def aucs_by_score_task(task, features, probe):
    return auc_by_cell(task, score_task(task, features, probe))


def test_every_probe_has_the_auc_that_score_task_gives_it(rng):
    task = make_task(rng, shots=(1, 4, 23), split="val")
    features = make_features(rng, task)
    for probe, *of_findings in zip(PROBE_GRID, *score_grid(task, features, PROBE_GRID), strict=True):
        expected = aucs_by_score_task(task, features, probe)
        np.testing.assert_allclose(of_findings, expected, atol=1e-12, err_msg=str(probe))


def test_findings_may_differ_in_their_shots_and_batches_make_no_difference(rng, monkeypatch):
    task = make_task(rng, findings=2, shots=(1, 4, 12), split="val")
    episodes = tuple(e for e in task.episodes if e.finding == "finding 0" or e.shots < 12)
    task = replace(
        task, episodes=episodes, shots=((1, 4, 12), (1, 4)), evaluated=(task.evaluated[0], task.evaluated[1][5:])
    )
    features, grid = make_features(rng, task), PROBE_GRID[3::4]
    monkeypatch.setattr(probe_search, "BATCH_NUMBERS", 200)
    found = score_grid(task, features, grid)
    assert [cells.shape for cells in found] == [(len(grid), 3, 4), (len(grid), 2, 4)]
    for index, probe in enumerate(grid):
        for cells, expected in zip(found, aucs_by_score_task(task, features, probe), strict=True):
            np.testing.assert_allclose(cells[index], expected, atol=1e-12)


def test_the_best_on_val_is_chosen_with_its_metrics(rng):
    task = make_task(rng, split="val")
    features = make_features(rng, task)
    probe, metrics = search_probe(task, features)
    every = [summarise(task, aucs_by_score_task(task, features, each)) for each in PROBE_GRID]
    best = max(each["val_auc"] for each in every)
    assert metrics == pytest.approx(every[PROBE_GRID.index(probe)])
    assert metrics["val_auc"] == pytest.approx(best)
    assert search_probe(task, features) == (probe, metrics)


def test_the_first_of_equal_probes_is_chosen(rng):
    task = make_task(rng, split="val")
    features = make_features(rng, task)
    same = [ProbeConfig(C=C, kind="prototype") for C in (1.0, 2.0, 3.0)]  # C plays no part in it
    assert search_probe(task, features, same)[0] is same[0]
    assert search_probe(task, features, same[::-1])[0] is same[2]


def test_features_that_need_scaling_get_it(rng):
    task = make_task(rng, split="val")
    features = make_features(rng, task)
    features[:, -1] = 1000 * rng.normal(size=len(features))  # drowns the others unless every feature is scaled
    grid = (ProbeConfig(1.0, "l2"), ProbeConfig(1.0, "standardise"))
    assert search_probe(task, features, grid)[0] == grid[1]


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_collapsed_features_tie_at_chance(rng, value):
    task = make_task(rng, split="val")
    features = np.full((len(task.images), 30), value, dtype=np.float32)
    for cells in score_grid(task, features, PROBE_GRID):
        np.testing.assert_allclose(cells, 0.5, atol=1e-12)


def test_the_default_grid_has_every_kind_but_the_one_that_needs_positions():
    assert {probe.kind for probe in PROBE_GRID} == {"logistic", "ridge", "prototype", "knn"}
    assert len(set(PROBE_GRID)) == len(PROBE_GRID)
    assert all(low < high for low, high in pairwise(probe_search.PENALTIES))


def test_probes_of_positions_are_searched_among_themselves(rng):
    task = make_task(rng, shots=(4,), split="val")
    features = np.stack([make_features(rng, task) for _ in range(3)], axis=1)
    grid = [ProbeConfig(C, kind="attention") for C in (0.01, 1.0)]
    for probe, *of_findings in zip(grid, *score_grid(task, features, grid), strict=True):
        for cells, expected in zip(of_findings, aucs_by_score_task(task, features, probe), strict=True):
            np.testing.assert_array_equal(cells, expected)


def test_what_it_cannot_search_is_refused(rng):
    task = make_task(rng, split="val")
    features = make_features(rng, task)
    with pytest.raises(ValueError, match="val task"):
        search_probe(replace(task, held_out="test"), features)
    attention = ProbeConfig(kind="attention")
    with pytest.raises(ValueError, match="none of positions"):
        search_probe(task, features, [ProbeConfig(), attention])
    with pytest.raises(ValueError, match="features \\[N, P, D\\]"):
        search_probe(task, features, [attention])
    with pytest.raises(ValueError, match="features \\[N, D\\]"):
        search_probe(task, features[:, None])
    features[3, 2] = np.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        search_probe(task, features)
