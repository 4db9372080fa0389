"""The sweep from two hospitals to summary.json, in one local Ray cluster."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from phantom_hospitals import QUICK_AUDITS, results_of, small_sweep, write_hospitals
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.models import resnet18

import scarce
from scarce.audit.audits import report_json, run_audits
from scarce.audit.shortcut_score import shortcut_score, without_thorax
from scarce.audit_run import make_subject, open_run
from scarce.backbones import create_backbone, export_backbone, load_backbone
from scarce.checkpoint import KEPT
from scarce.config import DataConfig, SweepConfig
from scarce.data.feed import load_feed
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.evaluate import score_task, validation
from scarce.fewshot.features import extract_features
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.task import build_task
from scarce.pairing import Hospitals
from scarce.run_sweep import run_sweep
from scarce.settings import search_space

BASELINES = {"pixel_statistics", "pixels_16", "random_forest", "random_weights", "from_scratch", "imagenet"}

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(config: SweepConfig) -> Path:
    return run_sweep(config, search_space(config.pretrain))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep")
    write_hospitals(path)
    return path


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    return scarce.sweep(whole(folder)).folder


def whole(folder: Path) -> SweepConfig:
    """With every baseline and the audits."""
    return replace(small_sweep(folder, "whole"), baselines=BaselinesConfig(), audits=QUICK_AUDITS)


def test_the_run_folder_holds_what_the_readme_names(finished: Path):
    assert {path.name for path in finished.iterdir()} == {
        *(
            "config.json",
            "trials.parquet",
            "summary.json",
            "summary.md",
            "report.html",
            "results.csv",
            "results.tex",
            "test_scores.parquet",
            "best",
            "audit",
            "tensorboard",
            "trials",
            "tune",
            "rungs.jsonl",
            "study.journal",
            "spending.json",
        ),
    }
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["pretrain"]["seed"] == 0
    assert len(config["datasets"]) == 2
    assert config["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]


def test_summary_has_the_promised_structure(finished: Path):
    summary = json.loads((finished / "summary.json").read_text())
    chosen, baselines = summary["chosen"], summary["baselines"]
    assert set(baselines) == BASELINES
    for row in [chosen, *(b for b in baselines.values() if b["available"])]:
        assert 0 <= row["ci_low"] <= row["auc"] <= row["ci_high"] <= 1
        assert 0 < row["p_chance"] <= 1
        assert row["auc"] == pytest.approx(np.mean([cell["auc"] for cell in row["cells"]]))
        assert all(cell["test_positives"] >= 2 for cell in row["cells"])
    for baseline in baselines.values():
        if baseline["available"]:
            difference = baseline["difference"]
            assert difference["auc"] == pytest.approx(chosen["auc"] - baseline["auc"])
            assert difference["ci_low"] <= difference["auc"] <= difference["ci_high"]
            assert 0 < difference["p"] <= 1
        else:
            assert baseline["reason"]
    assert summary["leak_check"]["shared_patients"] == 0
    text = (finished / "summary.md").read_text()
    assert f"{chosen['auc']:.3f}" in text
    assert all(name in text for name in BASELINES)


def test_the_chosen_model_is_audited(folder: Path, finished: Path):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["audit"] == json.loads((finished / "audit" / "audit.json").read_text())
    assert list(summary["audit"]["by_finding"]) == [cell["finding"] for cell in summary["chosen"]["cells"]][::2]
    text = (finished / "summary.md").read_text()
    assert "## Anatomy or shortcut" in text
    assert summary["audit"]["headline"] in text
    page = (finished / "audit" / "index.html").read_text()
    assert summary["audit"]["headline"] in page
    assert "whole/best" in page
    # `scarce audit` gives the same, from the run's folder alone.
    again = run_audits(make_subject(open_run(finished), QUICK_AUDITS))
    assert json.loads(json.dumps(report_json(again))) == summary["audit"]


def test_trials_are_pruned_or_done_and_their_checkpoints_bounded(finished: Path):
    trials = pd.read_parquet(finished / "trials.parquet")
    assert len(trials) == 4
    assert set(trials["status"]) == {"done", "pruned"}
    assert trials["val_auc"].is_monotonic_decreasing
    assert {"views.crop_min", "method.temperature", "probe.C"} <= set(trials.columns)
    assert (trials["val_auc_se"] > 0).all()
    for trial in trials["trial"]:
        files = {path.name for path in (finished / "trials" / trial).iterdir()}
        assert len([name for name in files if name.startswith("step-")]) <= KEPT
        assert {"best.pt", "history.json", "trial.json"} <= files
        assert list((finished / "tensorboard" / trial).glob("events*"))


def test_the_study_is_there_for_optuna_s_own_tools(finished: Path):
    storage = JournalStorage(JournalFileBackend(str(finished / "study.journal")))
    study = optuna.load_study(study_name="whole", storage=storage)
    table = pd.read_parquet(finished / "trials.parquet")
    ended = {"done": "COMPLETE", "pruned": "PRUNED"}
    assert {trial.user_attrs["trial"]: trial.state.name for trial in study.trials} == {
        row.trial: ended[row.status] for row in table.itertuples()
    }
    for trial in study.trials:
        history = json.loads((finished / "trials" / trial.user_attrs["trial"] / "history.json").read_text())
        told = {int(report["step"]): report["val_auc"] for report in history}
        assert trial.intermediate_values.items() <= told.items()
        assert trial.value == history[-1]["val_auc"]


def test_tensorboard_has_every_trial_s_views_and_the_chosen_model_s_features(finished: Path):
    names = {path.name for path in (finished / "trials").iterdir()}
    assert {path.name for path in (finished / "tensorboard").iterdir()} == {*names, "chosen"}
    for name in names:
        events = EventAccumulator(str(finished / "tensorboard" / name)).Reload()
        assert events.Tags()["images"] == ["views/32px"]
        assert "val_auc" in events.Tags()["scalars"]
    assert (finished / "tensorboard" / "chosen" / "projector_config.pbtxt").exists()


def test_the_exported_backbone_is_the_chosen_trials(finished: Path):
    card = json.loads((finished / "best" / "card.json").read_text())
    best = torch.load(finished / "trials" / card["trial"] / "best.pt", weights_only=True)
    backbone, again = load_backbone(finished / "best")
    assert again == card
    assert card["data"]["target"] == "phantom-b"
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, best["method"][f"backbone.{key}"])


def test_a_seed_repeats_a_sweep_one_trial_at_a_time(folder: Path, finished: Path):
    first, again = (results_of(run(small_sweep(folder, name, concurrent=1, trials=2))) for name in ("first", "again"))
    pd.testing.assert_frame_equal(first, again)
    assert set(first["trial"]) & set(results_of(finished)["trial"])  # the defaults are tried whatever the concurrency


@pytest.mark.long
def test_two_objectives_give_a_front_and_the_numbers_of_the_weights_that_are_kept(folder: Path, finished: Path):
    config = small_sweep(folder, "pareto", objective="auc,shortcut", trials=3)
    out = run(config)
    search = json.loads((out / "summary.json").read_text())["search"]
    trials = pd.read_parquet(out / "trials.parquet").set_index("trial")
    assert len(trials) == 3
    assert trials["val_shortcut"].between(0, 0.5).all()
    histories = {
        run: {path.parent.name: json.loads(path.read_text()) for path in run.glob("trials/*/history.json")}
        for run in (out, finished)
    }
    assert all("val_shortcut" in metrics for history in histories[out].values() for metrics in history)
    shared = histories[out].keys() & histories[finished].keys()
    assert shared  # the defaults: the second objective changes nothing that is trained
    for identity in shared:
        first, alone = histories[out][identity][0], histories[finished][identity][0]
        assert {name: first[name] for name in alone if name != "images_per_s"} == {
            name: value for name, value in alone.items() if name != "images_per_s"
        }
    for point in search["front"]:
        assert {key: trials.loc[point["trial"], key] for key in point if key != "trial"} == {
            key: value for key, value in point.items() if key != "trial"
        }
    chosen = search["chosen_trial"]
    assert search["objective"] == "auc,shortcut"
    assert search["val_auc"] >= search["front"][0]["val_auc"] - search["front"][0]["val_auc_se"]
    assert search["val_shortcut"] == trials.loc[chosen, "val_shortcut"]
    assert f"**{chosen}** (chosen)" in (out / "summary.md").read_text()
    assert (out / "pareto.png").exists()

    backbone, card = load_backbone(out / "best")
    assert card["trial"] == chosen
    probe = ProbeConfig(**card["settings"]["probe"])
    task = build_task(open_dataset(folder / "b"), config.protocol, held_out="val")

    def features_of(images: np.ndarray) -> np.ndarray:
        return extract_features(backbone, images, 32, "cpu", positions=probe.uses_positions)

    auc = validation(task, score_task(task, features_of(task.images), probe))["val_auc"]
    assert auc == pytest.approx(search["val_auc"], abs=1e-6)
    shortcut = shortcut_score(task, features_of(without_thorax(task.images)), probe)
    assert shortcut == {key: pytest.approx(search[key], abs=1e-6) for key in shortcut}


@pytest.mark.long
def test_two_workers_train_a_trial_together(folder: Path):
    config = small_sweep(folder, "workers", workers_per_trial=2, trials=2)
    trials = results_of(run(config))
    assert len(trials) == 2
    assert (trials["epoch"] > 0).all()


def test_fixed_settings_are_not_searched(folder: Path):
    config = small_sweep(folder, "fixed", trials=2, fix=("views.flip=0.5", "probe.C=3"))
    trials = results_of(run(config))
    assert "views.flip" not in trials.columns
    settings = json.loads(next((folder / "runs" / "fixed" / "trials").glob("*/trial.json")).read_text())["settings"]
    assert settings["recipe"]["views"]["flip"] == 0.5
    assert {probe["C"] for probe in settings["probes"]} == {3.0}
    assert set(trials["probe.C"]) == {3.0}
    card = json.loads((folder / "runs" / "fixed" / "best" / "card.json").read_text())
    assert card["settings"]["probe"]["C"] == 3.0


def test_same_hospital_keeps_held_out_patients_from_pretraining(folder: Path):
    config = small_sweep(folder, "same")
    config = replace(config, data=DataConfig(str(folder / "b"), str(folder / "b")))
    dataset = open_dataset(folder / "b")
    hospitals = Hospitals(dataset, dataset)
    fractions = config.protocol.fractions
    left_out = hospitals.patients_to_leave_out(fractions)
    feed = load_feed(dataset, without_patients=left_out, largest_size=64)
    check = hospitals.check_leak(fractions, left_out, feed)
    assert 0 < feed.images < dataset.manifest.images
    assert check["images_left_out"] == dataset.manifest.images - feed.images
    metadata = dataset.metadata()
    kept = np.flatnonzero(~metadata["patient_id"].isin(left_out))
    assert np.array_equal(np.concatenate(feed.open().blocks), dataset.pixels(kept))
    with pytest.raises(RuntimeError, match="held-out"):
        hospitals.check_leak(fractions, sorted(left_out)[1:], load_feed(dataset, largest_size=64))


def test_feed_reduces_images_and_shares_them_without_a_copy(folder: Path):
    dataset = open_dataset(folder / "a")
    feed = load_feed(dataset, largest_size=16)
    pixels = feed.open()
    assert pixels.shape == (16, 16)
    assert len(pixels) == dataset.manifest.images
    assert not any(block.flags.writeable or block.flags.owndata for block in pixels.blocks)


def test_a_sweep_whose_every_trial_fails_says_where_to_look(folder: Path):
    config = small_sweep(folder, "diverged", trials=2, fix=("optimiser.lr=1e30",))
    with pytest.raises(UserError, match="no trial made a report"):
        run(config)


class TestRefusals:
    def test_imagenet_weights_that_are_none(self, folder: Path, tmp_path: Path):
        (tmp_path / "weights.pth").write_text("weights")
        config = small_sweep(folder, "imagenet")
        config = replace(config, baselines=BaselinesConfig(imagenet=str(tmp_path / "weights.pth")))
        with pytest.raises(UserError, match="--imagenet"):
            run(config)
        assert not (folder / "runs" / "imagenet").exists()

    def test_another_hospital_for_the_audits_that_is_not_there(self, folder: Path):
        config = replace(small_sweep(folder, "other"), audits=replace(QUICK_AUDITS, other="nowhere"))
        with pytest.raises(UserError, match="no converted dataset"):
            run(config)
        assert not (folder / "runs" / "other").exists()

    def test_an_existing_run(self, folder: Path, finished: Path):
        with pytest.raises(UserError, match="--resume"):
            run(small_sweep(folder, "whole"))

    def test_a_resume_with_other_settings(self, folder: Path, finished: Path):
        config = whole(folder)
        config = replace(config, run=replace(config.run, resume=True), pretrain=replace(config.pretrain, epochs=5))
        with pytest.raises(UserError, match=r"pretrain\.epochs was 4, now 5"):
            run(config)

    def test_a_resume_of_nothing(self, folder: Path):
        config = small_sweep(folder, "never")
        with pytest.raises(UserError, match="nothing to resume"):
            run(replace(config, run=replace(config.run, resume=True)))
        assert not (folder / "runs" / "never").exists()

    def test_what_no_node_can_hold(self, folder: Path):
        with pytest.raises(UserError, match="64 CPU"):
            run(small_sweep(folder, "large", cpus_per_trial=64.0))
        assert not (folder / "runs" / "large").exists()

    @pytest.mark.parametrize("part", ["method", "backbone"])
    def test_an_unknown_name(self, folder: Path, part: str):
        config = small_sweep(folder, "unknown")
        config = replace(config, pretrain=replace(config.pretrain, **{part: "nonsense"}))
        with pytest.raises(UserError, match="nonsense"):
            run(config)
        assert not (folder / "runs" / "unknown").exists()


def test_an_exported_resnet_loads_into_torchvision(tmp_path: Path):
    ours = create_backbone("resnet18", seed=1).eval()
    export_backbone(ours, "resnet18", tmp_path, {})
    theirs = resnet18()
    missing = theirs.load_state_dict(load_file(tmp_path / "backbone.safetensors"), strict=False)
    assert set(missing.missing_keys) == {"fc.weight", "fc.bias"}
    assert not missing.unexpected_keys
    theirs.fc = torch.nn.Identity()
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs.eval()(x.repeat(1, 3, 1, 1)), ours(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(load_backbone(tmp_path)[0](x), ours(x), atol=1e-4, rtol=1e-4)


def test_no_backbone_to_load(tmp_path: Path):
    with pytest.raises(UserError, match="no exported backbone"):
        load_backbone(tmp_path)
