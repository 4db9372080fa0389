"""summary.md of a sweep over one finished backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scarce.report.summary import audit_section, first_line, verdict
from scarce.report.tables import cells_table, counts_text, learning_curve_text, markdown_table, models_table


def frozen_markdown(summary: Mapping[str, Any], trials: pd.DataFrame, sections: Sequence[str] = ()) -> str:
    """The summary of a run as Markdown: the answer, what the experiment adds, the cells, the trials.

    Args:
        summary: from `compare`, with `search`, `confidence`, `checkpoint` and `leak_check`.
        trials: a row a trial: `trial`, `status`, `val_auc`, `val_auc_se`, `seconds` and the searched settings.
        sections: Markdown of the experiment's own.
    """
    search = summary["search"]
    return (
        "\n\n".join(
            [
                "# Result",
                *first_line(summary),
                verdict(summary),
                "## On test",
                models_table(summary),
                *(f"No {name}: {row['reason']}." for name, row in summary["baselines"].items() if not row["available"]),
                f"Backbone: {summary['checkpoint']}. {summary['leak_check']}",
                *sections,
                *audit_section(summary),
                "## By finding and shots",
                cells_table(summary["chosen"]["cells"]),
                "## How many labels",
                learning_curve_text(summary["chosen"]["learning_curve"]),
                "## Search",
                f"{counts_text({name: count for name, count in search['trials'].items() if count})} in "
                f"{search['seconds']:.0f} s. Chosen on validation: trial {search['chosen_trial']}, AUC "
                f"{search['val_auc']:.3f} ± {search['val_auc_se']:.3f} (s.e. over seeds).",
                settings_table(trials),
                *(f"Trial {number} failed: {reason}" for number, reason in search["failed"].items()),
            ]
        )
        + "\n"
    )


def settings_table(trials: pd.DataFrame) -> str:
    """Trials with their validation AUC and all their settings."""
    results = ["trial", "status", "val_auc", "val_auc_se", "seconds"]
    settings = [name for name in trials.columns if name not in results]
    rows = [
        [
            str(row["trial"]),
            f"{row['val_auc']:.3f} ± {row['val_auc_se']:.3f}" if row["status"] == "done" else row["status"],
            *(f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in settings),
            f"{row['seconds']:.1f}",
        ]
        for row in trials.to_dict("records")
    ]
    return markdown_table(["trial", "val AUC ± s.e.", *settings, "seconds"], rows)
