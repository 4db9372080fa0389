"""`scarce audit`: anatomy or shortcut?"""

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from scarce.audit_config import AuditConfig


@dataclass(frozen=True)
class Audit(AuditConfig):
    """Audit a finished run: does its model read anatomy or a shortcut? Writes audit/ in the run's folder."""

    run_folder: Annotated[Positional[str], arg(metavar="RUN")] = field(kw_only=True)
    """Folder of a finished run, such as runs/ssl_aug-phantom-a-phantom-b, or its URL."""
    findings: tuple[str, ...] = ()
    """Findings to audit; none: those of the run."""

    def run(self) -> None:
        """Audit, and print the answer and where the page is."""
        from scarce.audit_run import AUDIT_NAME, audit_run
        from scarce.mirror import open_mirror
        from scarce.storage import place_of

        run = open_mirror(place_of(self.run_folder))
        report = audit_run(run.folder, self, self.findings)
        run.push()
        print(report["headline"])
        for audit in report["audits"].values():
            print(f"  {audit['title']:<32} {audit['verdict']}")
        print(f"Written to {run.place(run.folder / AUDIT_NAME / 'index.html')}")
