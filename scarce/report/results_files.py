"""results.csv and results.tex: the results as a table for a program and as one for a paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scarce.files import write_text
from scarce.report.tables import auc_text, confidence_text, difference_text, interval_text

NUMBERS = ("auc", "ci_low", "ci_high", "p_chance")


def models_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The chosen model and every baseline that has a result, by name."""
    return {"chosen": summary["chosen"]} | {n: row for n, row in summary["baselines"].items() if row["available"]}


def results_table(summary: Mapping[str, Any]) -> pd.DataFrame:
    """A row for every model, finding and number of shots, and for the means over them ("all").

    `difference` is chosen minus the model, with its interval and p-values, where the summary has it: over all.
    """
    rows: list[dict[str, Any]] = []
    for name, model in models_of(summary).items():
        difference = {
            f"difference{'' if key == 'auc' else f'_{key}'}": value
            for key, value in model.get("difference", {}).items()
        }
        rows.append({"model": name, "finding": "all", "shots": "all", **_numbers(model), **difference})
        rows += [
            {"model": name, "finding": "all", "shots": str(point["shots"]), **_numbers(point)}
            for point in model.get("by_shots", ())
        ]
        rows += [
            {
                "model": name,
                "finding": cell["finding"],
                "shots": str(cell["shots"]),
                **{key: cell[key] for key in ("test_positives", "test_positive_patients", "p_chance_holm")},
                **_numbers(cell),
            }
            for cell in model["cells"]
        ]
    table = pd.DataFrame(rows)
    counts = ["test_positives", "test_positive_patients"]
    return table.astype(dict.fromkeys(counts, "Int64"))


def write_results(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write results.csv and results.tex, two tables with booktabs, to the folder of a run, each atomically."""
    write_text(folder / "results.csv", results_table(summary).to_csv(index=False))
    write_text(folder / "results.tex", results_latex(summary))


def results_latex(summary: Mapping[str, Any]) -> str:
    """The models over all episodes, and the chosen one by finding and shots; needs the LaTeX package booktabs."""
    interval = f"{confidence_text(summary)} interval"
    models = pd.DataFrame(
        [
            {
                "model": name,
                "AUC": auc_text(model),
                interval: interval_text(model),
                "chosen minus it": difference_text(model["difference"]) if "difference" in model else "",
                "p (Holm)": f"{model['difference']['p_holm']:.3f}" if "difference" in model else "",
            }
            for name, model in models_of(summary).items()
        ]
    )
    cells = pd.DataFrame(
        [
            {
                "finding": cell["finding"],
                "test positives": cell["test_positives"],
                "shots": cell["shots"],
                "AUC": auc_text(cell),
                interval: interval_text(cell),
            }
            for cell in summary["chosen"]["cells"]
        ]
    )
    return "% needs \\usepackage{booktabs}\n" + "\n".join(
        table.to_latex(index=False, escape=True, caption=caption, label=label, position="tbp")
        for table, caption, label in (
            (models, "Mean test AUC over findings, shots and seeds.", "tab:models"),
            (cells, "Test AUC of the chosen model by finding and number of labelled positives.", "tab:cells"),
        )
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in NUMBERS}
