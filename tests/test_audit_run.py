"""The audits of a finished run, from its folder to audit/ in it, and as `scarce audit` gives them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from phantom_hospitals import write_films, write_hospitals, write_run
from PIL import Image

from scarce.audit.audits import report_json, run_audits
from scarce.audit_config import AuditConfig
from scarce.audit_run import audit_run, auditable, make_subject, open_run
from scarce.backbones import CARD_NAME
from scarce.data.splits import image_splits
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.files import write_json

FINDINGS = ("hiatal hernia", "interstitial pattern")
QUICK = AuditConfig(permutations=39, resamples=100)
QUICK_FLAGS = ("--permutations", "39", "--resamples", "100")
FILES = {"audit.json", "audit.md", "overview.png", "index.html"}
AUDITS = [
    *("above_chance", "lungs_removed", "border_only", "corner_markers", "encoded_attributes", "acquisition_only"),
    *("matched_test", "corruption_curves", "cross_hospital", "where_it_looked"),
]


def scarce_audit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from scarce.cli import main; main()", "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hospitals and the run of a sweep over them, which is only read."""
    path = tmp_path_factory.mktemp("audit")
    write_hospitals(path, patients=100)
    return path


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", folder / "a", folder / "b", findings=FINDINGS)


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    run = write_run(folder / "finished", folder / "a", folder / "b", findings=FINDINGS)
    audit_run(run, QUICK)
    return run


def audits_of(run: Path, config: AuditConfig = QUICK) -> dict:
    """What the audits found, without the page."""
    return report_json(run_audits(make_subject(open_run(run), config)))["audits"]


def report_of(run: Path) -> dict:
    return json.loads((run / "audit" / "audit.json").read_text())


def changed(folder: Path, out: Path, **columns: object) -> Path:
    """The second hospital with other columns."""
    dataset = open_dataset(folder / "b")
    table = dataset.metadata().assign(**columns)
    return write_films(out, "phantom-b", table, dataset.pixels(), dataset.lungs()).path


def without_test_positives(folder: Path, out: Path, *findings: str) -> Path:
    """The second hospital, where no test patient has these findings."""
    table = open_dataset(folder / "b").metadata()
    test = image_splits(table, (0.5, 0.2, 0.3)) == "test"
    labels = [
        [name for name in old if name not in findings] if here else old
        for old, here in zip(table["labels"], test, strict=True)
    ]
    return changed(folder, out, labels=pd.Series(labels, dtype=object))


class TestReport:
    def test_the_folder_holds_the_answer_as_json_text_picture_and_page(self, finished: Path):
        assert {path.name for path in (finished / "audit").iterdir()} == FILES
        report = report_of(finished)
        assert list(report["audits"]) == sorted(AUDITS)
        assert list(report["by_finding"]) == list(FINDINGS)
        text, page = ((finished / "audit" / name).read_text() for name in ("audit.md", "index.html"))
        assert report["headline"] in text
        assert report["headline"] in page
        assert "finished/best" in page
        assert "phantom-a" in page
        with Image.open(finished / "audit" / "overview.png") as picture:
            assert min(picture.size) > 200

    def test_every_audit_has_rows_and_every_row_a_number_or_a_reason(self, finished: Path):
        for key, audit in report_of(finished)["audits"].items():
            assert audit["rows"], key
            for row in audit["rows"]:
                assert row["numbers"] or row["words"]
                assert row["verdict"] in ("fails", "can't tell", "passes", None)
        assert set(report_of(finished)["audits"]["corruption_curves"]["curves"]) >= {"brightness", "JPEG"}

    def test_an_untrained_network_and_nine_test_patients_prove_nothing(self, finished: Path):
        report = report_of(finished)
        assert report["headline"].startswith("Not above chance")
        assert report["audits"]["above_chance"]["verdict"] == "fails"

    def test_the_same_run_gives_the_same_bytes(self, finished: Path, run: Path):
        audit_run(run, QUICK)
        assert (run / "audit" / "audit.json").read_bytes() == (finished / "audit" / "audit.json").read_bytes()

    def test_the_subject_is_the_run_on_its_test_patients(self, folder: Path, run: Path):
        model = open_run(run)
        subject = make_subject(model, QUICK)
        table = open_dataset(folder / "b").metadata().set_index("image_id")
        split = image_splits(table.reset_index(), model.protocol.fractions)
        where = dict(zip(table.index, split, strict=True))
        assert {where[name] for name in subject.task.image_ids[subject.held_out]} == {"test"}
        assert subject.task.shots == ((5,), (5,))
        assert subject.task.seeds == (1000, 1001)
        assert subject.other.manifest.hospital == "phantom-a"
        dataset = open_dataset(folder / "b")
        rows = table.index.get_indexer(subject.task.image_ids)
        assert np.array_equal(subject.lungs, dataset.lungs(rows))
        assert np.array_equal(subject.scores.values[0], subject.frozen(subject.task).values[0])


