"""What the summaries of all runs share: Markdown tables, and how an AUC, its interval and a difference are written."""

from collections.abc import Mapping
from typing import Any

Rows = tuple[list[str], list[list[str]]]  # the header of a table, and its rows


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up in plain text too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def models_table(summary: Mapping[str, Any]) -> str:
    """`models_rows` as Markdown."""
    return markdown_table(*models_rows(summary))


def models_rows(summary: Mapping[str, Any]) -> Rows:
    """The chosen model and every baseline that has a result, from `compare` and its `confidence`."""
    interval = f"{confidence_text(summary)} interval"
    return (
        ["model", "AUC", interval, "chosen minus it", interval, "p (Holm)"],
        [
            ["**chosen**", auc_text(summary["chosen"]), interval_text(summary["chosen"]), "", "", ""],
            *(_baseline_row(name, row) for name, row in summary["baselines"].items() if row["available"]),
        ],
    )


def cells_table(cells: list[Mapping[str, Any]]) -> str:
    """`cells_rows` as Markdown."""
    return markdown_table(*cells_rows(cells))


def cells_rows(cells: list[Mapping[str, Any]]) -> Rows:
    """A model's AUC by finding and shots, from its `cells` in `compare`."""
    shots = sorted({cell["shots"] for cell in cells})
    by_finding: dict[str, dict[int, Mapping[str, Any]]] = {}
    for cell in cells:
        by_finding.setdefault(cell["finding"], {})[cell["shots"]] = cell
    rows = []
    for finding, row in by_finding.items():
        positives = str(next(iter(row.values()))["test_positives"])
        aucs = [f"{auc_text(row[k])} ({interval_text(row[k])})" if k in row else "too few" for k in shots]
        rows.append([finding, positives, *aucs])
    return ["finding", "test positives", *map(shots_text, shots)], rows


def confidence_text(summary: Mapping[str, Any]) -> str:
    """The confidence of a summary's intervals, as in 95%."""
    return f"{100 * summary['confidence']:g}%"


def auc_text(row: Mapping[str, Any]) -> str:
    """The AUC of a model or cell."""
    return f"{row['auc']:.3f}"


def interval_text(row: Mapping[str, Any]) -> str:
    """Its interval."""
    return f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"


def difference_text(difference: Mapping[str, Any]) -> str:
    """A difference of AUCs with its interval, all with their signs."""
    return f"{difference['auc']:+.3f} ({difference['ci_low']:+.3f} to {difference['ci_high']:+.3f})"


def shots_text(shots: int) -> str:
    """So many shots."""
    return f"{shots} shot{'s' if shots > 1 else ''}"


def counts_text(statuses: Mapping[str, int]) -> str:
    """How many trials ended how."""
    return f"{sum(statuses.values())} trials ({', '.join(f'{count} {name}' for name, count in statuses.items())})"


def _baseline_row(name: str, row: Mapping[str, Any]) -> list[str]:
    difference = row["difference"]
    return [
        f"{name} ({row['seeds']} seeds)" if "seeds" in row else name,
        auc_text(row),
        interval_text(row),
        f"{difference['auc']:+.3f}",
        f"{difference['ci_low']:+.3f} to {difference['ci_high']:+.3f}",
        f"{difference['p_holm']:.3f}",
    ]


def front_table(search: Mapping[str, Any]) -> str:
    """`front_rows` as Markdown."""
    return markdown_table(*front_rows(search))


def front_rows(search: Mapping[str, Any]) -> Rows:
    """The Pareto-optimal trials, best AUC first, the chosen one marked; from the `search` of a sweep's summary."""
    return (
        ["trial", "val AUC ± s.e.", "shortcut score ± s.e."],
        [
            [
                f"**{point['trial']}** (chosen)" if point["trial"] == search["chosen_trial"] else point["trial"],
                f"{point['val_auc']:.3f} ± {point['val_auc_se']:.3f}",
                f"{point['val_shortcut']:.3f} ± {point['val_shortcut_se']:.3f}",
            ]
            for point in search["front"]
        ],
    )


def learning_curve_text(curve: Mapping[str, Any]) -> str:
    """What a learning curve from `compare` says: its law with intervals, and how many labels its target would take."""
    if not curve["available"]:
        return f"No learning curve: {curve['reason'].rstrip('.')}."
    a, b, c = (_parameter_text(curve[name]) for name in "abc")
    words = [
        f"AUC(n) = a - b n^-c of n positives and as many negatives, with {100 * curve['confidence']:g}% intervals: "
        f"a = {a}, b = {b}, c = {c}; residual {curve['residual_rms']:.3f}. Over {', '.join(curve['findings'])}."
    ]
    if curve["left_out"]:
        words.append(f"Left out, for lack of a number of shots: {', '.join(curve['left_out'])}.")
    if "labels_for" in curve:
        words.append(f"An AUC of {curve['labels_for']['target']:g} would take {curve['labels_for']['text']}.")
    return " ".join(words)


def _parameter_text(parameter: Mapping[str, float | None]) -> str:
    if parameter["value"] is None:
        return "unknown (flat)"
    return f"{parameter['value']:.3f} ({parameter['ci_low']:.3f} to {parameter['ci_high']:.3f})"
