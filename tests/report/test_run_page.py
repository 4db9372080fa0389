"""report.html of a finished run, and what stands beside it."""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_page import Page
from phantom_hospitals import write_hospitals
from run_cases import write_finished_run

from scarce.cli import main
from scarce.errors import UserError
from scarce.files import write_json
from scarce.report.run_page import write_report

SECTIONS = ["results", "mattered", "time", "collapse", "views", "audits", "methods", "tables"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_hospitals(folder)
    run = write_finished_run(folder, "one")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as output:
        patch.setattr(sys, "argv", ["scarce", "report", str(run)])
        main()
    assert output.getvalue() == f"Written to {run / 'report.html'}\n"
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_the_answer_comes_first_then_every_section(run: Path, page: Page):
    summary = summary_of(run)
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == SECTIONS
    top = page.texts["top"]
    assert f"the mean test AUC is {summary['chosen']['auc']:.3f} (95% interval" in top
    assert summary["audit"]["headline"] in top


def test_it_asks_for_nothing_and_runs_nothing(page: Page):
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    for _, attrs in page.tags:
        assert "://" not in attrs.get("href", "")
        assert attrs.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")


def test_every_picture_says_what_it_shows(run: Path, page: Page):
    assert len(page.images) == 1 + len(summary_of(run)["protocol"]["findings"]) + 3 + 1 + 1 + 1 + 1
    assert all(len(attrs["alt"]) > 40 for _, attrs in page.images)


def test_every_finding_has_its_positives_and_every_baseline_its_numbers(run: Path, page: Page):
    alts = " ".join(attrs["alt"] for section, attrs in page.images if section == "results")
    summary = summary_of(run)
    for cell in summary["chosen"]["cells"]:
        assert f"{cell['finding']}: {cell['test_positives']} positive test films" in alts
        assert f"{cell['auc']:.3f} ({cell['ci_low']:.3f} to {cell['ci_high']:.3f})" in " ".join(
            word for row in page.rows["tables"] for word in row
        )
    assert "pixels_16 0." in alts
    assert ["imagenet: " + summary["baselines"]["imagenet"]["reason"] + "."] == page.lists["results"][0]


def test_what_mattered_is_said_with_its_uncertainty(page: Page):
    text = page.texts["mattered"]
    assert "views.noise (" in text.partition("More than chance explains: ")[2]


def test_trials_that_ended_otherwise_are_told(page: Page):
    assert "15 trials (" in page.texts["time"]
    assert "2 collapsed" in page.texts["time"]
    assert "Trial ffffffffffff failed: FloatingPointError" in page.texts["time"]
    assert "Trial 000000000004 collapsed: embedding_std is 0.01, below 0.05." in page.texts["collapse"]


def test_the_methods_name_data_splits_seeds_and_versions(page: Page):
    text = " ".join(page.texts["methods"].split())
    for words in (
        "88 chest X-rays of 60 patients of phantom-a",
        "a pool that labels are taken from (50%), a validation set (20%) and a test set (30%)",
        "A small ResNet with one input channel was pretrained by SimCLR (Chen et al. 2020)",
        "Of 15 trials",
        "100 bootstrap resamples",
        "torch 2.",
        "with seed 0.",
    ):
        assert words in text


def test_the_tables_for_programs_and_papers_hold_the_same_numbers(run: Path):
    table, summary = pd.read_csv(run / "results.csv"), summary_of(run)
    cells = summary["chosen"]["cells"] + summary["baselines"]["pixels_16"]["cells"]
    assert len(table) == len(cells) + 2 * (1 + 2)  # over all, and by shots
    over_all = table[(table["finding"] == "all") & (table["shots"] == "all")].set_index("model")
    for key in ("auc", "ci_low", "ci_high", "p_chance"):
        assert over_all.loc["chosen", key] == summary["chosen"][key]
    assert over_all.loc["pixels_16", "difference_p_holm"] == summary["baselines"]["pixels_16"]["difference"]["p_holm"]
    by_finding = table[(table["model"] == "chosen") & (table["finding"] != "all")]
    np.testing.assert_array_equal(by_finding["auc"], [cell["auc"] for cell in cells[: len(by_finding)]])
    latex = (run / "results.tex").read_text()
    assert latex.count(r"\toprule") == latex.count(r"\end{table}") == 2
    assert r"pixels\_16" in latex


def test_what_a_run_lacks_is_left_out_with_the_reason(copy: Path):
    summary = summary_of(copy)
    del summary["audit"]
    write_json(copy / "summary.json", summary)
    config = json.loads((copy / "config.json").read_text())
    config["config"]["data"]["pretrain"] = str(copy / "nowhere")
    write_json(copy / "config.json", config)
    for folder in sorted((copy / "trials").iterdir())[5:]:
        shutil.rmtree(folder)
    for path in copy.glob("trials/*/attempts/*"):
        path.unlink()
    write_report(copy)
    page = Page((copy / "report.html").read_text(encoding="utf-8"))
    missing = {section: " ".join(reasons[-1]) for section, reasons in page.lists.items()}
    assert "the dataset is not here any more" in missing["views"]
    assert "scarce audit" in missing["audits"]
    assert "did not keep when its trials ended" in missing["time"]
    assert "5 trials made a report, and 10 settings were searched: too few to tell" in page.texts["mattered"]
    assert "no audit was made" in page.texts["top"]


def test_audits_that_were_made_later_are_told(copy: Path):
    summary = summary_of(copy)
    write_json(copy / "audit" / "audit.json", summary.pop("audit") | {"headline": "The audits of today."})
    write_json(copy / "summary.json", summary)
    write_report(copy)
    assert "The audits of today." in Page((copy / "report.html").read_text(encoding="utf-8")).texts["top"]


@pytest.mark.parametrize("lost", ["config.json", "summary.json", "trials.parquet", "best/card.json"])
def test_no_finished_run_is_refused_in_a_line(copy: Path, lost: str):
    for name in ("report.html", lost):
        (copy / name).unlink()
    with pytest.raises(UserError, match="finished run") as caught:
        write_report(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / "report.html").exists()
