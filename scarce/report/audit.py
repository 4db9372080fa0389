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


AUC = Scale("AUC", CHANCE, signed=False)
DIFFERENCE = Scale("difference of AUCs", 0, signed=True)
SHARE = Scale("share of the map", None, signed=False)
EXCESS = Scale("share beyond its area", 0, signed=True)
CORRELATION = Scale("Spearman correlation", 0, signed=True)
SHIFT = Scale("shift of scores, s.d.", 0, signed=True)
SCALES = {  # by how a number's name ends; all others are AUCs
    "minus it": DIFFERENCE,
    "minus matched": DIFFERENCE,
    "lost": DIFFERENCE,
    "drop": DIFFERENCE,
    "in the lungs": SHARE,
    "in the finding's box": SHARE,
    "share of the film": EXCESS,
    "agreement with occlusion": CORRELATION,
    "s.d.": SHIFT,
}
DECIDING = (  # numbers that verdicts are about; else it is a row's first
    "what is left",
    "lost",
    "shift of the score, s.d.",
    "score among those without it",
    "acquisition alone",
    "view alone",
    "pooled minus matched",
    "drop",
    "more than the lungs' share of the film",
)


@dataclass(frozen=True)
class Explained:
    """An audit for a reader who knows films and no statistics: what was done, and what two verdicts say."""

    did: str
    fails: str
    passes: str


SMALL = "any such effect is shown to be smaller than what is tolerated"
OR_MORE = f"{SMALL}, or the whole picture is shown to tell more"
EXPLAINED = {
    "above_chance": Explained(
        "Labels were shuffled among the patients and everything was done again, many times.",
        "the AUC is not shown to be above what shuffled labels give",
        "the AUC is above what shuffled labels give",
    ),
    "lungs_removed": Explained(
        "The lungs and what lies between them were blacked out in every film, for training and for test.",
        "the finding is told from films without lungs",
        OR_MORE,
    ),
    "border_only": Explained(
        "All but the outermost tenth on each side was blacked out in every film, for training and for test.",
        "the finding is told from the border of the film",
        OR_MORE,
    ),
    "corner_markers": Explained(
        "The corners, where side markers are, were masked in every film; and side markers of another hospital were "
        "pasted into the test films.",
        "the score depends on the corners of the film",
        SMALL,
    ),
    "encoded_attributes": Explained(
        "It was measured whether the model can tell hospital, view, sex and age, whether these go with the finding "
        "among the labels, and whether patients without the finding score higher because of them.",
        "the score follows something that is no sign of the finding, but goes with it at this hospital",
        "at least one of the three is shown to be smaller than what is tolerated",
    ),
    "acquisition_only": Explained(
        "A model was given the exposure, the view and the properties of the file instead of the picture.",
        "how the film was taken tells the finding, and the picture is not shown to tell more",
        OR_MORE,
    ),
    "matched_test": Explained(
        "Only films of the same view, the same sex or the same age band were compared with each other.",
        "part of the AUC is a difference between kinds of patients or films",
        SMALL,
    ),
    "corruption_curves": Explained(
        "The test films were changed step by step, as another hospital's may differ; the model stayed as it was.",
        "a change as mild as between two hospitals costs AUC",
        "mild changes are shown to cost less AUC than what is tolerated",
    ),
    "cross_hospital": Explained(
        "The few labelled films were taken from one hospital, the test films from the other.",
        "labelled films of the other hospital give a lower AUC",
        "the drop is shown to be smaller than what is tolerated",
    ),
    "where_it_looked": Explained(
        "Maps of what moved the score were compared with the lungs and with the boxes that readers drew.",
        "less of the map lies in the lungs than if it were spread evenly over the film",
        "more of the map lies in the lungs than if it were spread evenly over the film",
    ),
}
OTHERWISE = Explained("", "the audit's claim is shown", SMALL)


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
        markdown_table(
            ["audit", "question", "verdict", "its worst row"],
            [[_plain(cell) for cell in _line(audit)] for audit in audits.values()],
        ),
        "\n".join(f"- {_plain(line)}" for key, audit in audits.items() for line in failing_lines(key, audit)),
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


def failing_lines(key: str, audit: Mapping[str, Any]) -> list[str]:
    """A line for every row that fails: what that means, and its numbers."""
    lines = []
    for row in audit["rows"]:
        if row["verdict"] == "fails":
            parts = [f"{name} {number_text(name, number)}" for name, number in main_numbers(row).items()]
            parts += [f"p (Holm) {p_text(row['p_holm'])}"] if row["p_holm"] is not None else []
            meaning = f"{audit['title']} fails ({row['name']}): {EXPLAINED.get(key, OTHERWISE).fails}."
            lines.append(f"{meaning} {sentence('; '.join(parts))} {row['words']}".strip())
    return lines


def not_run_lines(audit: Mapping[str, Any]) -> list[str]:
    """Why an audit was not run; nothing if it was."""
    if audit["rows"]:
        return []
    reason = " ".join(note.removeprefix("Not run: ") for note in audit["notes"])
    return [f"{audit['title']} could not be run: {reason or 'no reason was given.'}"]


def verdicts_text(report: Mapping[str, Any]) -> str:
    """What the verdicts mean, in a paragraph."""
    return (
        "What the verdicts mean. Fails: what the audit looks for is shown to be there, by a p-value that is corrected "
        "for the number of rows (Holm; over all shortcut audits together). Passes: it is shown to be smaller than what "
        "is tolerated, or the whole picture is shown to tell more. Can't tell: neither is shown, for lack of images. A "
        "model that uses no shortcut is free of any failed shortcut audit with a probability of at least "
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
    deciding = next((name for name in DECIDING if name in row["numbers"]), next(iter(row["numbers"]), None))
    parts = [f"{deciding} {number_text(deciding, row['numbers'][deciding])}"] if deciding else []
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


def scale_of(name: str) -> Scale:
    """What the number of that name measures."""
    return next((scale for ending, scale in SCALES.items() if name.endswith(ending)), AUC)


def number_text(name: str, number: Mapping[str, Any]) -> str:
    """A number with its interval; a dash for what is not known."""
    form = "+.3f" if scale_of(name).signed else ".3f"
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
    return words[:1].upper() + words[1:] + "." if words else ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\|*`\[]|<(?=[a-zA-Z/!?]))", r"\\\1", " ".join(text.split()))
