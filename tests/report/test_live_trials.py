"""The live view fed as Ray Tune feeds it."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial
from rich.console import Console

from scarce.files import write_json
from scarce.report import live_trials
from scarce.report.live_trials import LiveTrials
from scarce.trials.records import FAILED

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # of the cursor

pytestmark = pytest.mark.usefixtures("ray_cluster")


def report(trial: str, epoch: float, auc: float) -> dict[str, object]:
    numbers = {"trial": trial, "epoch": epoch, "step": 10 * epoch, "val_auc": auc, "val_auc_se": 0.02}
    return {**numbers, "loss": 3.0, "effective_rank": 9.0, "images_per_s": 50.0}


class FakeTrial(SimpleNamespace):
    def is_finished(self) -> bool:
        return self.status in (Trial.TERMINATED, Trial.ERROR)


def fake(name: str, status: str, last: dict[str, object] | None = None) -> FakeTrial:
    return FakeTrial(trial_id=f"id_{name}", config=name, status=status, last_result=last or {})


def watched(folder: Path) -> tuple[LiveTrials, io.StringIO]:
    config = SimpleNamespace(pretrain=SimpleNamespace(epochs=4.0))
    context = SimpleNamespace(
        config=config,
        folder=folder,
        settings=lambda sampled: sampled,
        trial_folder=lambda name: folder / "trials" / name,
    )
    screen = io.StringIO()
    return LiveTrials(context, 5, console=Console(file=screen, force_terminal=True, width=110)), screen  # type: ignore[arg-type]


def test_a_resumed_search_shows_what_was_there_and_what_comes(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(live_trials, "DRAW_S", 0.0)
    before = tmp_path / "trials" / "aaa"
    write_json(before / "trial.json", {"sampled": {}, "settings": {}})
    write_json(before / "history.json", [report("aaa", 1, 0.7), report("aaa", 4, 0.6)])
    live, screen = watched(tmp_path)
    trials = [
        fake("aaa", Trial.TERMINATED, report("aaa", 4, 0.6)),
        fake("bbb", Trial.RUNNING),
        fake("ccc", Trial.PENDING),
        fake("ddd", Trial.ERROR),
    ]
    with live:
        assert "0.700 ± 0.020" in screen.getvalue()
        live.on_trial_result(1, trials, trials[1], report("bbb", 2, 0.65))
        live.on_step_begin(1, trials)
        assert "1 running, 2 waiting, 1 done, 0 pruned, 0 collapsed, 1 failed" in screen.getvalue()
        trials[1].status, trials[1].last_result = Trial.TERMINATED, report("bbb", 2, 0.65)
        live.on_trial_complete(2, trials, trials[1])
        live.on_trial_result(2, trials, trials[2], {"trial": "ccc", FAILED: "it would not", "epoch": 0.0})
        live.on_experiment_end(trials)
        assert "0 running, 2 waiting, 1 done, 1 pruned, 0 collapsed, 1 failed" in screen.getvalue()
    assert "failed: it would not" in screen.getvalue() + capsys.readouterr().out


def test_the_terminal_is_given_back_after_ctrl_c_and_prints_come_above(tmp_path: Path, capsys):
    live, screen = watched(tmp_path)

    def interrupted() -> None:
        with live:
            print("someone else's words")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = screen.getvalue()
    assert text.count(HIDE) == text.count(SHOW) == 1
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert "someone else's words" in text[: text.rindex("╰")]
    print("plain again")
    assert capsys.readouterr().out == "plain again\n"
