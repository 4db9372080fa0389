import json
from dataclasses import replace

import numpy as np
import pytest
from fewshot_cases import make_task

from scarce.fewshot.compare import compare
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores

CONFIG = ProtocolConfig(bootstrap=300)


@pytest.fixture(scope="module")
def task():
    return make_task(np.random.default_rng(0), positives=20)


@pytest.fixture(scope="module")
def scores(task):
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(len(task.images), 6)).astype(np.float32)
    good = noise.copy()
    good[:, :3] += 3 * task.labels
    return {"good": score_task(task, good, ProbeConfig()), "noise": score_task(task, noise, ProbeConfig())}


@pytest.fixture(scope="module")
def result(task, scores):
    models = {"chosen": scores["good"], "noise": scores["noise"], "copy": scores["good"], "imagenet": "no file"}
    return compare(task, models, CONFIG)


def test_the_summary_has_every_number_and_is_json(result, task):
    json.dumps(result, allow_nan=False)
    assert result["baselines"]["imagenet"] == {"available": False, "reason": "no file"}
    for model in (result["chosen"], result["baselines"]["noise"]):
        assert [(cell["finding"], cell["shots"]) for cell in model["cells"]] == [
            (finding, shots) for finding in task.findings for shots in (1, 4)
        ]
        assert model["auc"] == pytest.approx(np.mean([cell["auc"] for cell in model["cells"]]))
        for number in (model, *model["cells"]):
            assert 0 <= number["ci_low"] <= number["auc"] <= number["ci_high"] <= 1
            assert 0 < number["p_chance"] <= 1
        assert all(cell["p_chance"] <= cell["p_chance_holm"] for cell in model["cells"])
        assert all(cell["test_positives"] == cell["test_positive_patients"] == 20 for cell in model["cells"])
    assert result["protocol"]["patients"] == 60


def test_a_real_difference_is_found_and_none_where_there_is_none(result):
    noise, copy = (result["baselines"][name]["difference"] for name in ("noise", "copy"))
    assert noise["ci_low"] > 0
    assert noise["p"] < 0.05
    assert noise["auc"] == pytest.approx(result["chosen"]["auc"] - result["baselines"]["noise"]["auc"])
    assert copy == {"auc": 0.0, "ci_low": 0.0, "ci_high": 0.0, "p": 1.0, "p_holm": 1.0}
    assert noise["p_holm"] == pytest.approx(2 * noise["p"])
    assert result["baselines"]["noise"]["p_chance"] > 0.05


def test_differences_change_sign_with_the_roles(task, scores, result):
    swapped = compare(task, {"chosen": scores["noise"], "good": scores["good"]}, CONFIG)["baselines"]["good"]
    there, back = result["baselines"]["noise"]["difference"], swapped["difference"]
    assert back["auc"] == -there["auc"]
    assert back["ci_low"] == pytest.approx(-there["ci_high"], abs=1e-12)
    assert back["ci_high"] == pytest.approx(-there["ci_low"], abs=1e-12)
    assert back["p"] == there["p"]


def test_the_same_scores_give_the_same_bytes(task, scores):
    models = {"chosen": scores["good"], "noise": scores["noise"]}
    assert json.dumps(compare(task, models, CONFIG)) == json.dumps(compare(task, models, CONFIG))


def first_seeds(scores, count):
    return Scores(tuple(values[:, :count] for values in scores.values))


def test_a_baseline_on_fewer_seeds_is_compared_on_these_alone(task, scores, result):
    """As if the task had only these seeds, for both sides of the difference; nobody else's numbers change."""
    few = {"chosen": scores["good"], "noise": first_seeds(scores["noise"], 3), "copy": scores["good"]}
    mixed = compare(task, few, CONFIG)
    episodes = tuple(episode for episode in task.episodes if episode.seed < 3)
    smaller = replace(task, seeds=task.seeds[:3], episodes=episodes)
    alone = compare(
        smaller, {"chosen": first_seeds(scores["good"], 3), "noise": first_seeds(scores["noise"], 3)}, CONFIG
    )
    row, expected = mixed["baselines"]["noise"], alone["baselines"]["noise"]
    assert row["seeds"] == 3
    assert row["cells"] == expected["cells"]
    for key in ("auc", "ci_low", "ci_high", "p_chance"):
        assert row[key] == expected[key]
    for key in ("auc", "ci_low", "ci_high", "p"):
        assert row["difference"][key] == expected["difference"][key]
    assert row["difference"]["auc"] == pytest.approx(alone["chosen"]["auc"] - row["auc"])
    assert row["learning_curve"] == {"available": False, "reason": "scored on 3 of 4 episodes a cell"}
    assert mixed["chosen"] == result["chosen"]
    assert mixed["baselines"]["copy"] == result["baselines"]["copy"]


def test_scores_that_do_not_fit_the_task_are_refused(task, scores):
    good = scores["good"]
    with_nan = Scores((np.where(np.arange(4)[:, None] == 3, np.nan, good.values[0]), *good.values[1:]))
    for bad, message in (
        (first_seeds(good, 1), "2 to 4 seeds"),
        (Scores((good.values[0][:, :2], *good.values[1:])), "2 to 4 seeds"),
        (Scores(tuple(values[..., :-1] for values in good.values)), "images"),
        (with_nan, "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(task, {"chosen": good, "bad": bad}, CONFIG)
    with pytest.raises(ValueError, match="the chosen model was scored on 3 of 4 seeds"):
        compare(task, {"chosen": first_seeds(good, 3), "noise": scores["noise"]}, CONFIG)


def test_every_model_on_all_seeds_has_a_learning_curve_or_the_reason_why_not(task, scores, result):
    reason = "a learning curve needs at least 3 different shot counts, got 1, 4"
    for row in (result["chosen"], result["baselines"]["noise"]):
        assert row["learning_curve"] == {"available": False, "reason": reason}
    assert "learning_curve" not in result["baselines"]["imagenet"]
    longer = make_task(np.random.default_rng(0), shots=(1, 4, 12))
    features = np.random.default_rng(1).normal(size=(len(longer.images), 6)).astype(np.float32)
    features[:, :3] += longer.labels
    models = {
        "chosen": score_task(longer, features, ProbeConfig()),
        "again": score_task(longer, features, ProbeConfig()),
    }
    with_target = compare(longer, models, replace(CONFIG, target_auc=0.7))
    json.dumps(with_target, allow_nan=False)
    curve = with_target["chosen"]["learning_curve"]
    assert curve["labels_for"]["target"] == 0.7
    assert with_target["baselines"]["again"]["learning_curve"] == curve
    by_shots = {n: [cell["auc"] for cell in with_target["chosen"]["cells"] if cell["shots"] == n] for n in (1, 4, 12)}
    for point in curve["observed"]:
        assert point["auc"] == pytest.approx(np.mean(by_shots[point["shots"]]))
    assert "labels_for" not in compare(longer, models, CONFIG)["chosen"]["learning_curve"]
