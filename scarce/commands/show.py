"""`scarce show`: what do the findings look like?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from scarce.errors import UserError


@dataclass(frozen=True)
class Show:
    """Draw a contact sheet of a converted dataset: random films of every finding, a row each."""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """Folder of the converted dataset, its URL, or phantom-a or phantom-b."""
    findings: tuple[str, ...] = ()
    """Findings to show, in this order; none: the 20 commonest, and films without any."""
    per_finding: int = 6
    """Films of a finding, each of another patient (1 to 20)."""
    seed: int = 0
    """Seed of the choice."""
    out: Path = Path("findings.png")
    """PNG to write."""

    def __post_init__(self) -> None:
        if not 1 <= self.per_finding <= 20:
            raise UserError(f"--per-finding must lie in [1, 20] films, got {self.per_finding}")
        if self.seed < 0:
            raise UserError(f"--seed must be at least 0, got {self.seed}")

    def run(self) -> None:
        """Draw it, and tell where it is."""
        from scarce.data.hospitals import open_hospital
        from scarce.files import check_new_file

        check_new_file("--out", self.out, ".png")
        dataset = open_hospital(self.dataset)

        from scarce.looking.by_finding import finding_rows
        from scarce.looking.sheet import write_sheet

        rows = finding_rows(dataset, self.findings, self.per_finding, self.seed)
        title = f"{dataset.manifest.hospital}: random films by finding, seed {self.seed}; # is the row in the dataset"
        write_sheet(self.out, title, rows)
        left_out = len(dataset.manifest.labels) - len(rows)
        more = (
            f"; {left_out:,} rarer findings are not shown, name them with --findings"
            if left_out > 0 and not self.findings
            else ""
        )
        print(f"{self.out}: {len(rows):,} rows of films{more}")
