"""Finished runs against each other: paired, corrected, and only where they can be compared."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from html_page import Page
from phantom_hospitals import write_hospitals
from run_cases import change, write_finished_run

from scarce.cli import main
from scarce.errors import UserError
from scarce.fewshot.statistics import holm
from scarce.kept_scores import SCORES_NAME
from scarce.report.comparison_page import comparison_markdown, verdict, write_comparison
from scarce.run_comparison import compare_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs, each better than the one before."""
    folder = tmp_path_factory.mktemp("comparison")
    write_hospitals(folder)
    return [write_finished_run(folder, f"run-{seed}", trials=5, seed=seed, audited=False) for seed in range(3)]


@pytest.fixture(scope="module")
def comparison(runs: list[Path]) -> dict:
    return compare_runs(runs)


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_every_run_has_the_numbers_of_its_own_summary(runs: list[Path], comparison: dict):
    for run in runs:
        chosen = summary_of(run)["chosen"]
        assert comparison["models"][run.name] == {key: chosen[key] for key in ("auc", "ci_low", "ci_high")}


def test_differences_are_of_the_same_films_and_episodes(runs: list[Path], comparison: dict):
    assert [(pair["first"], pair["second"]) for pair in comparison["pairs"]] == [
        *(("run-0", "run-1"), ("run-0", "run-2"), ("run-1", "run-2")),
    ]
    for pair in comparison["pairs"]:
        cells = [summary_of(run)["chosen"]["cells"] for run in runs if run.name in (pair["first"], pair["second"])]
        assert [cell["auc"] for cell in pair["cells"]] == pytest.approx(
            [first["auc"] - second["auc"] for first, second in zip(*cells, strict=True)]
        )
        assert pair["difference"]["ci_low"] < pair["difference"]["auc"] < pair["difference"]["ci_high"]


def test_a_pair_is_known_better_than_its_runs(comparison: dict):
    """What pairing is for: the intervals of two runs overlap widely, that of their difference is narrow."""
    models, difference = comparison["models"], comparison["pairs"][2]["difference"]
    apart = models["run-2"]["ci_high"] - models["run-2"]["ci_low"]
    assert difference["ci_high"] - difference["ci_low"] < 0.7 * apart


def test_p_values_are_corrected_over_pairs_and_over_all_their_cells(comparison: dict):
    over_all = [pair["difference"] for pair in comparison["pairs"]]
    cells = [cell for pair in comparison["pairs"] for cell in pair["cells"]]
    for several in (over_all, cells):
        assert [one["p_holm"] for one in several] == holm([one["p"] for one in several])


def test_the_verdict_claims_what_interval_and_p_both_say(comparison: dict):
    better = {"auc": 0.2, "ci_low": 0.1, "ci_high": 0.3, "p_holm": 0.01}
    for difference, words in (
        (better, "run-0 is better than run-1: run-0 minus run-1 is +0.200 (+0.100 to +0.300)."),
        ({**better, "auc": -0.2, "ci_low": -0.3, "ci_high": -0.1}, "run-1 is better than run-0"),
        ({**better, "p_holm": 0.2}, "run-0 and run-1 cannot be told apart"),
        ({**better, "ci_low": -0.1}, "run-0 and run-1 cannot be told apart"),
    ):
        pair = {**comparison["pairs"][0], "difference": difference}
        assert verdict({**comparison, "pairs": [pair]}).startswith(words)


def test_a_run_that_kept_no_scores_is_scored_again(runs: list[Path], tmp_path: Path):
    """To the same numbers as if it had kept them."""
    old = Path(shutil.copytree(runs[0], tmp_path / "old"))
    (old / SCORES_NAME).unlink()
    found = compare_runs([old, runs[1]])
    assert found["models"]["run-1"] == compare_runs([runs[0], runs[1]])["models"]["run-1"]
    assert found["models"]["old"]["auc"] != summary_of(old)["chosen"]["auc"]  # of the made-up scores
    assert 0.2 < found["models"]["old"]["auc"] < 0.8  # of the untrained network in best/


def test_the_files_hold_every_number_and_the_page_the_pictures(comparison: dict, tmp_path: Path):
    page = Page(write_comparison(tmp_path, comparison).read_text(encoding="utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.csv", "compare.html", "compare.tex"]
    table = pd.read_csv(tmp_path / "compare.csv")
    cells = len(comparison["pairs"][0]["cells"])
    assert len(table) == 3 * (1 + cells)
    over_all = table[table["finding"] == "all"]
    np.testing.assert_array_equal(over_all["difference"], [pair["difference"]["auc"] for pair in comparison["pairs"]])
    assert [section for section, _ in page.images] == ["pairs", "pair-1", "pair-2", "pair-3"]
    assert len(page.rows["pair-1"]) == 1 + cells
    assert verdict(comparison) in page.texts["top"]
    assert r"\toprule" in (tmp_path / "compare.tex").read_text()


def test_the_command_prints_the_table_and_where_the_page_is(runs: list[Path], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["scarce", "compare", *map(str, runs[:2])])
    main()
    expected = f"{comparison_markdown(compare_runs(runs[:2]))}\n\nWritten to compare-run-0-run-1/compare.html\n"
    assert capsys.readouterr().out == expected
    assert (tmp_path / "compare-run-0-run-1" / "compare.html").exists()


class TestRefusals:
    @pytest.fixture
    def changed(self, runs: list[Path], tmp_path: Path) -> Path:
        return Path(shutil.copytree(runs[1], tmp_path / "changed"))

    def refused(self, folders: list[Path], words: str) -> None:
        with pytest.raises(UserError, match=words) as caught:
            compare_runs(folders)
        assert "\n" not in str(caught.value)

    def test_another_dataset(self, runs: list[Path], changed: Path):
        change(changed, ["datasets", 1], "0" * 64)
        self.refused([runs[0], changed], "run-0 and changed were judged on different target datasets .*000000000000")

    def test_another_protocol(self, runs: list[Path], changed: Path):
        change(changed, ["config", "protocol", "test_seeds"], 5)
        self.refused([runs[0], changed], r"different protocols \(test_seeds was 2 and 5\): .* --test-seeds")

    def test_other_search_seeds_are_no_reason(self, runs: list[Path], changed: Path):
        change(changed, ["config", "protocol", "search_seeds"], 5)
        assert compare_runs([runs[0], changed])["models"].keys() == {"run-0", "changed"}

    def test_one_run_or_the_same_name_twice(self, runs: list[Path]):
        for folders in ([], runs[:1], [runs[0], runs[0]]):
            self.refused(folders, "expected at least two runs of different names")

    def test_no_run(self, runs: list[Path], tmp_path: Path):
        self.refused([runs[0], tmp_path / "nowhere"], "nowhere is not a finished run: expected config.json there")
