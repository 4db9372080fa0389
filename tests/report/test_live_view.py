"""The live view as it stands on terminals of several widths, and when it is drawn at all."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from scarce.report.live_trials import is_live
from scarce.report.live_view import LiveView
from scarce.report.progress import Cost, Progress

DASHBOARD = "http://127.0.0.1:8265"


def drawn(width: int, cost: Cost | None = None) -> str:
    progress = Progress(trials=8, epochs=6)
    progress.snapshot({}, Cost(0.0))
    progress.ended("0" * 12, "done")
    for trial, auc in (("a1b2c3d4e5f6", 0.6123), ("b1b2c3d4e5f6", 0.598)):
        progress.began(trial)
        report = {"epoch": 1.5, "val_auc": auc, "val_auc_se": 0.021, "images_per_s": 1234.0}
        progress.reported(trial, {**report, "loss": 3.25, "effective_rank": 21.26})
    progress.began("c1b2c3d4e5f6")
    now = progress.snapshot({"CPU": (1.5, 2.0)}, cost or Cost(90.0))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(LiveView("runs/mine", 6.0, DASHBOARD, now))
    return console.export_text()


def test_everything_is_there():
    text = drawn(100, Cost(5400.0, usd=1.5, usd_per_hour=1.0, budget_seconds=7200.0))
    for words in (
        "runs/mine",
        "3 running, 4 waiting, 1 done, 0 pruned, 0 collapsed, 0 failed",
        "0.612 ± 0.021 (standard error), trial a1b2c3d4e5f6",
        "2,468 images/s in all",
        "1.5 of 2 CPU (75%) taken",
        "1:30:00 gone, about 2:00:00 left",
        "$1.50 so far, about $2.00 more at $1.00 an hour",
        "2:00:00 left, the end of the run included",
        DASHBOARD,
        "epoch of 6",
    ):
        assert words in text
    row = next(line for line in text.splitlines() if "b1b2c3d4e5f6" in line)
    assert row.strip("│ ").split() == ["b1b2c3d4e5f6", "1.5", "0.598", "±", "0.021", "3.250", "21.3", "1234"]


@pytest.mark.parametrize("width", [30, 45, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_nor_wrapped(width: int):
    lines = drawn(width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == len(drawn(120).splitlines())


def test_without_a_price_or_a_budget_there_is_no_line_about_it():
    assert "$" not in drawn(100)
    assert "budget" not in drawn(100)


@pytest.mark.parametrize(
    ("terminal", "environment", "live"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_only_a_terminal_is_drawn_on(terminal: bool, environment: dict[str, str], live: bool):
    assert is_live(SimpleNamespace(isatty=lambda: terminal), environment) == live
