"""Check cluster files of every kind, and tell of each what was found and how much the check means."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from scarce.cluster_check import compose, kubernetes, launcher, monitoring, slurm
from scarce.cluster_check.common import (
    COMMON,
    Check,
    ClusterFile,
    Fault,
    Pins,
    Skip,
    cost,
    header,
    names,
    no_variables,
    read_as_yaml,
)
from scarce.errors import UserError

_HEADER = Check("commands and cost at the top", header)
_NAMES = Check("projects, buckets and images are variables", names)


@dataclass(frozen=True)
class Verdict:
    """What one check found in one file."""

    path: Path
    check: str
    outcome: Literal["ok", "structure only", "skipped", "fault"]
    text: str = ""
    """Why it was skipped, or what is wrong and how to mend it."""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{self.outcome:<14}  {place}  {self.check}" + (f": {self.text}" if self.text else "")


def find_root() -> Path:
    """The checkout whose cluster files are meant by default: the package's, else the current directory."""
    for root in (Path(__file__).parents[2], Path.cwd()):
        if (root / "cluster").is_dir():
            return root
    raise UserError(f"expected a folder cluster/ beside the package or in {Path.cwd()}: name the files to check")


def check_files(files: Sequence[Path], *, filled: bool = False) -> list[Verdict]:
    """Verdicts on `files` (none: all of cluster/), in their order; `filled`: envsubst has been run on them.

    Raises:
        UserError: a file cannot be read, or there is nothing to compare versions with.
    """
    root = find_root()
    pins = Pins.read(root)
    chosen = files or sorted(path for path in (root / "cluster").rglob("*") if path.is_file() and path.suffix != ".md")
    return [verdict for path in chosen for verdict in _check(path, pins, filled)]


def _check(path: Path, pins: Pins, filled: bool) -> Iterator[Verdict]:
    file = ClusterFile(path)
    for check in _checks_of(file, filled):
        try:
            faults = list(check.find(file, pins))
        except Skip as why:
            yield Verdict(_shown(path), check.name, "skipped", str(why))
            continue
        for fault in faults:
            yield Verdict(_shown(path), check.name, "fault", fault.text, fault.line)
        if not faults:
            yield Verdict(_shown(path), check.name, check.fine)
        elif check.find in (read_as_yaml, monitoring.read_as_json):
            return  # the others would only say it again


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _checks_of(file: ClusterFile, filled: bool) -> Sequence[Check]:
    own_names = Check("no variable is left", no_variables) if filled else _NAMES
    if file.path.suffix == ".sbatch":
        return (*slurm.CHECKS, *COMMON, own_names, _HEADER)
    if file.path.name.startswith("Dockerfile"):
        return (*compose.DOCKERFILE_CHECKS, *COMMON, own_names)
    if file.path.suffix == ".json":
        return (Check("JSON", monitoring.read_as_json), *monitoring.DASHBOARD_CHECKS, *COMMON, own_names)
    if file.path.suffix not in (".yaml", ".yml"):
        return (Check("kind", _unknown),)
    syntax = Check("YAML", read_as_yaml)
    try:
        first = file.documents[0] if file.documents else {}
    except yaml.YAMLError:
        return (syntax,)
    kinds = {str(document.get("kind")) for document in file.documents}
    if "services" in first:
        return (syntax, *compose.CHECKS, *COMMON, own_names, _HEADER)
    if "scrape_configs" in first:
        return (syntax, *monitoring.PROMETHEUS_CHECKS, *COMMON, own_names)
    if "apiVersion" in first or "kind" in first:
        site = () if filled else (Check("images are variables", kubernetes.site_names),)
        if kinds & {"RayCluster", "RayJob"}:
            return (syntax, *kubernetes.CHECKS, *kubernetes.KUBERAY_CHECKS, *site, *COMMON, own_names, _HEADER)
        return (syntax, *kubernetes.CHECKS, *COMMON, own_names, Check("cost at the top", cost))
    if {"provider", "available_node_types", "cluster_name"} & set(first):
        site = () if filled else (Check("the project is a variable", launcher.project),)
        return (syntax, *launcher.CHECKS, *site, *COMMON, own_names, _HEADER)
    return (syntax, Check("kind", _unknown))


def _unknown(_file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    yield Fault(
        0,
        "is no cluster file known here: expected a launcher, Kubernetes, compose or Prometheus YAML, a dashboard's "
        "JSON, an .sbatch or a Dockerfile",
    )
