"""`scarce compare`: is one run better than another?"""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Compare:
    """Compare finished runs that were judged on the same test patients: paired differences of test AUC, corrected for
    being many. Writes compare.html, compare.csv and compare.tex."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Folders of two or more finished runs, or their URLs."""
    out: str = ""
    """Folder to write to; empty: compare-<names of the runs> in the current one."""

    def run(self) -> None:
        """Compare, write, and print the table."""
        from pathlib import Path

        from scarce.mirror import open_mirror
        from scarce.report.comparison_page import comparison_markdown, write_comparison
        from scarce.run_comparison import compare_runs
        from scarce.storage import place_of, require_path

        require_path("--out", self.out, "copy the files there")
        folders = [open_mirror(place_of(run)).folder for run in self.runs]
        comparison = compare_runs(folders)
        out = Path(self.out or f"compare-{'-'.join(folder.name for folder in folders)}"[:200])
        page = write_comparison(out, comparison)
        print(f"{comparison_markdown(comparison)}\n\nWritten to {page}")
