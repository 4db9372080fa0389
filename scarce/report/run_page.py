"""report.html of a run, with results.csv and results.tex beside it."""

from pathlib import Path

from scarce.report.pages import write_page
from scarce.report.results_files import write_results
from scarce.report.run_data import read_run
from scarce.report.sections import answer, report_sections
from scarce.report.tables import counts_text

REPORT_NAME = "report.html"
TEMPLATE = "report.html.j2"


def write_report(folder: Path) -> Path:
    """Write report.html, results.csv and results.tex to a finished run's folder; the path of the first.

    Raises:
        UserError: it is no finished run of sweeps/ssl_aug.py.
    """
    data = read_run(folder)
    write_results(folder, data.summary)
    found, shortcut = answer(data)
    pretrained, target = data.hospitals
    write_page(
        folder / REPORT_NAME,
        TEMPLATE,
        title=f"Pretrained at {pretrained}, judged at {target}",
        found=found,
        shortcut=shortcut,
        about={"Run": data.name, "Chosen trial": data.chosen, "Trials": counts_text(data.summary["search"]["trials"])},
        sections=report_sections(data),
    )
    return folder / REPORT_NAME
