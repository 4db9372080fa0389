"""`scarce report`: one page about a finished run."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Report:
    """Write report.html, results.csv and results.tex of a finished run of sweeps/ssl_aug.py into its folder."""

    run_folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a finished run, such as runs/ssl_aug-phantom-a-phantom-b, or its URL."""

    def run(self) -> None:
        """Write the page, and print where it is."""
        from scarce.mirror import open_mirror
        from scarce.report.run_page import write_report
        from scarce.storage import place_of

        run = open_mirror(place_of(self.run_folder))
        page = write_report(run.folder)
        run.push()
        print(f"Written to {run.place(page)}")
