"""`scarce describe`: what a converted dataset holds."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


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
