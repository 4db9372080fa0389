"""`scarce apply`: scores of new films."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Apply:
    """Score new films with a finished run's probes, for research: not for clinical use. Writes a row a film and
    finding, with the mean over draws of the few labelled films, the lowest and the highest.
    """

    run_folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a finished run, such as runs/ssl_aug-phantom-a-phantom-b, or its URL."""
    source: Path
    """Folder of PNG, JPEG or DICOM films, at any depth, or a converted dataset."""
    out: Path = Path("scores.csv")
    """CSV to write; one that is there is replaced."""

    def run(self) -> None:
        """Score, and tell how many."""
        from scarce.files import check_new_file

        check_new_file("--out", self.out, ".csv")

        from scarce.audit_run import open_run
        from scarce.mirror import open_mirror
        from scarce.publishing.apply import apply_model
        from scarce.storage import place_of

        done = apply_model(open_run(open_mirror(place_of(self.run_folder)).folder), self.source, self.out)
        print("Research only. Not for clinical use.")
        print(
            f"{self.out}: {done.scored:,} films scored, {done.unreadable:,} can't be read (the reason is in the table)"
        )
        shots = ", ".join(f"{finding} {count}" for finding, count in done.shots.items())
        print(f"mean, lowest and highest of {done.seeds} probes a finding; labelled positives of each: {shots}")
