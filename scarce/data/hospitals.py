"""A hospital by what the user calls it: a converted folder, or one of the phantoms, drawn when first asked for."""

from pathlib import Path

from scarce.data.phantom import PHANTOMS, write_phantom
from scarce.data.store import Dataset, open_dataset

PHANTOM_FOLDER = Path("data")


def open_hospital(name: str) -> Dataset:
    """The dataset in the folder `name`, or the phantom of that name; `UserError` where there is neither."""
    if name in PHANTOMS and not Path(name).exists():
        folder = PHANTOM_FOLDER / name
        write_phantom(PHANTOMS[name], folder)
        return open_dataset(folder)
    return open_dataset(name)
