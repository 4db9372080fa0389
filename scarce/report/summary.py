"""summary.md: the answer of a sweep as tables that read at a glance."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def summary_markdown(summary: Mapping[str, Any], trials: pd.DataFrame) -> str:
    """The summary of a run as Markdown: the answer, the baselines, the cells, the trials."""
    chosen, search = summary["chosen"], summary["search"]
    interval = f"{_confidence(summary)} interval"
    sections = [
        "# Result",
        verdict(summary),
        "## On test, against the baselines",
        _table(
            ["model", "AUC", interval, "chosen minus it", interval, "p (Holm)"],
            [
                ["**chosen**", _auc(chosen), _interval(chosen), "", "", ""],
                *(_baseline_row(name, row) for name, row in summary["baselines"].items() if row["available"]),
            ],
        ),
        *(f"No {name}: {row['reason']}." for name, row in summary["baselines"].items() if not row["available"]),
        "## By finding and shots",
        _cells_table(chosen["cells"]),
        "## Search",
        f"{_counts(search['trials'])} in {search['seconds'] / 60:.1f} minutes. Chosen on validation: trial "
        f"{search['chosen_trial']}, AUC {search['val_auc']:.3f} ± {search['val_auc_se']:.3f} (s.e. over seeds).",
        _trials_table(trials),
        *(f"Trial {identity} failed: {reason}" for identity, reason in search["failed"].items()),
    ]
    return "\n\n".join(sections) + "\n"


def verdict(summary: Mapping[str, Any]) -> str:
    """Two sentences: how good the chosen model is, how sure that is, and which baselines it beats.

    A baseline is beaten (or not) where the interval of the paired difference excludes 0 and its p-value, corrected for
    the number of baselines, says the same.
    """
    chosen = summary["chosen"]
    against_chance = "above chance" if chosen["ci_low"] > 0.5 else "not distinguishable from chance"
    available = {name: row for name, row in summary["baselines"].items() if row["available"]}
    differences = {
        name: row["difference"]
        for name, row in available.items()
        if row["difference"]["p_holm"] < 1 - summary["confidence"]
    }
    beaten = [name for name, difference in differences.items() if difference["ci_low"] > 0]
    lost = [name for name, difference in differences.items() if difference["ci_high"] < 0]
    open_ = [name for name in available if name not in beaten and name not in lost]
    parts = [
        f"it {verb} {', '.join(names)}"
        for verb, names in (("beats", beaten), ("is not distinguishable from", open_), ("loses to", lost))
        if names
    ]
    return (
        f"The chosen model has a mean test AUC of {chosen['auc']:.3f} ({_confidence(summary)} interval "
        f"{_interval(chosen)}), {against_chance}. By {_confidence(summary)} intervals of paired differences and "
        f"Holm-corrected p-values, {'; '.join(parts)}."
    )


def _confidence(summary: Mapping[str, Any]) -> str:
    return f"{100 * summary['confidence']:g}%"


def _baseline_row(name: str, row: Mapping[str, Any]) -> list[str]:
    difference = row["difference"]
    return [
        name,
        _auc(row),
        _interval(row),
        f"{difference['auc']:+.3f}",
        f"{difference['ci_low']:+.3f} to {difference['ci_high']:+.3f}",
        f"{difference['p_holm']:.3f}",
    ]


def _cells_table(cells: list[Mapping[str, Any]]) -> str:
    shots = sorted({cell["shots"] for cell in cells})
    by_finding: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in cells:
        by_finding.setdefault(cell["finding"], {})[cell["shots"]] = cell
    rows = []
    for finding, row in by_finding.items():
        positives = str(next(iter(row.values()))["test_positives"])
        aucs = [f"{_auc(row[k])} ({_interval(row[k])})" if k in row else "too few" for k in shots]
        rows.append([finding, positives, *aucs])
    return _table(["finding", "test positives", *(f"{k} shot{'s' if k > 1 else ''}" for k in shots)], rows)


def _trials_table(trials: pd.DataFrame) -> str:
    rows = [
        [row["trial"], row["status"], f"{row['epoch']:.0f}", f"{row['val_auc']:.3f} ± {row['val_auc_se']:.3f}"]
        for row in trials.to_dict("records")
    ]
    return _table(["trial", "status", "epochs", "best val AUC ± s.e."], rows)


def _auc(row: Mapping[str, Any]) -> str:
    return f"{row['auc']:.3f}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def _counts(statuses: Mapping[str, int]) -> str:
    return f"{sum(statuses.values())} trials ({', '.join(f'{count} {name}' for name, count in statuses.items())})"


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)
