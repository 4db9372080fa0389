"""What the hook tells Tune, on a made-up clock; a sweep that ends within its budget is in test_budget_sweep.py."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scarce.budget import hook as module
from scarce.budget.hook import BudgetHook
from scarce.budget.limits import Budget
from scarce.budget.prices import Prices
from scarce.budget.spending import Spending
from scarce.config import PretrainConfig, SearchConfig, SweepConfig
from scarce.resources import Plan
from scarce.space import Float
from scarce.study.optuna_space import make_sampler, to_distributions
from scarce.study.searcher import Searcher
from scarce.trials.endings import OUT_OF_BUDGET


@dataclass
class Context:
    """As much of a TrialContext as the hook asks for."""

    folder: Path
    config: SweepConfig = field(default_factory=lambda: SweepConfig(pretrain=PretrainConfig(epochs=8)))

    @property
    def run(self) -> str:
        return str(self.folder)

    def settings(self, sampled: dict[str, Any]) -> dict[str, Any]:
        return sampled

    def trial_folder(self, settings: dict[str, Any]) -> Path:
        return self.folder / settings["name"]


@dataclass
class Trial:
    """As much of a Tune trial."""

    trial_id: str
    status: str = "RUNNING"
    node_ip: str = "1"
    last_result: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, str]:
        return {"name": f"identity-{self.trial_id}"}

    def is_finished(self) -> bool:
        return self.status == "TERMINATED"


NODE = {"Alive": True, "NodeManagerAddress": "1", "Labels": {}, "Resources": {"CPU": 2.0}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass when told to, on one node of $36 an hour."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("scarce.budget.hook.time", clock)
    monkeypatch.setattr("scarce.budget.spending.time", clock)
    monkeypatch.setattr(module, "ray", SimpleNamespace(nodes=lambda: [NODE]))
    return clock


def make_hook(folder: Path, **budget: float) -> BudgetHook:
    context: Any = Context(folder)
    return BudgetHook(context, Plan(1.0, 0.0, 1, 2), Budget(**budget), Prices({}, 36.0))


def step(hook: BudgetHook, clock: SimpleNamespace, trials: list[Any], seconds: float) -> None:
    clock.now += seconds
    hook.on_step_begin(0, trials)


def report(hook: BudgetHook, name: str, epoch: float, interval: float = 10.0) -> tuple[bool, bool]:
    """Whether the trial stops, and is marked."""
    result = {"trial": f"identity-{name}", "epoch": epoch, "step": 10 * epoch, "time_this_iter_s": interval}
    result["images_per_s"] = 20 * 128 / max(interval, 1e-9)  # 20 steps; the evaluation takes no time
    return hook(name, result), OUT_OF_BUDGET in result


def test_trials_end_while_the_run_can_still_be_finished(tmp_path: Path, clock: SimpleNamespace):
    hook = make_hook(tmp_path, hours=1000 / 3600)
    one, two = Trial("1"), Trial("2")
    assert hook.has_room()  # nothing is known yet
    hook.on_trial_start(0, [one], one)
    step(hook, clock, [one], 200)
    assert report(hook, "1", 2, 200) == (False, False)
    assert not hook.has_room()  # 800 s are left, 150 of them for the end, and a whole trial would take 800
    step(hook, clock, [one, two], 0)
    step(hook, clock, [one, two], 200)
    assert report(hook, "1", 4, 200) == (False, False)  # 450 s
    step(hook, clock, [one, two], 200)
    assert report(hook, "2", 2, 400) == (True, True)  # its next one would come 150 s too late
    assert report(hook, "1", 6, 200) == (False, False)
    assert not hook.has_room()
    step(hook, clock, [one], 200)
    assert report(hook, "1", 8, 200) == (False, False)  # it has ended anyway
    assert not hook.stop_all()
    hook.on_trial_complete(0, [one], one)
    step(hook, clock, [one], 100)
    known = Spending(tmp_path, "CPU").trials
    assert [known[f"identity-{name}"]["status"] for name in "12"] == ["ended", "budget"]
    assert known["identity-1"]["seconds"] == pytest.approx(800)
    assert known["identity-1"]["usd"] == pytest.approx(800 / 3600 * 18)


def test_time_that_runs_out_between_reports_stops_everything(tmp_path: Path, clock: SimpleNamespace):
    hook = make_hook(tmp_path, usd=10.0)  # 1000 s
    one, two = Trial("1"), Trial("2")
    step(hook, clock, [one, two], 0)
    step(hook, clock, [one, two], 900)
    assert not hook.stop_all()  # there is no model yet
    assert report(hook, "1", 2, 900) == (True, True)
    one.status = "TERMINATED"
    assert hook.stop_all()
    assert two.last_result[OUT_OF_BUDGET]
    assert not hook.is_idle
    two.status = "TERMINATED"
    assert not hook.stop_all()
    step(hook, clock, [one, two], 1)
    assert hook.is_idle


def test_a_restart_knows_what_was_spent_and_stopped_before(tmp_path: Path, clock: SimpleNamespace):
    hook = make_hook(tmp_path, hours=1000 / 3600)
    one = Trial("1")
    step(hook, clock, [one], 0)
    step(hook, clock, [one], 800)
    report(hook, "1", 2, 800)
    again = make_hook(tmp_path, hours=1000 / 3600)
    clock.now = 5.0
    step(again, clock, [one], 0)
    assert report(again, "1", 1, 0.0) == (True, True)  # it repeats its reports from the first
    assert again.spending.seconds == pytest.approx(800)


def test_what_tune_restores_from_its_files_is_one_object(tmp_path: Path):
    before = pickle.dumps(make_hook(tmp_path, hours=1))
    hook = make_hook(tmp_path, hours=1)  # of the process that resumes
    assert pickle.loads(before) is pickle.loads(pickle.dumps(hook)) is hook
    assert make_hook(tmp_path / "other", hours=1) is not pickle.loads(before)


def test_the_evaluation_is_what_a_report_takes_beyond_its_steps(tmp_path: Path, clock: SimpleNamespace):
    hook = make_hook(tmp_path, hours=1)
    for epoch, seconds in ((1, 50), (2, 30), (3, 0.0)):
        step(hook, clock, [Trial("1")], seconds)
        result = {"trial": "identity-1", "epoch": epoch, "step": 10 * epoch, "images_per_s": 10 * 128 / 20}
        hook("1", result)
    assert hook.spending.evaluation_seconds == pytest.approx(10)  # a report that is repeated takes no time


def test_without_a_limit_nothing_is_stopped(tmp_path: Path, clock: SimpleNamespace):
    hook = make_hook(tmp_path)
    step(hook, clock, [Trial("1")], 0)
    step(hook, clock, [Trial("1")], 1e9)
    assert report(hook, "1", 2) == (False, False)
    assert hook.has_room()
    assert not hook.stop_all()
    assert Spending(tmp_path, "CPU").usd == pytest.approx(1e7)


def test_the_searcher_waits_while_trials_run_and_then_ends(tmp_path: Path):
    budget: Any = SimpleNamespace(has_room=lambda: room, is_idle=False)
    searcher = Searcher(
        to_distributions({"views.noise": Float(0.0, 1.0)}),
        make_sampler("tpe", 0, 4),
        points=[],
        epochs=8,
        folder=tmp_path,
        objectives=SearchConfig().objectives,
        budget=budget,
    )
    room = True
    assert set(searcher.suggest("a") or ()) == {"views.noise"}
    room = False
    assert searcher.suggest("b") is None
    budget.is_idle = True
    assert searcher.suggest("c") == Searcher.FINISHED
