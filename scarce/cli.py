"""The `scarce` command. What a subcommand needs is imported when it runs, so that `--help` answers at once."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from scarce.audit_config import AuditConfig
from scarce.command_line import parse, refusals_in_one_line
from scarce.data.columns import Columns
from scarce.errors import UserError, run_or_exit
from scarce.packing_config import PACKING_PRESETS, PackingConfig

if TYPE_CHECKING:
    from scarce.data.listing import Listing


@dataclass(frozen=True)
class Conversion(ABC):
    """What the conversions of all hospitals share."""

    source: Path
    """Folder of the hospital's images and label file."""
    out: Path
    """Folder of the converted dataset: a new one, or one to finish or renew."""
    size: int = 256
    """Side of the converted images, pixels (16 to 2048)."""
    address: str | None = None
    """A running Ray cluster to use, such as "auto"; by default a local one is started and ended."""

    @abstractmethod
    def scan(self) -> "Listing":
        """What the source holds."""

    def run(self) -> None:
        """Convert, and tell what came of it."""
        from scarce.storage import require_path

        require_path("--source", self.source, "copy the download here first")
        require_path("--out", self.out, "convert here first, then copy the folder (docs/storage.md)")
        listing = self.scan()

        from scarce.data.convert import convert  # after the scan, as Ray takes seconds to import

        print(f"{listing.source}: {listing.images.num_rows:,} images listed, {listing.rejected.num_rows:,} rejected")
        manifest = convert(listing, self.out, size=self.size, address=self.address)
        print(
            f"{self.out}: {manifest.images:,} images of {manifest.patients:,} patients, {manifest.rejected:,} rejected"
        )
        for reason, count in manifest.rejected_by_reason.items():
            print(f"  {reason}: {count:,}")


@dataclass(frozen=True)
class Nih(Conversion):
    """NIH ChestX-ray14 as its download unpacks: images_001/images ... or images, and Data_Entry_2017*.csv."""

    def scan(self) -> "Listing":
        """The images of the download."""
        from scarce.data.nih import scan

        return scan(self.source)


@dataclass(frozen=True)
class PadChest(Conversion):
    """PadChest: its label CSV (plain or .gz), images loose, in folders 0 to 54, or in 0.zip to 54.zip."""

    def scan(self) -> "Listing":
        """The frontal images of the download."""
        from scarce.data.padchest import scan

        return scan(self.source)


@dataclass(frozen=True)
class Folder(Conversion):
    """Any folder of PNG, JPEG or DICOM images with a CSV that names image and patient, and labels and view if known."""

    csv: Path | None = None
    """The CSV; by default the only one in the source folder."""
    hospital: str = ""
    """Name of the hospital; by default the source folder's."""
    columns: Columns = field(default_factory=Columns)

    def scan(self) -> "Listing":
        """The images that the CSV names."""
        from scarce.data.folder import scan

        return scan(self.source, self.csv, self.hospital, self.columns)


@dataclass(frozen=True)
class Convert:
    """Convert a hospital's X-rays to Arrow."""

    hospital: Annotated[
        Annotated[Nih, subcommand("nih")]
        | Annotated[PadChest, subcommand("padchest")]
        | Annotated[Folder, subcommand("folder")],
        arg(name=""),
    ]

    def run(self) -> None:
        """Convert the chosen hospital."""
        self.hospital.run()


@dataclass(frozen=True)
class Describe:
    """Print counts by finding, view, sex, age and patient of a converted dataset, and statistics of its pixels."""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """Folder of the converted dataset, or its URL, such as s3://bucket/nih."""

    def run(self) -> None:
        """Print the description."""
        from scarce.data.describe import describe
        from scarce.data.store import open_dataset

        print(describe(open_dataset(self.dataset)))


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


@dataclass(frozen=True)
class TunePacking(PackingConfig):
    """Measure how many trials at once, and which batch size, give the most trials an hour on this device; the last
    line printed is the flags for sweeps/ssl_aug.py.
    """

    def run(self) -> None:
        """Measure, and print the table and the flags."""
        from scarce.data.hospitals import open_hospital

        manifest = open_hospital(self.pretrain).manifest  # before the slow imports, as it may not be there

        from scarce.packing import tune_packing
        from scarce.pairing import VIEW_MARGIN

        tune_packing(self, manifest.images, min(manifest.size, VIEW_MARGIN * self.training.image_size))


@dataclass(frozen=True)
class Cluster:
    """`scarce cluster check`: validate cluster files, and tell of every check how much it means."""

    action: Annotated[Positional[Literal["check"]], arg(metavar="check")]
    """What to do with them."""
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE")] = ()
    """Launcher, Kubernetes or compose YAML, .sbatch or Dockerfile; none: all files of cluster/."""
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


Command = (
    Annotated[Convert, subcommand("convert")]
    | Annotated[Describe, subcommand("describe")]
    | Annotated[Audit, subcommand("audit")]
    | Annotated[TunePacking, subcommand("tune-packing")]
    | Annotated[Cluster, subcommand("cluster")]
)


def main() -> None:
    """Run `scarce` with the arguments of the process. Exit code 2: a mistake of the user's, told in one line."""

    def parse_and_run() -> None:
        command: Convert | Describe | Audit | TunePacking | Cluster
        if sys.argv[1:2] == ["tune-packing"]:  # a preset decides its defaults, as in the sweeps
            presets = {name: TunePacking(**vars(config)) for name, config in PACKING_PRESETS.items()}
            command = parse(sys.argv[2:], presets, TunePacking.__doc__ or "", "scarce tune-packing")
        else:
            with refusals_in_one_line():
                command = tyro.cli(
                    Command, prog="scarce", description="Chest X-rays to Arrow, and finished runs to account."
                )
        command.run()

    run_or_exit(parse_and_run)
