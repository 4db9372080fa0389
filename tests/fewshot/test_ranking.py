import json

import numpy as np
import pytest
from fewshot_cases import make_task
from scipy.stats import rankdata

from scarce.errors import UserError
from scarce.fewshot import statistics
from scarce.fewshot.compare import compare
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.ranking import rank_models, seed_weights
from scarce.fewshot.task import Scores

CONFIG = ProtocolConfig(bootstrap=300)


def made_up(rng, task, separation):
    """One pretraining run's scores: probes agree about the patients in part."""
    values = []
    for finding, (shots, rows) in enumerate(zip(task.shots, task.evaluated, strict=True)):
        patients = rng.normal(size=len(rows)) + rng.normal(size=(len(shots), len(task.seeds), len(rows)))
        values.append(separation * task.truth(finding) + patients)
    return Scores(tuple(values))


def runs_of(rng, task, separation, seeds=3):
    return [made_up(rng, task, separation) for _ in range(seeds)]


@pytest.fixture(scope="module")
def task():
    return make_task(np.random.default_rng(0), findings=2, positives=30, negatives=60)


@pytest.fixture(scope="module")
def models(task):
    rng = np.random.default_rng(1)
    return {"weak": runs_of(rng, task, 0.4), "good": runs_of(rng, task, 3.0), "middling": runs_of(rng, task, 1.3, 2)}


@pytest.fixture(scope="module")
def reference(task):
    rng = np.random.default_rng(2)
    return {"weak": runs_of(rng, task, 0.4), "good": runs_of(rng, task, 0.4)}


@pytest.fixture(scope="module")
def ranking(task, models, reference):
    return rank_models(task, models, reference, CONFIG)


def test_methods_are_ranked_and_every_number_has_its_interval(ranking):
    json.dumps(ranking, allow_nan=False)
    assert [row["method"] for row in ranking["methods"]] == ["good", "middling", "weak"]
    assert [row["rank"] for row in ranking["methods"]] == [1, 2, 3]
    assert ranking["leader"] == "good"
    for row in ranking["methods"]:
        assert 0 <= row["ci_low"] < row["auc"] < row["ci_high"] <= 1
        assert row["rank_low"] <= row["rank"] <= row["rank_high"]
        assert row["auc"] == pytest.approx(np.mean(row["seed_aucs"]))
        assert row["sd"] == pytest.approx(np.std(row["seed_aucs"], ddof=1))
    assert sum(row["p_best"] for row in ranking["methods"]) == pytest.approx(1)
    assert ranking["protocol"]["confidence"] == 0.95
    assert "pretraining seed" in ranking["protocol"]["note"]


def test_a_clearly_better_method_is_first_and_every_other_behind_it(ranking):
    good, *others = ranking["methods"]
    assert (good["rank_low"], good["rank_high"], good["p_best"], good["behind"]) == (1, 1, 1, None)
    for row in others:
        assert row["behind"]["auc"] == pytest.approx(good["auc"] - row["auc"])
        assert row["behind"]["ci_low"] > 0
        assert row["behind"]["p_holm"] < 0.05
        assert row["behind"]["p"] <= row["behind"]["p_holm"]


def test_only_what_pretraining_adds_is_above_the_random_initialisation(ranking):
    good, middling, weak = (row["random"] for row in ranking["methods"])
    assert middling is None
    assert good["difference"]["ci_low"] > 0
    assert good["difference"]["p_holm"] == pytest.approx(2 * good["difference"]["p"])
    assert weak["difference"]["ci_low"] < 0 < weak["difference"]["ci_high"]
    for row, number in zip(ranking["methods"], (good, middling, weak), strict=True):
        if number:
            assert number["difference"]["auc"] == pytest.approx(row["auc"] - number["auc"])
            assert number["ci_low"] < number["auc"] < number["ci_high"]


