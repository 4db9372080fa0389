"""`scarce convert`: a hospital's download to Arrow."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg, subcommand

from scarce.data.columns import Columns

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
