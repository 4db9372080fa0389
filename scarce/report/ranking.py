"""The ranking of methods as a table, with a verdict that claims no more than the intervals do."""

from collections.abc import Mapping
from typing import Any

from scarce.report.tables import auc_text, confidence_text, difference_text, interval_text, markdown_table

COSTS = {"epochs": "epochs", "seconds": "minutes"}  # of a run, and what the column is called


def ranking_markdown(ranking: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The ranking as Markdown: the verdict, one table, and below it the methods that failed.

    Args:
        ranking: from `rank_models`.
        runs: by method `status` ("done", or "failed" or "collapsed" with `reason`), and for the cost columns `epochs`,
            of one pretraining run, and `seconds`, of all the method's runs; any of them may be missing.
    """
    runs = runs or {}
    interval = f"{confidence_text(ranking['protocol'])} interval"
    costs = [key for key in COSTS if any(key in run for run in runs.values())]
    header = [
        f"rank ({interval})",
        "method",
        f"AUC ({interval})",
        "s.d. over pretraining seeds",
        f"minus random initialisation ({interval})",
        "p (Holm)",
        f"behind the leader ({interval})",
        "p (Holm, all pairs)",
        *(COSTS[key] for key in costs),
    ]
    rows = [
        [
            f"{row['rank']} ({row['rank_low']} to {row['rank_high']})",
            row["method"],
            f"{auc_text(row)} ({interval_text(row)})",
            f"{row['sd']:.3f} ({len(row['seed_aucs'])} seeds)",
            *_difference(row["random"] and row["random"]["difference"]),
            *_difference(row["behind"]),
            *(_cost(runs.get(row["method"], {}), key) for key in costs),
        ]
        for row in ranking["methods"]
    ]
    ranked = {row["method"] for row in ranking["methods"]}
    troubles = [
        f"{name} {run['status']}{'' if name in ranked else ' and has no result'}: {run['reason'].rstrip('.')}."
        for name, run in runs.items()
        if run.get("status", "done") != "done"
    ]
    return "\n\n".join([verdict(ranking), markdown_table(header, rows), *troubles, ranking["protocol"]["note"]]) + "\n"


def verdict(ranking: Mapping[str, Any]) -> str:
    """Who leads, who can't be told from the leader, and who is not above its own random initialisation.

    A difference is one where its interval lies above 0 and its corrected p-value says the same.
    """
    level = 1 - ranking["protocol"]["confidence"]
    leader, *others = ranking["methods"]
    tied = [row["method"] for row in others if not _above_zero(row["behind"], level)]
    started = [row for row in ranking["methods"] if row["random"]]
    unmoved = [row["method"] for row in started if not _above_zero(row["random"]["difference"], level)]
    against_chance = "above chance" if leader["ci_low"] > 0.5 else "not distinguishable from chance"
    sentences = [
        f"{leader['method']} leads with a mean test AUC of {auc_text(leader)} ("
        f"{confidence_text(ranking['protocol'])} interval {interval_text(leader)}), {against_chance}."
    ]
    if tied:
        sentences.append(f"Not distinguishable from it: {', '.join(tied)}.")
    elif others:
        sentences.append("Every other method is behind it.")
    if unmoved:
        sentences.append(f"Not above their own random initialisation: {', '.join(unmoved)}.")
    elif started:
        sentences.append("Every method that has one is above its own random initialisation.")
    return " ".join(sentences)


def _above_zero(difference: Mapping[str, float], level: float) -> bool:
    return difference["ci_low"] > 0 and difference["p_holm"] < level


def _difference(difference: Mapping[str, float] | None) -> list[str]:
    if difference is None:
        return ["", ""]
    return [difference_text(difference), f"{difference['p_holm']:.3f}"]


def _cost(run: Mapping[str, Any], key: str) -> str:
    if key not in run:
        return ""
    return f"{run[key] / 60:.1f}" if key == "seconds" else f"{run[key]:.3g}"
