"""`scarce fetch`: the public data, or the way to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg, subcommand

from scarce.errors import UserError


@dataclass(frozen=True)
class FetchNih:
    """Download NIH ChestX-ray14 through Kaggle: 112,120 films, about 42 GB. Asks first; goes on where it stopped."""

    out: Path = Path("data/nih-download")
    """Folder for the download; 90 GB of disk are needed until it is unpacked, 42 GB afterwards."""
    yes: bool = False
    """Don't ask."""

    def run(self) -> None:
        """Ask, download, check, and tell what to do next."""
        import sys

        from scarce.data.fetch import NIH_FREE_GB, NIH_GB, NIH_HANDLE, NIH_IMAGES, check_disk, fetch_nih

        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file: expected a folder for the download")
        check_disk(self.out, NIH_FREE_GB)
        print(f"NIH ChestX-ray14 from kaggle.com/datasets/{NIH_HANDLE}: {NIH_IMAGES:,} films, about {NIH_GB} GB")
        if not self.yes:
            if not sys.stdin.isatty():
                raise UserError(f"nobody is there to be asked whether to download {NIH_GB} GB: say it with --yes")
            if input(f"Download it to {self.out}? [y/N] ").strip().lower() not in ("y", "yes"):
                raise UserError("nothing was downloaded: answer y, or give --yes, to download")
        folder = fetch_nih(self.out)
        print(f"{folder}: {NIH_IMAGES:,} films and their labels are there. Next:")
        print(f"scarce convert nih --source {folder} --out data/nih")


@dataclass(frozen=True)
class FetchPadChest:
    """Print how PadChest is had: on request from BIMCV, by no program."""

    def run(self) -> None:
        """Print the steps."""
        from scarce.data.fetch import PADCHEST_STEPS

        print(PADCHEST_STEPS)


@dataclass(frozen=True)
class Fetch:
    """Download a public dataset, or be told how to get it. Terms and citations: docs/data.md."""

    dataset: Annotated[
        Annotated[FetchNih, subcommand("nih")] | Annotated[FetchPadChest, subcommand("padchest")], arg(name="")
    ]

    def run(self) -> None:
        """Fetch the chosen one."""
        self.dataset.run()
