"""How a search stands, drawn for a terminal: a panel of figures and a table of the trials that run."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scarce.report.progress import Snapshot
from scarce.trials.endings import ENDINGS

# The columns of the table with the width of terminal from which on there is room for them.
_COLUMNS: Mapping[str, tuple[int, Callable[[Mapping[str, Any]], str]]] = {
    "epoch": (0, lambda report: f"{report['epoch']:.1f}"),
    "val AUC ± s.e.": (0, lambda report: f"{report['val_auc']:.3f} ± {report['val_auc_se']:.3f}"),
    "loss": (52, lambda report: f"{report['loss']:.3f}"),
    "effective rank": (66, lambda report: f"{report['effective_rank']:.1f}"),
    "images/s": (78, lambda report: f"{report['images_per_s']:.0f}"),
}


class LiveView:
    """Draws a snapshot. Narrow terminals get fewer columns, and lines that end in an ellipsis."""

    def __init__(self, title: str, epochs: float, dashboard: str, snapshot: Snapshot) -> None:
        """`epochs` are a whole trial's; `dashboard` is Ray's URL, "" if there is none."""
        self.title = title
        self.epochs = epochs
        self.dashboard = dashboard
        self.snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        figures = Table.grid(padding=(0, 2))
        figures.add_column(style="bold", no_wrap=True)
        figures.add_column(no_wrap=True, overflow="ellipsis")
        for name, value in self._figures().items():
            figures.add_row(name, value)
        parts = [figures, self._trials(options.max_width)] if self.snapshot.running else [figures]
        yield Panel(Group(*parts), title=Text(self.title), title_align="left", border_style="blue")

    def _figures(self) -> dict[str, Text | str]:
        now = self.snapshot
        counts = {"running": len(now.running), "waiting": now.waiting} | {
            name: now.ended.get(name, 0) for name in ENDINGS
        }
        always = ("running", "waiting", "done", "pruned", "collapsed", "failed")
        trials = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in always)
        best = "no report yet"
        if now.best:
            report = now.best.report
            best = f"{report['val_auc']:.3f} ± {report['val_auc_se']:.3f} (standard error), trial {now.best.trial}"
        taken = [
            f"{used:g} of {whole:g} {name} ({used / whole:.0%})" for name, (used, whole) in now.busy.items() if whole
        ]
        figures: dict[str, Text | str] = {
            "trials": trials,
            "best val AUC": best,
            "speed": f"{now.images_per_s:,.0f} images/s in all",
            "devices": ", ".join(taken) + " taken",
            "time": self._time(),
        }
        if now.cost.usd is not None:
            left = f", about ${now.usd_left:.2f} more" if now.usd_left is not None else ""
            figures["cost"] = f"${now.cost.usd:.2f} so far{left} at ${now.cost.usd_per_hour:.2f} an hour"
        if now.cost.budget_seconds is not None:
            figures["budget"] = f"{_clock(max(0.0, now.cost.budget_seconds))} left, the end of the run included"
        if self.dashboard:
            figures["dashboard"] = Text(self.dashboard, style=f"link {self.dashboard}")
        return figures

    def _time(self) -> str:
        left = self.snapshot.seconds_left
        return f"{_clock(self.snapshot.cost.seconds)} gone" + (
            f", about {_clock(left)} left for the search" if left is not None else ""
        )

    def _trials(self, width: int) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        table.add_column("trial", no_wrap=True, overflow="ellipsis")
        columns = {name: text for name, (least, text) in _COLUMNS.items() if width >= least}
        for name in columns:
            table.add_column(f"{name} of {self.epochs:.3g}" if name == "epoch" else name, justify="right", no_wrap=True)
        for row in self.snapshot.running:
            table.add_row(row.trial, *(text(row.report) if row.report else "–" for text in columns.values()))
        return table


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
