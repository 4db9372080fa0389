"""`scarce features`: what a backbone makes of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Features:
    """Write the features that a backbone gives for every image of a converted dataset, with image, labels and view."""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """Folder of the converted dataset, its URL, or phantom-a or phantom-b."""
    backbone: Path
    """Folder of a finished run, or of an exported backbone, such as runs/NAME/best."""
    out: Path
    """Parquet file to write; one that is there is replaced."""
    with_patients: bool = False
    """Add a column with the patients' ids. Image names may hold them as well: the NIH's do."""

    def run(self) -> None:
        """Extract, write, and tell how many."""
        from scarce.data.hospitals import open_hospital
        from scarce.files import check_new_file

        check_new_file("--out", self.out, ".parquet")
        dataset = open_hospital(self.dataset)

        from scarce.looking.backbone import open_backbone
        from scarce.publishing.features import write_features

        pipeline = open_backbone(self.backbone)
        rows = write_features(self.out, dataset, pipeline, str(self.backbone), self.with_patients)
        print(f"{self.out}: {rows:,} images, {pipeline.backbone.feature_dim} features each")
