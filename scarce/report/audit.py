"""What the audits of a run came to, as Markdown for a person; and the words and numbers that their page shares."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scarce.audit.verdicts import ORDER, Verdict
from scarce.fewshot.statistics import CHANCE
from scarce.report.tables import confidence_text, markdown_table

MAIN = 3  # a row's first numbers are drawn, and have columns of their own
UNKNOWN = "–"


@dataclass(frozen=True)
class Scale:
    """What a number measures: the label of its axis, the value that means nothing is there, and if it has a sign."""

    label: str
    null: float | None
    signed: bool


SCALES: dict[str, Scale] = {
    "AUC": Scale("AUC", CHANCE, signed=False),
    "difference": Scale("difference of AUCs", 0, signed=True),
    "share": Scale("share of the map", None, signed=False),
    "excess": Scale("share beyond its area", 0, signed=True),
    "correlation": Scale("Spearman correlation", 0, signed=True),
    "shift": Scale("shift of scores, s.d.", 0, signed=True),
}


def audit_markdown(report: Mapping[str, Any]) -> str:
    """The section "Anatomy or shortcut" of a run's summary.

    Args:
        report: from `report_json`, in its order.
    """
    audits = report["audits"]
    sections = [
        "## Anatomy or shortcut",
        f"**{_plain(report['headline'])}**",
        _plain(by_verdict(report)),
        *(_plain(f"Not audited: {reason}.") for reason in report["left_out"]),
        markdown_table(
            ["audit", "question", "verdict", "its worst row"],
            [[_plain(cell) for cell in _line(audit)] for audit in audits.values()],
        ),
        "\n".join(f"- {_plain(line)}" for audit in audits.values() for line in failing_lines(audit)),
        "\n".join(f"- {_plain(line)}" for audit in audits.values() for line in not_run_lines(audit)),
        verdicts_text(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def by_verdict(report: Mapping[str, Any]) -> str:
    """Findings by their verdict over all shortcut audits."""
    found: dict[str, list[str]] = {}
    for name, verdict in report["by_finding"].items():
        found.setdefault(verdict, []).append(name)
    return " ".join(f"{verdict.capitalize()}: {', '.join(found[verdict])}." for verdict in ORDER if verdict in found)


def _line(audit: Mapping[str, Any]) -> list[str]:
    row = worst_row(audit["rows"])
    return [audit["title"], audit["question"], audit["verdict"], row_text(row) if row else UNKNOWN]


def failing_lines(audit: Mapping[str, Any]) -> list[str]:
    """A line for every row that fails: what that means, and its numbers."""
    lines = []
    for row in audit["rows"]:
        if row["verdict"] == "fails":
            parts = [f"{name} {number_text(number)}" for name, number in main_numbers(row).items()]
            parts += [f"p (Holm) {p_text(row['p_holm'])}"] if row["p_holm"] is not None else []
            meaning = f"{audit['title']} fails ({row['name']}): {audit['fails']}."
            lines.append(f"{meaning} {sentence('; '.join(parts))} {row['words']}".strip())
    return lines


def not_run_lines(audit: Mapping[str, Any]) -> list[str]:
    """What of an audit could not be run, and why."""
    missing = " ".join(map(sentence, audit["missing"]))
    if audit["rows"]:
        return [f"{audit['title']}, in part: {missing}"] if missing else []
    return [f"{audit['title']} could not be run. {missing}"]


def verdicts_text(report: Mapping[str, Any]) -> str:
    """What the verdicts mean, in a paragraph."""
    return (
        "What the verdicts mean. Fails: what the audit looks for is shown to be there, by a p-value that is corrected "
        "for the number of rows (Holm; over all shortcut audits together). Passes: it is shown to be smaller than what "
        "is tolerated, or the whole picture is shown to tell more. Can't tell: neither is shown, for lack of images. "
        "Where no shortcut is to be had, a report is free of any failed shortcut audit with a probability of at least "
        f"{confidence_text(report)}. Passing is no proof of anatomy: these shortcuts were looked for, others were not. "
        "The audit of chance is the other way round: it fails unless the AUC is shown to be above chance."
    )


def worst_row(rows: Sequence[Mapping[str, Any]], finding: str | None = None) -> Mapping[str, Any] | None:
    """The row with the worst verdict, of those the one with the smallest p; None where no row has a verdict.

    Args:
        rows: of an audit.
        finding: of this one only.
    """
    judged = [row for row in rows if row["verdict"] and finding in (None, row["finding"])]
    return min(judged, key=lambda row: (ORDER.index(row["verdict"]), 1 if row["p"] is None else row["p"]), default=None)


def row_text(row: Mapping[str, Any]) -> str:
    """A row by the number that its verdict is about, and the p-value; its words where there is none."""
    deciding = row["decides"]
    parts = [f"{deciding} {number_text(row['numbers'][deciding])}"] if deciding else []
    parts += [row["words"].rstrip(".")] if row["p_holm"] is None else [f"p (Holm) {p_text(row['p_holm'])}"]
    return f"{row['name']}: {', '.join(part for part in parts if part)}"


def verdict_matrix(report: Mapping[str, Any]) -> dict[str, dict[str, Verdict]]:
    """By finding and by the key of every shortcut audit: the verdict of that finding's worst row in that audit."""
    matrix: dict[str, dict[str, Verdict]] = {}
    for finding in report["by_finding"]:
        matrix[finding] = {}
        for key, audit in report["audits"].items():
            if audit["kind"] == "shortcut":
                row = worst_row(audit["rows"], finding)
                matrix[finding][key] = row["verdict"] if row else "not run"
    return matrix


def main_numbers(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A row's first `MAIN` numbers."""
    return dict(list(row["numbers"].items())[:MAIN])


def scale_of(number: Mapping[str, Any]) -> Scale:
    """What a number measures."""
    return SCALES[number["scale"]]


def number_text(number: Mapping[str, Any]) -> str:
    """A number with its interval; a dash for what is not known."""
    form = "+.3f" if scale_of(number).signed else ".3f"
    value, low, high = (known(number[end]) for end in ("value", "ci_low", "ci_high"))
    if math.isnan(value):
        return UNKNOWN
    between = UNKNOWN if math.isnan(low) or math.isnan(high) else f"{low:{form}} to {high:{form}}"
    return f"{value:{form}} ({between})"


def p_text(p: float | None) -> str:
    """A p-value; a dash where there is none."""
    if p is None or math.isnan(p):
        return UNKNOWN
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def known(value: float | None) -> float:
    """NaN for None: JSON has no NaN."""
    return math.nan if value is None else value


def sentence(words: str) -> str:
    """With a capital letter and a full stop."""
    return words[:1].upper() + words[1:].rstrip(".") + "." if words else ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\|*`\[]|<(?=[a-zA-Z/!?]))", r"\\\1", " ".join(text.split()))
