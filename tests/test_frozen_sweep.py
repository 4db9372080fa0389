"""Sweeps over one finished backbone: opening it, searching, writing; and sweeps/probe.py and
sweeps/finetune.py from end to end."""

import json
import math
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from phantom_hospitals import PROTOCOL, write_hospitals

from scarce import frozen_sweep
from scarce.audit.audits import report_json, run_audits
from scarce.audit_config import AuditConfig, SweepAuditConfig
from scarce.audit_run import audit_run, make_subject, open_run
from scarce.backbones import create_backbone, export_backbone
from scarce.errors import UserError
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task
from scarce.files import write_json
from scarce.frozen_config import FrozenConfig
from scarce.frozen_sweep import Trial, best_trial, check_leak, open_sweep, search, trials_table
from scarce.space import Choice, Float

SWEEPS = Path(__file__).parents[1] / "sweeps"
FLAGS = [
    *("--shots", "1", "5", "--search-seeds", "2", "--test-seeds", "2", "--bootstrap", "100", "--trials", "7"),
    *("--min-pool", "5", "--min-held-out", "2", "--device", "cpu", "--no-audit"),
]
AUDIT_FLAGS = ["--audit", "--permutations", "39", "--resamples", "100"]
FINETUNE_FLAGS = ["--trials", "3", "--val-seeds", "2", "--scratch-seeds", "2"]
AUDIT_FILES = {"audit.json", "audit.md", "overview.png", "index.html"}
CARD = {"settings": {"recipe": {"pretrain": {"image_size": 32, "backbone": "resnet_small"}}}}
SPACE = {"x": Float(0.0, 1.0), "kind": Choice(("a", "b"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frozen")
    write_hospitals(path)
    export_backbone(create_backbone("resnet_small", 0), "resnet_small", path / "runs" / "made" / "best", CARD)
    return path


def config(folder: Path, **values: object) -> FrozenConfig:
    settings = {
        "checkpoint": str(folder / "runs" / "made" / "best"),
        "target": str(folder / "b"),
        "protocol": PROTOCOL,
        "out": str(folder / "runs"),
        "device": "cpu",
        "audits": SweepAuditConfig(audit=False),
        **values,
    }
    return FrozenConfig(**settings)  # type: ignore[arg-type]


def run_script(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    arguments = ["--checkpoint", str(folder / "runs" / "made"), "--target", str(folder / "b"), "--out"]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments, str(folder / "runs"), *flags])
    runpy.run_path(str(SWEEPS / f"{name}.py"))["main"]()


def run_probe(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    run_script("probe", folder, monkeypatch, *FLAGS, *flags)


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        run_probe(folder, patch, *AUDIT_FLAGS, "--other", str(folder / "a"))
    return folder / "runs" / "probe-made-b"


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        run_script("finetune", folder, patch, *FLAGS, *FINETUNE_FLAGS)
    return folder / "runs" / "finetune-made-b"


class TestFinetune:
    def test_the_best_on_val_is_compared_with_frozen_probes_and_training_from_scratch(self, tuned: Path):
        summary = json.loads((tuned / "summary.json").read_text())
        assert set(summary["baselines"]) == {"linear_probe", "prototypes", "from_scratch"}
        for row in summary["baselines"].values():
            assert row["available"]
            assert row["difference"]["ci_low"] <= row["difference"]["auc"] <= row["difference"]["ci_high"]
        trials = pd.read_parquet(tuned / "trials.parquet")
        assert len(trials) == 3
        assert summary["search"]["val_auc"] == trials["val_auc"].max()
        text = (tuned / "summary.md").read_text()
        assert "| linear_probe " in text
        assert "unfreeze_from" in text

    def test_the_defaults_and_the_head_alone_are_tried_first(self, tuned: Path):
        trials = pd.read_parquet(tuned / "trials.parquet").set_index("trial")
        assert list(trials.loc[[1, 2], "unfreeze_from"]) == [3, 4]

    def test_a_seed_repeats_it(self, folder: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch):
        run_script(
            "finetune", folder, monkeypatch, *FLAGS, *FINETUNE_FLAGS, "--scratch-seeds", "0", "--name", "tuned-again"
        )
        tables = [
            pd.read_parquet(run / "trials.parquet").drop(columns="seconds")
            for run in (tuned, folder / "runs" / "tuned-again")
        ]
        pd.testing.assert_frame_equal(*tables)

    def test_the_chosen_settings_are_audited_as_far_as_fine_tuning_can_be(self, folder: Path, monkeypatch):
        flags = ["--trials", "1", "--val-seeds", "2", "--scratch-seeds", "0", "--findings", "interstitial pattern"]
        run_script("finetune", folder, monkeypatch, *FLAGS, *flags, *AUDIT_FLAGS, "--name", "audited")
        tuned = folder / "runs" / "audited"
        summary = json.loads((tuned / "summary.json").read_text())
        audits = summary["audit"]["audits"]
        assert {path.name for path in (tuned / "audit").iterdir()} == AUDIT_FILES
        left_out = {key: audit["missing"] for key, audit in audits.items() if not audit["rows"]}
        assert set(left_out) == {"corruption_curves", "cross_hospital", "where_it_looked"}
        assert "fine-tuning of its own" in left_out["corruption_curves"][0]
        assert "fine-tuned networks differ" in left_out["where_it_looked"][0]
        assert "one hospital only" in left_out["cross_hospital"][0]
        assert any("no features without labels" in reason for reason in audits["encoded_attributes"]["missing"])
        assert any("held-out patients only" in note for note in audits["above_chance"]["notes"])
        assert summary["audit"]["headline"] in (tuned / "summary.md").read_text()
        model = open_run(tuned)
        subject = make_subject(model, AuditConfig(permutations=39, resamples=100))
        assert subject.frozen is None
        assert subject.task.seeds == (1000, 1001)
        auc = audits["above_chance"]["rows"][0]["numbers"]["AUC"]["value"]
        assert subject.whole.values.mean() == pytest.approx(auc, abs=1e-12)

    @pytest.mark.parametrize(("flag", "value"), [("--val-seeds", "9"), ("--scratch-seeds", "-1")])
    def test_settings_out_of_range_are_user_errors(self, flag, value, folder, monkeypatch):
        with pytest.raises(UserError, match=flag):
            run_script("finetune", folder, monkeypatch, *FLAGS, flag, value)


class TestProbe:
    def test_the_folder_holds_the_answer_and_how_it_came_about(self, finished: Path):
        names = {"config.json", "trials.parquet", "summary.json", "summary.md", "audit"}
        assert {path.name for path in finished.iterdir()} == names
        written = json.loads((finished / "config.json").read_text())
        assert written["config"]["trials"] == 7
        assert written["config"]["protocol"]["shots"] == [1, 5]
        assert len(written["datasets"]) == 1
        assert len(written["checkpoint_sha256"]) == 64
        assert written["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]

    def test_the_defaults_are_tried_first_and_every_kind_at_least_once(self, finished: Path):
        trials = pd.read_parquet(finished / "trials.parquet")
        assert trials["val_auc"].is_monotonic_decreasing
        by_number = trials.set_index("trial").sort_index()
        assert list(by_number.index) == list(range(1, 8))
        first = by_number.loc[1, ["C", "normalise", "kind", "neighbours"]].to_dict()
        assert first == {"C": 1.0, "normalise": "l2", "kind": "logistic", "neighbours": 20}
        assert set(trials["kind"]) == {"logistic", "prototype", "ridge", "knn", "attention"}

    def test_the_best_on_val_is_compared_with_the_default_on_test(self, finished: Path):
        summary = json.loads((finished / "summary.json").read_text())
        trials = pd.read_parquet(finished / "trials.parquet")
        assert summary["search"]["chosen_trial"] == trials.loc[0, "trial"]
        assert summary["search"]["val_auc"] == trials["val_auc"].max()
        assert summary["protocol"]["held_out"] == "test"
        assert set(summary["protocol"]["seeds"]) == {1000, 1001}
        assert set(summary["baselines"]) == {"default_probe"}
        difference = summary["baselines"]["default_probe"]["difference"]
        assert difference["ci_low"] <= difference["auc"] <= difference["ci_high"]

    def test_the_summary_reads_at_a_glance(self, finished: Path):
        text = (finished / "summary.md").read_text()
        section = text.partition("## The best of each kind, on val")[2].partition("\n## ")[0]
        for kind in ("logistic", "prototype", "ridge", "knn", "attention"):
            assert section.count(f"| {kind} ") == 1
        for line in section.splitlines()[4:]:
            assert not line or " ± " in line
        assert "| default_probe " in text
        assert "does not say at which hospital" in text

    def test_the_chosen_probe_is_audited(self, finished: Path):
        summary = json.loads((finished / "summary.json").read_text())
        assert summary["audit"] == json.loads((finished / "audit" / "audit.json").read_text())
        assert {path.name for path in (finished / "audit").iterdir()} == AUDIT_FILES
        assert all(audit["rows"] for audit in summary["audit"]["audits"].values())
        assert summary["audit"]["headline"] in (finished / "summary.md").read_text()
        model = open_run(finished)
        assert model.pipeline.probe == ProbeConfig(**summary["search"]["chosen_settings"])
        config = AuditConfig(other=str(model.hospital.path.with_name("a")), permutations=39, resamples=100)
        again = run_audits(make_subject(model, config))
        assert json.loads(json.dumps(report_json(again))) == summary["audit"]

    def test_a_seed_repeats_a_sweep(self, folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch):
        run_probe(folder, monkeypatch, "--name", "again")
        again = folder / "runs" / "again"
        assert {path.name for path in finished.iterdir()} - {path.name for path in again.iterdir()} == {"audit"}
        assert "audit" not in json.loads((again / "summary.json").read_text())
        tables = [pd.read_parquet(run / "trials.parquet").drop(columns="seconds") for run in (finished, again)]
        pd.testing.assert_frame_equal(*tables)
        summaries = [json.loads((run / "summary.json").read_text()) for run in (finished, again)]
        for part in ("chosen", "baselines"):
            assert summaries[0][part] == summaries[1][part]

    def test_a_run_that_is_there_is_not_overwritten(self, folder: Path, finished: Path, monkeypatch):
        before = (finished / "summary.json").read_bytes()
        with pytest.raises(UserError, match="holds a run already: choose another --name"):
            run_probe(folder, monkeypatch)
        assert (finished / "summary.json").read_bytes() == before

    def test_bad_input_is_one_line_and_exit_code_2(self, folder: Path, monkeypatch, capsys):
        arguments = ["--checkpoint", str(folder / "a"), "--out", str(folder / "bad")]
        monkeypatch.setattr(sys, "argv", ["probe.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SWEEPS / "probe.py"), run_name="__main__")
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("scarce: ")
        assert len(error.splitlines()) == 1
        assert "no exported backbone" in error
        assert not (folder / "bad").exists()


class TestAuditingLater:
    def test_an_unfinished_run_is_refused(self, finished: Path, tmp_path: Path):
        (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
        with pytest.raises(UserError, match=r"is not a finished run: expected summary\.json there"):
            audit_run(tmp_path, AuditConfig())

    def test_so_are_a_backbone_and_a_hospital_that_have_changed_since(
        self, folder: Path, finished: Path, tmp_path: Path
    ):
        for name in ("config.json", "summary.json"):
            (tmp_path / name).write_bytes((finished / name).read_bytes())
        open_run(tmp_path)
        started = json.loads((tmp_path / "config.json").read_text())
        for key, value, words in (
            ("checkpoint_sha256", "0" * 64, "its weights have changed since"),
            ("datasets", ["0" * 64], "its content has changed since"),
        ):
            write_json(tmp_path / "config.json", {**started, key: value})
            with pytest.raises(UserError, match=words):
                audit_run(tmp_path, AuditConfig())
        assert not (tmp_path / "audit").exists()


class TestOpening:
    def test_a_run_is_opened_as_its_best(self, folder: Path):
        best, run = (
            open_sweep(config(folder, checkpoint=str(folder / "runs" / "made" / name)), "x") for name in ("best", "")
        )
        assert best.checkpoint == run.checkpoint
        assert best.image_size == 32
        assert not best.backbone.training
        assert {best.folder.name, run.folder.name} == {"x-made-b"}

    def test_larger_images_are_reduced_to_what_the_backbone_saw(self, folder: Path):
        sweep = open_sweep(config(folder), "x")
        assert sweep.task("val").images.shape[1:] == (32, 32)
        assert replace(sweep, image_size=16).task("val").images.shape[1:] == (16, 16)
        assert replace(sweep, image_size=64).task("val").images.shape[1:] == (32, 32)

    @pytest.mark.parametrize(
        "card", [{}, {"settings": {}}, {"settings": {"recipe": {"pretrain": {"image_size": None}}}}, {"settings": None}]
    )
    def test_a_card_without_the_size_of_images_is_refused(self, folder: Path, tmp_path: Path, card: dict):
        export_backbone(create_backbone("resnet_small", 0), "resnet_small", tmp_path, card)
        with pytest.raises(UserError, match="does not say what size of images") as caught:
            open_sweep(config(folder, checkpoint=str(tmp_path)), "x")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"checkpoint": "nowhere"}, "no exported backbone"),
            ({"target": "nowhere"}, "no converted dataset"),
            ({"protocol": replace(PROTOCOL, protocol="original")}, "--protocol original"),
            ({"audits": SweepAuditConfig(other="elsewhere")}, "no converted dataset in .*elsewhere"),
        ],
    )
    def test_what_cannot_be_done_is_one_clear_line(self, folder: Path, values: dict, words: str):
        with pytest.raises(UserError, match=words) as caught:
            open_sweep(config(folder, **values), "x")
        assert "\n" not in str(caught.value)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there_is_refused(self, folder: Path):
        with pytest.raises(UserError, match="finds no GPU"):
            open_sweep(config(folder, device="cuda"), "x")

    def test_no_trials_is_refused(self, folder: Path):
        with pytest.raises(UserError, match="--trials"):
            config(folder, trials=0)

    def test_a_run_is_named_after_what_it_is_about_unless_it_has_a_name(self, tmp_path: Path):
        def name(checkpoint: str, name: str = "") -> str:
            return FrozenConfig(checkpoint, "data/padchest/", name=name, out=str(tmp_path)).folder("probe").name

        assert name("runs/nih/best") == name("runs/nih/") == "probe-nih-padchest"
        assert name("runs/nih/best", "first") == "first"


class TestLeak:
    @pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.3), (0.6, 0.2, 0.2)])
    def test_pretraining_without_the_held_out_patients_is_fine(self, fractions):
        card = {"data": {"pretrain": "here", "target": "here", "fractions": [0.5, 0.2, 0.3]}}
        assert "without the patients" in check_leak(card, "here", ProtocolConfig(fractions=fractions))

    def test_a_smaller_pool_would_score_patients_that_pretraining_saw(self):
        card = {"data": {"pretrain": "here", "target": "here", "fractions": [0.5, 0.2, 0.3]}}
        with pytest.raises(UserError, match=r"expected --fractions 0\.5 0\.2 0\.3"):
            check_leak(card, "here", ProtocolConfig(fractions=(0.4, 0.3, 0.3)))

    def test_pretraining_for_another_target_saw_all_patients_of_its_own(self):
        card = {"data": {"pretrain": "here", "target": "there", "fractions": [0.5, 0.2, 0.3]}}
        with pytest.raises(UserError, match="the held-out ones too"):
            check_leak(card, "here", ProtocolConfig())
        assert "another hospital" in check_leak(card, "there", ProtocolConfig())

    def test_a_card_that_does_not_tell_is_said_not_to(self):
        assert "does not say" in check_leak({}, "here", ProtocolConfig())