def test_numbers_as_a_slow_transcription_gives_them(task, models, reference, ranking):
    """Σ over seeds of weight × mean AUC, resample by resample; ranks by sorting."""
    resamples = statistics.draw_resamples(task, 300)

    def mean(scores_of_seeds, weights):
        draws = [statistics.resampled_auc(task, scores, resamples).mean(axis=0) for scores in scores_of_seeds]
        return np.array([sum(w * d[b] for w, d in zip(weights[:, 1 + b], draws, strict=True)) for b in range(300)])

    weights = {name: seed_weights(name, len(runs), 300) for name, runs in models.items()}
    draws = {name: mean(runs, weights[name]) for name, runs in models.items()}
    ranks = rankdata([-draws[name] for name in ("good", "middling", "weak")], axis=0)
    rows = {row["method"]: row for row in ranking["methods"]}
    for place, name in enumerate(("good", "middling", "weak")):
        assert rows[name]["p_best"] == np.mean(ranks[place] == 1)
        assert [rows[name]["rank_low"], rows[name]["rank_high"]] == np.quantile(
            ranks[place], [0.025, 0.975], method="inverted_cdf"
        ).tolist()
    for actual, difference in (
        (rows["weak"]["behind"], draws["good"] - draws["weak"]),
        (rows["weak"]["random"]["difference"], draws["weak"] - mean(reference["weak"], weights["weak"])),
    ):
        np.testing.assert_allclose([actual["ci_low"], actual["ci_high"]], np.quantile(difference, [0.025, 0.975]))
        assert actual["p"] == pytest.approx(2 * (min((difference <= 0).sum(), (difference >= 0).sum()) + 1) / 301)


def test_another_method_beside_it_or_another_order_changes_no_draw(task, models, reference, ranking):
    fewer = rank_models(task, {"weak": models["weak"], "good": models["good"]}, reference, CONFIG)
    again = rank_models(task, dict(reversed(models.items())), reference, CONFIG)
    assert json.dumps(again) == json.dumps(ranking)
    for row, before in zip(fewer["methods"], (ranking["methods"][0], ranking["methods"][2]), strict=True):
        for key in ("auc", "ci_low", "ci_high", "random"):
            assert row[key] == before[key]


def test_methods_that_share_their_initialisations_rank_as_with_copies_of_them(task, models, reference):
    shared = reference["good"]
    copied = [Scores(tuple(values.copy() for values in scores.values)) for scores in shared]
    pair = {name: models[name] for name in ("weak", "good")}
    once, twice = (rank_models(task, pair, {"weak": shared, "good": start}, CONFIG) for start in (shared, copied))
    assert json.dumps(once) == json.dumps(twice)


def test_identical_methods_share_a_rank_and_differ_by_nothing(task, models):
    rows = rank_models(task, {"a": models["good"], "b": models["good"]}, {"a": models["good"]}, CONFIG)["methods"]
    assert [row["rank"] for row in rows] == [1, 1]
    assert [row["rank_low"] for row in rows] == [1, 1]
    assert [row["rank_high"] for row in rows] == [2, 2]
    assert rows[1]["behind"]["auc"] == 0
    assert rows[1]["behind"]["ci_low"] < 0 < rows[1]["behind"]["ci_high"]  # their seeds are not each other's
    assert rows[0]["random"]["difference"] == {"auc": 0.0, "ci_low": 0.0, "ci_high": 0.0, "p": 1.0, "p_holm": 1.0}


