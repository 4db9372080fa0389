import json

import numpy as np
import pytest
from fewshot_cases import make_task

from scarce.fewshot.compare import compare
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig

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