def hill(values: dict) -> dict[str, float]:
    return {"val_auc": 0.9 - abs(values["x"] - 0.3) - 0.1 * (values["kind"] == "a"), "val_auc_se": 0.01}


class TestSearch:
    def test_the_given_points_come_first_and_the_best_is_found(self, folder: Path):
        starts = [{"x": 0.9, "kind": "b"}, {"x": 0.8, "kind": "a"}]
        trials = search(SPACE, starts, hill, config(folder, trials=40))
        assert [trial.values for trial in trials[:2]] == starts
        assert [trial.number for trial in trials] == list(range(1, 41))
        best = best_trial(trials)
        assert best.values["kind"] == "b"
        assert abs(best.values["x"] - 0.3) < 0.05

    @pytest.mark.parametrize("sampler", ["tpe", "random"])
    def test_a_seed_repeats_the_search(self, folder: Path, sampler: str):
        def values(seed: int) -> list[dict]:
            return [t.values for t in search(SPACE, [], hill, config(folder, trials=12, seed=seed, sampler=sampler))]

        assert values(0) == values(0)
        assert values(0) != values(1)

    def test_a_trial_that_diverges_is_recorded_and_never_chosen(self, folder: Path):
        def fragile(values: dict) -> dict[str, float]:
            if values["kind"] == "b":
                raise FloatingPointError("it diverged")
            return hill(values)

        trials = search(SPACE, [{"x": 0.3, "kind": "b"}, {"x": 0.7, "kind": "a"}], fragile, config(folder, trials=6))
        assert trials[0].error == "it diverged"
        assert best_trial(trials).values["kind"] == "a"
        table = trials_table(trials)
        assert table["status"].iloc[0] == "done"
        assert table["status"].iloc[-1] == "failed"
        assert math.isnan(table["val_auc"].iloc[-1])

    def test_a_search_whose_every_trial_fails_says_why(self, folder: Path):
        def broken(values: dict) -> dict[str, float]:
            raise FloatingPointError("the features are not finite")

        with pytest.raises(UserError, match="every trial failed, the first with: the features are not finite"):
            search(SPACE, [], broken, config(folder, trials=3))

    def test_the_first_among_equals_is_the_best(self):
        trials = [
            Trial(n, {}, {"val_auc": value, "val_auc_se": 0.0}, 0.0) for n, value in ((1, 0.5), (2, 0.6), (3, 0.6))
        ]
        assert best_trial(trials).number == 2


