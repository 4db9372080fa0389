"""summary.md: the answer of a sweep as tables that read at a glance."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scarce.report.audit import audit_markdown
from scarce.report.cost import cost_markdown
from scarce.report.tables import (
    cells_table,
    confidence_text,
    counts_text,
    front_table,
    interval_text,
    learning_curve_text,
    markdown_table,
    models_table,
)

COLLAPSE_SIGNS = ("embedding_std", "effective_rank", "alignment", "uniformity")


def summary_markdown(summary: Mapping[str, Any], trials: pd.DataFrame) -> str:
    """The summary of a run as Markdown: the answer, the baselines, the cells, the trials."""
    chosen, search = summary["chosen"], summary["search"]
    sections = [
        "# Result",
        *first_line(summary),
        verdict(summary),
        "## On test, against the baselines",
        models_table(summary),
        *(f"No {name}: {row['reason']}." for name, row in summary["baselines"].items() if not row["available"]),
        *audit_section(summary),
        "## By finding and shots",
        cells_table(chosen["cells"]),
        "## How many labels",
        learning_curve_text(chosen["learning_curve"]),
        "## Search",
        f"{counts_text(search['trials'])} in {search['seconds'] / 60:.1f} minutes. Chosen on validation: trial "
        f"{search['chosen_trial']}, AUC {search['val_auc']:.3f} ± {search['val_auc_se']:.3f} (s.e. over seeds), with "
        f"{_probe_text(search['chosen_probe'])}.",
        *(
            f"Warm start from {run['run']}: {run['points']} of its settings were tried first, {run['observations']} of "
            f"its trials told to the sampler ({run['why']})."
            for run in search.get("warm_start", {}).get("runs", [])
        ),
        *_front(search),
        _trials_table(trials),
        *(f"Trial {identity} failed: {reason}" for identity, reason in search["failed"].items()),
        *(["## Cost", cost_markdown(summary["cost"])] if "cost" in summary else []),
    ]
    return "\n\n".join(sections) + "\n"


def first_line(summary: Mapping[str, Any]) -> list[str]:
    """What the audits came to, if there were any: above chance or not, anatomy or shortcut."""
    return [f"**{summary['audit']['headline']}**"] if "audit" in summary else []


def audit_section(summary: Mapping[str, Any]) -> list[str]:
    """The audits, if there were any."""
    return [audit_markdown(summary["audit"]).strip()] if "audit" in summary else []


def verdict(summary: Mapping[str, Any]) -> str:
    """Two sentences: how good the chosen model is, how sure that is, and which baselines it beats."""
    chosen, confidence = summary["chosen"], confidence_text(summary)
    return (
        f"The chosen model has a mean test AUC of {chosen['auc']:.3f} ({confidence} interval "
        f"{interval_text(chosen)}), {against_chance(summary)}. By {confidence} intervals of paired differences and "
        f"Holm-corrected p-values, {against_baselines(summary)}."
    )


def against_chance(summary: Mapping[str, Any]) -> str:
    """Whether the chosen model is above chance, in words."""
    return "above chance" if summary["chosen"]["ci_low"] > 0.5 else "not distinguishable from chance"


def against_baselines(summary: Mapping[str, Any]) -> str:
    """Which baselines the chosen model beats, which it can't be told from, and which beat it, in words.

    A baseline is beaten (or not) where the interval of the paired difference excludes 0 and its p-value, corrected for
    the number of baselines, says the same.
    """
    available = {name: row for name, row in summary["baselines"].items() if row["available"]}
    differences = {
        name: row["difference"]
        for name, row in available.items()
        if row["difference"]["p_holm"] < 1 - summary["confidence"]
    }
    beaten = [name for name, difference in differences.items() if difference["ci_low"] > 0]
    lost = [name for name, difference in differences.items() if difference["ci_high"] < 0]
    open_ = [name for name in available if name not in beaten and name not in lost]
    return "; ".join(
        f"it {verb} {', '.join(names)}"
        for verb, names in (("beats", beaten), ("is not distinguishable from", open_), ("loses to", lost))
        if names
    )


def _probe_text(probe: Mapping[str, Any]) -> str:
    """The probe in words, by what matters to its kind."""
    more = {"knn": f" of {probe['neighbours']}", "prototype": ""}.get(probe["kind"], f", C={probe['C']:g}")
    return f"a {probe['kind']} probe{more} on features normalised by {probe['normalise']}"


def _front(search: Mapping[str, Any]) -> list[str]:
    """Of a search with two objectives: how one was weighed against the other."""
    if "front" not in search:
        return []
    return [
        f"Its shortcut score, the AUC above chance that is left with the thorax blacked out, is "
        f"{search['val_shortcut']:.3f} ± {search['val_shortcut_se']:.3f}. Chosen was {search['rule']}. The front "
        "(pareto.png):",
        front_table(search),
        "All trials:",
    ]


def _trials_table(trials: pd.DataFrame) -> str:
    shortcut = "val_shortcut" in trials
    rows = [
        [
            row["trial"],
            f"{row['status']}: {row['collapse']}" if isinstance(row["collapse"], str) else row["status"],
            f"{row['epoch']:.0f}",
            f"{row['val_auc']:.3f} ± {row['val_auc_se']:.3f}",
            *([f"{row['val_shortcut']:.3f} ± {row['val_shortcut_se']:.3f}"] if shortcut else []),
            *(f"{row[name]:.3g}" for name in COLLAPSE_SIGNS),
        ]
        if row["val_auc"] == row["val_auc"]
        else [row["trial"], row["status"], *["–"] * (2 + shortcut + len(COLLAPSE_SIGNS))]  # it never made a report
        for row in trials.to_dict("records")
    ]
    signs = [name.replace("_", " ") for name in COLLAPSE_SIGNS]
    header = [
        "trial",
        "status",
        "epochs",
        "best val AUC ± s.e.",
        *(["its shortcut score ± s.e."] if shortcut else []),
        *signs,
    ]
    return markdown_table(header, rows)
