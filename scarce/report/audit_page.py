"""index.html of the audits: one file with its pictures in it, which asks for nothing else and runs no script."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scarce.audit.audits import AuditReport, report_json
from scarce.audit.verdicts import ORDER, AuditResult
from scarce.report import audit as words
from scarce.report.audit_plots import curves_figure, exhibits_figure, rows_figure
from scarce.report.pages import picture, write_page
from scarce.report.tables import confidence_text

TEMPLATE = "audit.html.j2"


def write_audit_page(path: Path, report: AuditReport, about: Mapping[str, str]) -> None:
    """Write the page of a report to `path`, atomically.

    Args:
        path: of the HTML file.
        report: from `run_audits`.
        about: what is said of the run at the top, such as {"Hospital": "phantom-b"}.
    """
    described = report_json(report)
    by_chance = any(result.audit.kind == "chance" and result.verdict == "fails" for result in report.results)
    write_page(
        path,
        TEMPLATE,
        about=about,
        report=described,
        verdict="fails" if by_chance else report.verdict,
        confidence=confidence_text(described),
        by_verdict=words.by_verdict(described),
        matrix=_matrix(described),
        meaning=words.verdicts_text(described),
        audits=[_audit(result, described["audits"][result.audit.key], report.confidence) for result in report.results],
    )


def _matrix(report: Mapping[str, Any]) -> dict[str, Any]:
    """Findings by shortcut audits: verdicts, and each one's worst row in words."""
    columns = {key: audit for key, audit in report["audits"].items() if audit["kind"] == "shortcut"}
    lines = []
    for finding, verdicts in words.verdict_matrix(report).items():
        cells = []
        for key, verdict in verdicts.items():
            row = words.worst_row(columns[key]["rows"], finding)
            cells.append({"verdict": verdict, "words": words.row_text(row) if row else "nothing to judge"})
        lines.append({"finding": finding, "verdict": report["by_finding"][finding], "cells": cells})
    return {"columns": {key: audit["title"] for key, audit in columns.items()}, "lines": lines}


def _audit(result: AuditResult, described: Mapping[str, Any], confidence: float) -> dict[str, Any]:
    names = list(dict.fromkeys(name for row in described["rows"] for name in words.main_numbers(row)))
    failing = [row["name"] for row in described["rows"] if row["verdict"] == "fails"]
    lines = [_row(row, names) for row in described["rows"]]
    counts = {verdict: sum(row["verdict"] == verdict for row in described["rows"]) for verdict in ORDER}
    return {
        **described,
        "key": result.audit.key,
        "meaning": {
            "fails": f"For {', '.join(failing)}: {result.audit.fails}.",
            "passes": words.sentence(result.audit.passes),
            "can't tell": "Neither is shown, that it fails or that it passes: there are too few images.",
            "not run": "No row of it has a verdict." if described["rows"] else "It could not be run.",
        }[result.verdict],
        "counts": ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count),
        "numbers": names,
        "lines": lines,
        "missing": [words.sentence(reason) for reason in described["missing"]],
        "more": any(line["more"] for line in lines),
        "pictures": list(_pictures(result, described, confidence)),
    }


def _row(row: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Cells of a table: the main numbers in columns (value and interval), the others in words."""
    main = words.main_numbers(row)
    others = [f"{name} {words.number_text(number)}" for name, number in row["numbers"].items() if name not in main]
    return {
        "name": row["name"],
        "cells": [words.number_text(main[name]).partition(" ")[::2] if name in main else ("", "") for name in names],
        "p": words.p_text(row["p"]),
        "p_holm": words.p_text(row["p_holm"]),
        "verdict": row["verdict"] or "",
        "more": " ".join(part for part in (words.sentence("; ".join(others)), row["words"]) if part),
    }


def _pictures(result: AuditResult, described: Mapping[str, Any], confidence: float) -> Iterator[dict[str, Any]]:
    found = result.found
    if any(row.numbers for row in found.rows):
        text = f"{result.audit.title}: the numbers of the table below, with their intervals, a line a row."
        yield picture(rows_figure(described, confidence), text)
    if found.curves:
        names = ", ".join(curve.name for curve in found.curves)
        yield picture(curves_figure(found.curves, confidence), f"{result.audit.title}: AUC by level of {names}.")
    if found.exhibits:
        captions = "; ".join(exhibit.caption for exhibit in found.exhibits)
        yield picture(exhibits_figure(found.exhibits), f"{result.audit.title}, films: {captions}.")