def test_seeds_that_all_agree_leave_the_interval_of_one_run(task, models):
    run, other = models["good"][0], models["middling"][0]
    rows = rank_models(task, {"a": [run] * 3, "b": [run] * 2, "c": [other] * 2}, {}, CONFIG)["methods"]
    single = compare(task, {"chosen": run, "c": other}, CONFIG)
    for row in rows[:2]:
        assert (row["rank"], row["rank_low"], row["rank_high"], row["p_best"], row["sd"]) == (1, 1, 1, 0.5, 0)
        for key in ("auc", "ci_low", "ci_high"):
            assert row[key] == pytest.approx(single["chosen"][key], abs=1e-12)
    assert rows[1]["behind"]["ci_low"] == rows[1]["behind"]["ci_high"] == 0
    for key in ("auc", "ci_low", "ci_high", "p"):
        assert rows[2]["behind"][key] == pytest.approx(single["baselines"]["c"]["difference"][key], abs=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_weights_give_the_mean_of_the_seeds_the_variance_of_the_textbook(seeds):
    """s² / S with s² over S − 1: the plain bootstrap falls short of it by (S − 1) / S."""
    weights = seed_weights("simclr", seeds, 200_000)
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    np.testing.assert_array_equal(weights[:, 0], np.full(seeds, 1 / seeds))
    aucs = np.random.default_rng(0).normal(size=seeds)
    draws = aucs @ weights[:, 1:]
    assert draws.mean() == pytest.approx(aucs.mean(), abs=0.01)
    assert draws.var() == pytest.approx(aucs.var(ddof=1) / seeds, rel=0.02)
    np.testing.assert_array_equal(weights, seed_weights("simclr", seeds, 200_000))
    assert (weights != seed_weights("dino", seeds, 200_000)).any()


def test_equal_methods_are_seldom_told_apart():
    """Patients, episodes and pretraining seeds all matter; 5% of tests reject, within the error of 150 simulations."""
    rng = np.random.default_rng(0)
    simulations, behind, above = 150, 0, 0

    def run(task, patients):
        own = patients + 0.6 * rng.normal(size=len(patients))
        probes = own + 0.3 * rng.normal(size=(1, len(task.seeds), len(patients)))
        return Scores((rng.normal(0.8, 0.3) * task.truth(0) + probes,))

    for _ in range(simulations):
        task = make_task(rng, findings=1, shots=(1,), seeds=4, positives=25, negatives=50)
        patients = 0.8 * rng.normal(size=75)
        models = {name: [run(task, patients) for _ in range(3)] for name in "abcd"}
        reference = {"a": [run(task, patients) for _ in range(3)]}
        rows = rank_models(task, models, reference, ProtocolConfig(bootstrap=240))["methods"]
        behind += any(row["behind"]["p_holm"] < 0.05 for row in rows[1:])
        above += next(row for row in rows if row["random"])["random"]["difference"]["p"] < 0.05
    assert behind / simulations <= 0.09
    assert 0.01 <= above / simulations <= 0.1


def test_many_methods_draw_enough_resamples_for_a_corrected_p_to_count(task):
    rng = np.random.default_rng(3)
    runs = runs_of(rng, task, 0.0, 2)
    models = {"best": runs_of(rng, task, 4.0, 2), **{f"copy {index}": runs for index in range(5)}}
    ranking = rank_models(task, models, {}, ProtocolConfig(bootstrap=100))
    assert ranking["protocol"]["bootstrap"] == 600  # 15 pairs: at 100 resamples no p could be below 15 × 2 / 101
    assert all(row["behind"]["p_holm"] < 0.05 for row in ranking["methods"][1:])


def test_bad_input_is_refused(task, models, reference):
    with pytest.raises(UserError, match="at least 2 pretraining seeds of every method, found 1 of good"):
        rank_models(task, {"weak": models["weak"], "good": models["good"][:1]}, {}, CONFIG)
    with pytest.raises(ValueError, match="weak has 3 pretraining seeds and 2 initialisations"):
        rank_models(task, models, {"weak": reference["weak"][:2]}, CONFIG)
    with pytest.raises(ValueError, match="at least one method"):
        rank_models(task, {}, {}, CONFIG)
    cut = [Scores(tuple(values[:, :2] for values in scores.values)) for scores in models["weak"]]
    with pytest.raises(ValueError, match="score it on all"):
        rank_models(task, {"weak": cut}, {}, CONFIG)