class TestCommandLine:
    def test_it_prints_the_answer_and_where_the_page_is(self, run: Path):
        ended = scarce_audit(run, *QUICK_FLAGS)
        assert ended.returncode == 0, ended.stderr
        report = report_of(run)
        lines = ended.stdout.splitlines()
        assert lines[0] == report["headline"]
        assert len(lines) == 2 + len(AUDITS)
        for line, audit in zip(lines[1:-1], [report["audits"][key] for key in AUDITS], strict=True):
            assert line.split(None, 1)[1].endswith(audit["verdict"])
            assert line.strip().startswith(audit["title"])
        assert lines[-1] == f"Written to {run / 'audit' / 'index.html'}"
        assert {path.name for path in (run / "audit").iterdir()} == FILES

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ((), "is not a finished run: expected config.json there"),
            (("--permutations", "5"), "--permutations must be at least 39"),
        ],
    )
    def test_a_mistake_is_one_line_and_exit_code_2(self, tmp_path: Path, flags, words):
        ended = scarce_audit(tmp_path / "nowhere", *flags)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("scarce: ")
        assert len(ended.stderr.splitlines()) == 1
        assert words in ended.stderr
        assert not (tmp_path / "nowhere").exists()


class TestRefusals:
    """Nothing is written."""

    def refused(self, run: Path, words: str, config: AuditConfig = QUICK, findings: tuple[str, ...] = ()) -> None:
        with pytest.raises(UserError, match=words) as caught:
            audit_run(run, config, findings)
        assert "\n" not in str(caught.value)
        assert not (run / "audit").exists()

    def test_damaged_weights(self, run: Path):
        (run / "best" / "backbone.safetensors").write_bytes(b"weights")
        self.refused(run, "holds no exported backbone")

    def test_no_folder_and_an_empty_one(self, tmp_path: Path):
        self.refused(tmp_path / "nowhere", "is not a finished run: expected config.json there")
        self.refused(tmp_path, "is not a finished run: expected config.json there")
        assert not (tmp_path / "nowhere").exists()

    def test_an_unfinished_run(self, run: Path):
        (run / "best" / CARD_NAME).unlink()
        self.refused(run, r"has no chosen model: expected .* with best/card.json")

    @pytest.mark.parametrize("content", [{}, {"config": {}}, {"config": {"target": "phantom-b", "images": 600}}])
    def test_the_folder_of_something_else(self, run: Path, content: dict):
        write_json(run / "config.json", content)
        self.refused(run, "has no chosen model")

    def test_a_damaged_config(self, run: Path):
        (run / "config.json").write_text("{")
        self.refused(run, r"config\.json is damaged")

    def test_a_card_that_does_not_say_how_it_was_trained(self, run: Path):
        card = json.loads((run / "best" / CARD_NAME).read_text())
        del card["settings"]["probe"]
        write_json(run / "best" / CARD_NAME, card)
        self.refused(run, "does not say how the backbone was trained")

    def test_a_dataset_that_has_changed_since(self, folder: Path, run: Path, tmp_path: Path):
        other = changed(folder, tmp_path / "b", age=50.0)
        config = json.loads((run / "config.json").read_text())
        config["config"]["data"]["target"] = str(other)
        write_json(run / "config.json", config)
        self.refused(run, "its content has changed since")

    def test_a_dataset_that_is_gone(self, folder: Path, run: Path):
        config = json.loads((run / "config.json").read_text())
        config["config"]["data"]["pretrain"] = str(folder / "gone")
        write_json(run / "config.json", config)
        self.refused(run, "no converted dataset")

    def test_another_hospital_that_is_not_there(self, run: Path):
        self.refused(run, "no converted dataset in", replace(QUICK, other="nowhere"))

    def test_too_few_resamples(self):
        with pytest.raises(UserError, match="--resamples must be at least 100"):
            AuditConfig(resamples=5)

    def test_a_finding_without_test_patients_alone(self, folder: Path, tmp_path: Path):
        rare = without_test_positives(folder, tmp_path / "b", FINDINGS[0])
        run = write_run(tmp_path / "run", folder / "a", rare, findings=FINDINGS[:1])
        self.refused(run, "'hiatal hernia' has .* 0 test patients, needs")
        self.refused(run, "no labelled image shows 'scurvy'", findings=("scurvy",))


