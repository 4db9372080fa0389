"""The `scarce` command: what its subcommands are, and how it ends."""

import sys
from typing import Annotated, Protocol

import tyro
from tyro.conf import subcommand

from scarce.command_line import parse, refusals_in_one_line
from scarce.commands.apply import Apply
from scarce.commands.audit import Audit
from scarce.commands.cluster import Cluster
from scarce.commands.compare import Compare
from scarce.commands.convert import Convert
from scarce.commands.describe import Describe
from scarce.commands.export import Export
from scarce.commands.features import Features
from scarce.commands.fetch import Fetch
from scarce.commands.gap import Gap
from scarce.commands.report import Report
from scarce.commands.show import Show
from scarce.commands.tune_packing import TunePacking
from scarce.commands.views import Views
from scarce.errors import EXITS, run_or_exit
from scarce.packing.config import PACKING_PRESETS

Command = (
    Annotated[Fetch, subcommand("fetch")]
    | Annotated[Convert, subcommand("convert")]
    | Annotated[Describe, subcommand("describe")]
    | Annotated[Show, subcommand("show")]
    | Annotated[Views, subcommand("views")]
    | Annotated[Gap, subcommand("gap")]
    | Annotated[Audit, subcommand("audit")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Features, subcommand("features")]
    | Annotated[Apply, subcommand("apply")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[TunePacking, subcommand("tune-packing")]
    | Annotated[Cluster, subcommand("cluster")]
)


class Runnable(Protocol):
    """A subcommand with its arguments."""

    def run(self) -> None:
        """Do what was asked for."""


def main() -> None:
    """Run `scarce` with the arguments of the process. Exit code 2: a mistake of the user's, told in one line."""

    def parse_and_run() -> None:
        command: Runnable
        if sys.argv[1:2] == ["tune-packing"]:  # a preset decides its defaults, as in the sweeps
            presets = {name: TunePacking(**vars(config)) for name, config in PACKING_PRESETS.items()}
            command = parse(sys.argv[2:], presets, TunePacking.__doc__ or "", "scarce tune-packing")
        else:
            with refusals_in_one_line():
                command = tyro.cli(
                    Command, prog="scarce", description=f"Chest X-rays to Arrow, and finished runs to account.\n{EXITS}"
                )
        command.run()

    run_or_exit(parse_and_run)
