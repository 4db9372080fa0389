"""`scarce cluster check`: are the cluster files right?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from scarce.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """`scarce cluster check`: validate cluster files, and tell of every check how much it means."""

    action: Annotated[Positional[Literal["check"]], arg(metavar="check")]
    """What to do with them."""
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE")] = ()
    """Launcher, Kubernetes, compose or Prometheus YAML, a Grafana dashboard, .sbatch or Dockerfile; none: all of
    cluster/."""
    filled: bool = False
    """The files are envsubst's output: names of projects and buckets may be in them, variables may not."""

    def run(self) -> None:
        """Print a line for every file and check; `UserError` if there is a fault."""
        from scarce.cluster_check.check import check_files

        verdicts = check_files(self.files, filled=self.filled)
        print("\n".join(map(str, verdicts)), flush=True)
        faults = sum(verdict.outcome == "fault" for verdict in verdicts)
        if faults:
            raise UserError(f"{faults} fault(s) in cluster files: mend the lines above that begin with 'fault'")
