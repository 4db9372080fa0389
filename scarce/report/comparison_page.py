"""compare.html, compare.csv and compare.tex: finished runs against each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scarce.files import write_text
from scarce.report.audit import p_text
from scarce.report.drawing import (
    BLUE,
    CHANCE_LINE,
    TEXT,
    grid_behind,
    interval_across,
    legend_above,
    new_figure,
    wrapped,
)
from scarce.report.pages import picture, write_page
from scarce.report.result_plots import STYLES
from scarce.report.sections import Section, Table
from scarce.report.tables import (
    auc_text,
    confidence_text,
    difference_text,
    interval_text,
    markdown_table,
    shots_text,
)

TEMPLATE = "comparison.html.j2"
PAGE_NAME, CSV_NAME, LATEX_NAME = "compare.html", "compare.csv", "compare.tex"
PAIR: dict[str, Any] = {"color": BLUE, "linestyle": "none", "marker": "o"}


def write_comparison(folder: Path, comparison: Mapping[str, Any]) -> Path:
    """Write the three files to a folder, each atomically; the path of the page.

    Args:
        folder: made if need be.
        comparison: from `compare_pairs`.
    """
    write_text(folder / CSV_NAME, comparison_table(comparison).to_csv(index=False))
    latex = pd.DataFrame(_pair_rows(comparison), columns=_header(comparison)).to_latex(
        index=False, escape=True, caption="Paired differences of the mean test AUC.", label="tab:pairs", position="tbp"
    )
    write_text(folder / LATEX_NAME, "% needs \\usepackage{booktabs}\n" + latex)
    seen = comparison["protocol"]
    write_page(
        folder / PAGE_NAME,
        TEMPLATE,
        title=f"Compared: {', '.join(comparison['models'])}",
        found=verdict(comparison),
        about={
            "Test films": f"{seen['patients']:,} patients, {len(seen['findings'])} findings",
            "Episodes": f"{len(seen['seeds'])} for every finding and number of shots",
        },
        sections=[_over_all(comparison), *(_by_cell(pair, comparison) for pair in comparison["pairs"])],
    )
    return folder / PAGE_NAME


def verdict(comparison: Mapping[str, Any]) -> str:
    """Which runs are better than which, and of which that is not shown.

    Better is one where the interval of the paired difference excludes 0 and its corrected p-value says the same.
    """
    level = 1 - comparison["protocol"]["confidence"]
    sentences = []
    for pair in comparison["pairs"]:
        difference = pair["difference"]
        first, second = pair["first"], pair["second"]
        numbers = f"{first} minus {second} is {difference_text(difference)}"
        if difference["p_holm"] >= level or difference["ci_low"] <= 0 <= difference["ci_high"]:
            sentences.append(f"{first} and {second} cannot be told apart: {numbers}.")
        else:
            better, worse = (first, second) if difference["auc"] > 0 else (second, first)
            sentences.append(f"{better} is better than {worse}: {numbers}.")
    return " ".join(sentences)


def comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """The verdict and the table of all pairs, for the screen."""
    return f"{verdict(comparison)}\n\n{markdown_table(_header(comparison), _pair_rows(comparison))}"


def comparison_table(comparison: Mapping[str, Any]) -> pd.DataFrame:
    """A row for every pair ("all") and for every finding and number of shots of it; all numbers at full precision."""
    models = comparison["models"]
    rows: list[dict[str, Any]] = []
    for pair in comparison["pairs"]:
        names = {key: pair[key] for key in ("first", "second")}
        aucs = {f"{key}_auc": models[name]["auc"] for key, name in names.items()}
        rows.append({**names, "finding": "all", "shots": "all", **aucs, **_named(pair["difference"])})
        rows += [{**names, **_named(cell)} for cell in pair["cells"]]
    return pd.DataFrame(rows).astype({"test_positives": "Int64"})


def differences_figure(comparison: Mapping[str, Any]) -> Figure:
    """A line for every pair of runs: the difference of their mean test AUC with its interval."""
    pairs = comparison["pairs"]
    names = [wrapped(f"{pair['first']} minus {pair['second']}", 44) for pair in pairs]
    lines = max(name.count("\n") + 1 for name in names)
    figure = new_figure(9.0, max(0.4, 0.18 * lines) * len(pairs) + 1.2)
    axes = figure.subplots()
    for place, pair in enumerate(pairs):
        _difference(axes, pair["difference"], place, PAIR)
    _finish(axes, names, comparison)
    legend_above(figure, [(PAIR, "difference"), (CHANCE_LINE, "no difference")])
    return figure


def cells_figure(pair: Mapping[str, Any], comparison: Mapping[str, Any]) -> Figure:
    """A line for every finding: the difference of the test AUC at every number of shots with its interval."""
    findings = list(dict.fromkeys(cell["finding"] for cell in pair["cells"]))
    shots = sorted({cell["shots"] for cell in pair["cells"]})
    figure = new_figure(9.0, max(0.4, 0.13 * len(shots)) * len(findings) + 1.3)
    axes = figure.subplots()
    for cell in pair["cells"]:
        number = shots.index(cell["shots"])
        aside = (number - (len(shots) - 1) / 2) * 0.8 / max(len(shots), 2)
        _difference(axes, cell, findings.index(cell["finding"]) + aside, STYLES[number % len(STYLES)])
    _finish(axes, [wrapped(name) for name in findings], comparison)
    entries = [(STYLES[n % len(STYLES)], shots_text(count)) for n, count in enumerate(shots)]
    legend_above(figure, [*entries, (CHANCE_LINE, "no difference")])
    return figure


def _difference(axes: Axes, number: Mapping[str, Any], place: float, style: Mapping[str, Any]) -> None:
    interval_across(axes, number["auc"], number["ci_low"], number["ci_high"], place, style)


def _finish(axes: Axes, names: list[str], comparison: Mapping[str, Any]) -> None:
    axes.axvline(0, **CHANCE_LINE)
    axes.set_yticks(range(len(names)), names, fontsize=TEXT)
    axes.set_ylim(len(names) - 0.5, -0.5)
    confidence = confidence_text(comparison["protocol"])
    axes.set_xlabel(f"difference of test AUC, paired; bars: {confidence} intervals", fontsize=TEXT)
    axes.tick_params(axis="x", labelsize=TEXT)
    grid_behind(axes, "x")


def _over_all(comparison: Mapping[str, Any]) -> Section:
    interval = f"{confidence_text(comparison['protocol'])} interval"
    models = [[name, auc_text(model), interval_text(model)] for name, model in comparison["models"].items()]
    words = "Differences of the mean test AUC: " + verdict(comparison)
    return Section(
        "pairs",
        "Over all findings and shots",
        [comparison["protocol"]["note"], "P-values are corrected for the number of pairs (Holm)."],
        [picture(differences_figure(comparison), words)],
        [
            Table("Every run", ["run", "mean test AUC", interval], models),
            Table("Every pair of runs", _header(comparison), _pair_rows(comparison)),
        ],
        links={"All numbers (CSV)": CSV_NAME, "For a paper (LaTeX)": LATEX_NAME},
    )


def _by_cell(pair: Mapping[str, Any], comparison: Mapping[str, Any]) -> Section:
    title = f"{pair['first']} minus {pair['second']}"
    rows = [
        [
            f"{cell['finding']}, {shots_text(cell['shots'])}",
            str(cell["test_positives"]),
            f"{cell['first_auc']:.3f}",
            f"{cell['second_auc']:.3f}",
            difference_text(cell),
            p_text(cell["p_holm"]),
        ]
        for cell in pair["cells"]
    ]
    confidence = confidence_text(comparison["protocol"])
    header = [
        "finding",
        "test positives",
        pair["first"],
        pair["second"],
        f"difference ({confidence} interval)",
        "p (Holm)",
    ]
    apart = [cell for cell in pair["cells"] if cell["p_holm"] < 1 - comparison["protocol"]["confidence"]]
    return Section(
        f"pair-{comparison['pairs'].index(pair) + 1}",
        title,
        [
            f"In {len(apart)} of {len(pair['cells'])} cells the difference is shown, with p-values corrected for all "
            "cells of all pairs together (Holm)."
        ],
        [
            picture(
                cells_figure(pair, comparison), f"{title}, by finding and number of shots; the table has the numbers."
            )
        ],
        [Table("By finding and shots", header, rows)],
    )


def _header(comparison: Mapping[str, Any]) -> list[str]:
    return [
        "first run",
        "second run",
        f"first minus second ({confidence_text(comparison['protocol'])})",
        "p",
        "p (Holm)",
    ]


def _pair_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    return [
        [pair["first"], pair["second"], difference_text(one), p_text(one["p"]), p_text(one["p_holm"])]
        for pair in comparison["pairs"]
        for one in [pair["difference"]]
    ]


def _named(difference: Mapping[str, Any]) -> dict[str, Any]:
    return {"difference" if key == "auc" else key: value for key, value in difference.items()}
