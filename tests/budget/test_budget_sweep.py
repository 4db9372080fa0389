"""A sweep that is given less than it could use."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from phantom_hospitals import small_sweep, write_hospitals

from scarce.budget.hook import BudgetHook
from scarce.config import SweepConfig
from scarce.errors import UserError
from scarce.run_sweep import run_sweep
from scarce.settings import search_space

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(config: SweepConfig) -> Path:
    return run_sweep(config, search_space(config.pretrain))


class Clock:
    """Seconds of this process's CPU, which does all but the training, and one more a report: however busy the machine
    is, a search is as long.
    """

    def __init__(self) -> None:
        self.reports = 0

    def monotonic(self) -> float:
        return time.process_time() + self.reports


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, ask = Clock(), BudgetHook.__call__

    def count(hook: BudgetHook, trial_id: str, result: dict[str, Any]) -> bool:
        clock.reports += 1
        return ask(hook, trial_id, result)

    monkeypatch.setattr(BudgetHook, "__call__", count)
    for module in ("run_sweep", "budget.spending", "budget.hook"):
        monkeypatch.setattr(f"scarce.{module}.time", clock)
    return clock


def test_a_sweep_ends_within_its_budget_and_says_what_it_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: Clock
):
    write_hospitals(tmp_path)
    dollars = 40.0  # a second costs one: the end needs a few, and the two trials at a time would train for an hour
    config = small_sweep(tmp_path, "limited", trials=5, budget_usd=dollars, price_per_hour=("head=3600",))
    config = replace(config, pretrain=replace(config.pretrain, epochs=20_000, report_epochs=1.0))
    folder = run(config)
    assert clock.reports < dollars
    cost = json.loads((folder / "summary.json").read_text())["cost"]
    assert 0 < cost["usd"] < dollars
    assert cost["hours"] == pytest.approx(cost["usd"] / 3600)
    assert cost["device_hours"] == pytest.approx(2 * cost["hours"])
    assert sum(phase["usd"] for phase in cost["phases"].values()) == pytest.approx(cost["usd"])
    assert 0 <= cost["idle_share"] < 1
    assert cost["price_source"] == "--price-per-hour head=3600"
    trials = pd.read_parquet(folder / "trials.parquet")
    assert set(trials["status"]) == {"budget"}  # both had made reports
    assert trials["usd"].sum() == pytest.approx(cost["trials"]["usd"])
    assert (trials["device_hours"] > 0).all()
    output = capsys.readouterr().out
    assert "stops here for the budget" in output
    lines = (folder / "summary.md").read_text().splitlines()
    assert cost["next_hour"]["sentence"] in lines
    assert cost["next_hour"]["sentence"] in output.splitlines()[-1]

    # Gone on with, it has nothing left to train with.
    run(replace(config, run=replace(config.run, resume=True)))
    again = json.loads((folder / "summary.json").read_text())["cost"]
    assert again["phases"]["final"]["usd"] > cost["phases"]["final"]["usd"]
    assert again["trials"]["usd"] == pytest.approx(cost["trials"]["usd"], abs=3)
    assert len(pd.read_parquet(folder / "trials.parquet")) == 2


def test_dollars_without_a_price_are_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(UserError, match="--budget-usd 5 needs to know what a node costs"):
        run(small_sweep(tmp_path, "unpriced", budget_usd=5.0))
    assert not (tmp_path / "runs").exists()