def not_audited(task: Task) -> Scores:
    pytest.fail("audits were not asked for")


class TestWriting:
    def scores(self, task):
        scores = task.empty_scores()
        for values in scores.values:
            values[:] = np.random.default_rng(0).normal(size=values.shape)
        return scores

    def test_another_experiment_adds_its_own_results_and_sections(self, folder: Path):
        sweep = open_sweep(config(folder, name="other"), "x")
        test = sweep.task("test")
        failed = Trial(2, {"steps": 20}, {}, 2.0, "it diverged")
        trials = [Trial(1, {"steps": 10}, {"val_auc": 0.6, "val_auc_se": 0.01}, 1.0), failed]
        scores = {"chosen": self.scores(test), "linear_probe": self.scores(test), "from_scratch": "too few images"}
        summary = sweep.write(trials, test, scores, not_audited, sections=["## Mine"], results={"mine": 3})
        assert summary == json.loads((sweep.folder / "summary.json").read_text())
        assert summary["mine"] == 3
        assert summary["search"]["trials"] == {"done": 1, "failed": 1}
        assert summary["search"]["failed"] == {"2": "it diverged"}
        text = (sweep.folder / "summary.md").read_text()
        for words in ("## Mine", "No from_scratch: too few images.", "Trial 2 failed: it diverged", "1 done, 1 failed"):
            assert words in text
        written = json.loads((sweep.folder / "config.json").read_text())["config"]
        assert written == json.loads(json.dumps(asdict(sweep.config)))

    def test_a_run_is_written_whole_or_not_at_all(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        sweep = open_sweep(config(folder, name="cut", out=str(folder / "cut")), "x")
        test = sweep.task("test")

        def fail(*_: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(frozen_sweep, "write_text", fail)
        trials = [Trial(1, {}, {"val_auc": 0.6, "val_auc_se": 0.01}, 1.0)]
        with pytest.raises(OSError, match="no space"):
            sweep.write(trials, test, {"chosen": self.scores(test)}, not_audited)
        assert list((folder / "cut").iterdir()) == []

    def test_the_final_comparison_is_not_on_val(self, folder: Path):
        sweep = open_sweep(config(folder, name="val"), "x")
        val = sweep.task("val")
        with pytest.raises(ValueError, match="test task"):
            sweep.write([], val, {"chosen": self.scores(val)}, not_audited)
