"""The methods against each other, from two hospitals to a ranking."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from phantom_hospitals import PROTOCOL, QUICK_AUDITS, write_hospitals

from scarce import contest
from scarce.audit_run import open_run
from scarce.backbones import load_backbone
from scarce.config import DataConfig, MethodsConfig, RunConfig
from scarce.contest import (
    METHOD_NAME,
    Outcome,
    method_space,
    pretrain_config,
    run_contest,
    run_method,
    training_seconds,
)
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.fewshot.task import build_task
from scarce.methods import REGISTRY
from scarce.mirror import Mirror
from scarce.pairing import Hospitals
from scarce.resources import Plan
from scarce.settings import default_settings, override
from scarce.trials.records import TrialRecord, read_trials

pytestmark = pytest.mark.long

METHODS = ("simclr", "spark")


def small_contest(folder: Path, name: str, **changes: object) -> MethodsConfig:
    config = MethodsConfig(
        data=DataConfig(str(folder / "a"), str(folder / "b")),
        methods=METHODS,
        device_seconds=0.5,
        trials=2,
        seeds=2,
        batch_size=16,
        protocol=PROTOCOL,
        audits=QUICK_AUDITS,
        run=RunConfig(name=name, out=str(folder / "runs")),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contest")
    write_hospitals(path)
    return path


@pytest.fixture(scope="module")
def finished(folder: Path, ray_cluster: str) -> Path:
    return run_contest(small_contest(folder, "whole"))


def test_every_method_is_ranked_beside_its_own_random_initialisation(finished: Path):
    ranking = json.loads((finished / "ranking.json").read_text())
    assert {row["method"] for row in ranking["methods"]} == set(METHODS)
    for row in ranking["methods"]:
        assert 0 <= row["ci_low"] <= row["auc"] <= row["ci_high"] <= 1
        assert len(row["seed_aucs"]) == 2
        assert row["auc"] == pytest.approx(sum(row["seed_aucs"]) / 2)
        assert row["random"]["difference"]["ci_low"] <= row["random"]["difference"]["auc"]
    # Both methods start from the same weights, and a seed's weights are what create_backbone makes of it.
    assert ranking["methods"][0]["random"]["auc"] == ranking["methods"][1]["random"]["auc"]
    text = (finished / "ranking.md").read_text()
    assert all(name in text for name in METHODS)
    assert (finished / "ranking.png").stat().st_size > 10_000


def test_repetitions_have_the_settings_found_and_seeds_that_no_search_used(finished: Path):
    for name in METHODS:
        outcome = Outcome(**json.loads((finished / name / METHOD_NAME).read_text()))
        assert outcome.status == "done"
        searched, repeated = (read_trials(finished / name / part) for part in ("search", "seeds"))
        assert {record.settings["recipe"]["pretrain"]["seed"] for record in searched} == {0}
        assert sorted(record.settings["recipe"]["pretrain"]["seed"] for record in repeated) == [1, 2]
        best = max(searched, key=lambda record: (record.best["val_auc"], record.identity))
        assert best.sampled == outcome.chosen
        for record in repeated:
            assert record.settings["recipe"]["method"] == best.settings["recipe"]["method"]
            assert record.settings["recipe"]["optimiser"] == best.settings["recipe"]["optimiser"]
            assert record.last["epoch"] >= outcome.epochs
        rates = sorted(record.sampled["optimiser.lr"] for record in searched)
        assert rates == pytest.approx([REGISTRY[name].OPTIMISER.lr, 6 * REGISTRY[name].OPTIMISER.lr])
        spent = sum(training_seconds(record, 16) for record in [*searched, *repeated])
        assert outcome.seconds == pytest.approx(spent)


def test_the_budget_is_the_same_seconds_for_every_method(finished: Path):
    budget = json.loads((finished / "budget.json").read_text())
    images = len(open_dataset(finished.parents[1] / "a").metadata())
    for name in METHODS:
        steps = (images - images // 10) // 16
        total = budget[name]["epochs"] * steps
        assert total == pytest.approx(round(total))  # whole steps
        assert total * budget[name]["seconds_per_step"] == pytest.approx(0.5, abs=budget[name]["seconds_per_step"])


def test_the_leaders_backbone_is_exported_and_audited(finished: Path):
    leader = json.loads((finished / "ranking.json").read_text())["methods"][0]
    outcome = Outcome(**json.loads((finished / leader["method"] / METHOD_NAME).read_text()))
    backbone, card = load_backbone(finished / "best")
    assert card["settings"]["recipe"]["pretrain"]["method"] == leader["method"]
    assert card["settings"]["recipe"]["pretrain"]["seed"] == outcome.seeds[0]  # the first, not the best on test
    assert card["test"] == {key: leader[key] for key in ("auc", "ci_low", "ci_high")}
    best = finished / leader["method"] / "seeds" / "trials" / card["trial"] / "best.pt"
    weights = torch.load(best, weights_only=True)["method"]
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, weights[f"backbone.{key}"])
    audit = json.loads((finished / "audit" / "audit.json").read_text())
    assert (finished / "audit" / "index.html").exists()
    assert audit["headline"] in (finished / "ranking.md").read_text()


def test_a_contests_folder_is_one_that_can_be_audited_later(finished: Path):
    model = open_run(finished)
    assert (model.hospital.manifest.hospital, model.other.manifest.hospital) == ("phantom-b", "phantom-a")
    assert model.image_size == 32
    assert model.protocol == PROTOCOL


def test_a_finished_contest_is_gone_on_with_without_training_again(folder: Path, finished: Path, monkeypatch):
    before = json.loads((finished / "ranking.json").read_text())
    monkeypatch.setattr(contest, "search", lambda *_, **__: pytest.fail("a finished method was searched again"))
    audited = json.loads((finished / "audit" / "audit.json").read_text())
    monkeypatch.setattr(contest, "audit_run", lambda *_: audited)  # seconds, and tested by themselves
    config = small_contest(folder, "whole")
    run_contest(replace(config, run=replace(config.run, resume=True)))
    assert json.loads((finished / "ranking.json").read_text()) == before
    with pytest.raises(UserError, match="--resume"):
        run_contest(config)


@pytest.mark.parametrize(
    ("collapsed", "status", "reason"), [(True, "collapsed", "effective_rank"), (False, "failed", "loss is nan")]
)
def test_a_method_without_a_living_trial_is_named_with_its_reason(
    collapsed, status, reason, folder, tmp_path, monkeypatch
):
    config = small_contest(folder, "dead")
    hospitals = Hospitals.open(config.data)
    report = {"embedding_std": 0.9, "effective_rank": 1.1, "collapsed": 1.0, "val_auc": 0.5, "images_per_s": 64.0}
    history = [{**report, "step": float(step), "epoch": step / 8} for step in (4, 8)]
    records = [TrialRecord("abc", {}, {}, history)] if collapsed else []
    monkeypatch.setattr(contest, "search", lambda *_, **__: {} if collapsed else {"abc": "the loss is nan"})
    monkeypatch.setattr(contest, "read_trials", lambda _: records)
    feed = type("Images", (), {"images": 100})()
    task = build_task(hospitals.target, config.protocol, held_out="val")
    outcome = run_method(config, "simclr", 1.0, Mirror(tmp_path), hospitals, Plan(1, 0, 1, 2), feed, task)
    assert outcome.status == status
    assert reason in outcome.reason
    assert outcome.seconds == (8 * 16 / 64 if collapsed else 0)
    assert json.loads((tmp_path / METHOD_NAME).read_text()) == {**asdict(outcome), "seeds": []}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_space_of_a_search_is_the_methods_own_and_its_rate(name):
    config = pretrain_config(MethodsConfig(), name)
    space = method_space(config)
    assert set(space) == {f"method.{key}" for key in REGISTRY[name].SEARCH_SPACE} | {"optimiser.lr"}
    rate = REGISTRY[name].OPTIMISER.lr
    assert space["optimiser.lr"].low < rate < 6 * rate < space["optimiser.lr"].high
    settings = override(default_settings(config, 1000), {"pretrain.seed": 3})
    assert settings.recipe.pretrain.seed == 3


def test_what_cannot_work_is_refused_before_anything_is_written(folder: Path):
    config = small_contest(folder, "refused", backbone="vit_small", methods=("simclr", "spark"))
    with pytest.raises(UserError, match="vision transformer"):
        run_contest(config)
    with pytest.raises(UserError, match="no method"):
        run_contest(replace(config, methods=("mocco",)))
    with pytest.raises(UserError, match="no converted dataset"):
        run_contest(small_contest(folder, "refused", audits=replace(QUICK_AUDITS, other="nowhere")))
    assert not (folder / "runs" / "refused").exists()