class TestWhatIsLeft:
    """What can't be audited says why, and the rest is audited."""

    def test_one_hospital_only(self, folder: Path, tmp_path: Path):
        run = write_run(tmp_path / "run", folder / "b", folder / "b", findings=FINDINGS)
        audits = audits_of(run)
        assert audits["cross_hospital"]["verdict"] == "not run"
        assert "there is one hospital only" in audits["cross_hospital"]["missing"][0]
        assert audits["corner_markers"]["missing"] == ["No marker was pasted in: there is one hospital only."]
        assert "hospital: there is one hospital only." in audits["encoded_attributes"]["missing"]
        assert all(audits[key]["rows"] for key in AUDITS if key != "cross_hospital")

    def test_another_hospital_by_name(self, folder: Path, tmp_path: Path):
        run = write_run(tmp_path / "run", folder / "b", folder / "b", findings=FINDINGS)
        model = open_run(run)
        assert make_subject(model, QUICK).other is None
        assert make_subject(model, replace(QUICK, other=str(folder / "b"))).other is None
        other = make_subject(model, replace(QUICK, other=str(folder / "a"))).other
        assert other.manifest.hospital == "phantom-a"

    def test_one_view_only(self, folder: Path, tmp_path: Path):
        run = write_run(
            tmp_path / "run", folder / "a", changed(folder, tmp_path / "b", view="PA"), findings=FINDINGS[:1]
        )
        audits = audits_of(run)
        for key in ("matched_test", "encoded_attributes"):
            assert any("view: the same for all films" in reason for reason in audits[key]["missing"])
        names = [row["name"] for audit in audits.values() for row in audit["rows"]]
        assert not any("by view" in name for name in names)
        assert any("by sex" in name for name in names)

    def test_a_finding_without_test_patients_beside_one_with(self, folder: Path, tmp_path: Path):
        rare = without_test_positives(folder, tmp_path / "b", FINDINGS[0])
        run = write_run(tmp_path / "run", folder / "a", rare, findings=FINDINGS)
        report = audit_run(run, QUICK)
        assert list(report["by_finding"]) == [FINDINGS[1]]
        (reason,) = report["left_out"]
        assert "'hiatal hernia' has" in reason
        assert "Not audited: " in (run / "audit" / "audit.md").read_text()

    def test_findings_that_are_asked_for(self, run: Path):
        model = open_run(run)
        asked = replace(model, protocol=replace(model.protocol, findings=("pulmonary mass", "scurvy")))
        subject = make_subject(asked, QUICK)
        assert subject.task.findings == ("pulmonary mass",)
        assert "no labelled image shows 'scurvy'" in subject.left_out[0]

    def test_all_findings_where_none_is_asked_for(self, folder: Path, tmp_path: Path):
        model = open_run(write_run(tmp_path / "run", folder / "a", folder / "b"))
        protocol, left_out = auditable(model.hospital, model.protocol)
        assert (protocol.findings, left_out) == ((), ())
        assert len(make_subject(model, QUICK).task.findings) > 5


def write_masks(folder: Path, hospital: Path, size: int) -> Path:
    dataset = open_dataset(hospital)
    folder.mkdir()
    for name, lungs in zip(dataset.metadata()["image_id"], dataset.lungs(), strict=True):
        picture = Image.fromarray(lungs.astype(np.uint8) * 255).resize((size, size), Image.Resampling.NEAREST)
        picture.save(folder / f"{name}.png")
    return folder


class TestMasks:
    def refused(self, run: Path, masks: Path, words: str) -> None:
        audits = audits_of(run, replace(QUICK, masks=str(masks)))
        for key in ("lungs_removed", "where_it_looked"):
            assert audits[key]["verdict"] == "not run"
            assert words in audits[key]["missing"][0]
        assert all(audits[key]["rows"] for key in AUDITS if key not in ("lungs_removed", "where_it_looked"))

    def test_a_folder_that_is_not_there(self, run: Path, tmp_path: Path):
        self.refused(run, tmp_path / "masks", "expected a folder of lung masks, found none at")

    def test_masks_of_another_size(self, folder: Path, run: Path, tmp_path: Path):
        self.refused(run, write_masks(tmp_path / "masks", folder / "b", 16), "expected 32 × 32 pixels")

    def test_one_missing(self, folder: Path, run: Path, tmp_path: Path):
        masks = write_masks(tmp_path / "masks", folder / "b", 32)
        name = make_subject(open_run(run), QUICK).task.image_ids[3]
        (masks / f"{name}.png").unlink()
        self.refused(run, masks, "found none for 1 of")

    def test_the_datasets_own_and_the_same_from_a_folder(self, folder: Path, run: Path, tmp_path: Path):
        masks = write_masks(tmp_path / "masks", folder / "b", 32)
        own, given = (make_subject(open_run(run), replace(QUICK, masks=one)).lungs for one in ("", str(masks)))
        assert np.array_equal(own, given)
        assert own.any()

    def test_masks_are_reduced_with_the_images(self, run: Path):
        model = open_run(run)
        whole = make_subject(model, QUICK).lungs
        small = make_subject(replace(model, image_size=16), QUICK).lungs
        assert small.shape == (len(whole), 16, 16)
        shares = whole.reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4))
        assert small[shares == 1].mean() > 0.99
        assert small[shares == 0].mean() < 0.01


def test_first_seeds_keep_their_episodes(run: Path):
    task = make_subject(open_run(run), QUICK).task
    one = task.first_seeds(1)
    assert one.seeds == task.seeds[:1]
    assert [episode.seed for episode in one.episodes] == [1000, 1000]
