"""Fetching NIH ChestX-ray14 through Kaggle's own client, and what to do for PadChest, which no program may fetch."""

import os
import shutil
from pathlib import Path

from scarce.data.sources import label_file, read_label_file
from scarce.errors import UserError

NIH_HANDLE = "nih-chest-xrays/data"
NIH_IMAGES = 112_120
NIH_GB = 42  # of the download, in units of 10⁹ bytes
NIH_FREE_GB = 90  # the archive and what is unpacked of it lie side by side for a while

PADCHEST_STEPS = """\
PadChest (Bustos et al. 2020, Medical Image Analysis 66:101797): 160,000 films of 67,000 patients, Hospital San Juan,
Spain. The Medical Imaging Databank of the Valencia Region (BIMCV) gives it for research, on request, and it may not be
passed on: no program can fetch it for you.

1. Read the terms and fill in the request on https://bimcv.cipf.es/bimcv-projects/padchest/
2. Wait for BIMCV's answer, which says how to download.
3. Download PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (or .csv.gz) and 0.zip to 54.zip, about 1 TB in all,
   into one folder. Some of the zips are enough to begin: films that are not there are counted and left out.
4. Don't unpack them; they are read as they are:

   scarce convert padchest --source FOLDER --out data/padchest
   scarce show data/padchest

What you may publish of it, weights that were trained on it included, is a question for your agreement with BIMCV."""


def check_disk(out: Path, needed_gb: float) -> None:
    """`UserError` where the disk of a folder, which need not exist, has less room, what it holds already counted in."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    held = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e9
    free = shutil.disk_usage(there).free / 1e9
    if free < needed_gb - held:
        raise UserError(
            f"--out {out}: expected {needed_gb - held:.0f} GB of free disk for the download and its unpacking, found "
            f"{free:.0f} GB: free some, or name a folder on a larger disk"
        )


def fetch_nih(out: Path) -> Path:
    """Download ChestX-ray14 below `out` and check it; the folder to convert. A download that was cut off goes on.

    kagglehub keeps the part that it has, asks the server for the rest, checks the archive's MD5, and unpacks it.

    Raises:
        UserError: kagglehub is not there, Kaggle can't be reached or refuses, or films are missing afterwards.
    """
    try:
        import kagglehub
        from kagglehub.exceptions import CredentialError, KaggleApiHTTPError, UnauthenticatedError
        from requests import RequestException
    except ImportError as error:
        raise UserError("scarce fetch nih needs kagglehub: pip install 'scarce[fetch]'") from error

    os.environ["KAGGLEHUB_CACHE"] = str(out.absolute())  # its output_dir= would not go on with a part of the archive
    try:
        folder = Path(kagglehub.dataset_download(NIH_HANDLE))
    except (CredentialError, UnauthenticatedError, KaggleApiHTTPError) as error:
        raise UserError(
            f"Kaggle refuses: {error}: put an API token of your account into ~/.kaggle/kaggle.json "
            "(kaggle.com/settings), then give the same command again"
        ) from error
    except RequestException as error:
        raise UserError(f"Kaggle can't be reached ({error}): give the same command again to go on") from error
    check_nih(folder)
    return folder


def check_nih(folder: Path) -> None:
    """`UserError` where a folder does not hold the whole ChestX-ray14: its films and its label table."""
    images = sum(1 for _ in folder.glob("images*/**/*.png"))
    rows = len(
        read_label_file(label_file(folder, ("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz")), ("Image Index",))
    )
    for what, found in (("films", images), ("rows in the label table", rows)):
        if found != NIH_IMAGES:
            raise UserError(
                f"{folder}: expected {NIH_IMAGES:,} {what}, found {found:,}: delete that folder, and give the same "
                "command again"
            )
