"""`scarce export`: a run's backbone for others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Write the backbone of a finished run as torchvision, timm or ONNX Runtime loads it, with a model card."""

    run_folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a finished run, such as runs/ssl_aug-phantom-a-phantom-b, its URL, or its best/."""
    format: Literal["torchvision", "timm", "onnx"]
    """The library to write it for. resnet_small fits onnx only, vit_small timm and onnx; onnx needs scarce[onnx]."""
    out: Path
    """New folder to write."""

    def run(self) -> None:
        """Export, check, and tell where it is."""
        from scarce.files import check_new_folder

        check_new_folder("--out", self.out)

        from scarce.mirror import open_mirror
        from scarce.publishing.export import export_run
        from scarce.storage import place_of

        difference = export_run(open_mirror(place_of(self.run_folder)).folder, self.format, self.out)
        print(f"{self.out}: loaded by {self.format}, its features are ours but for {difference:.0e} of the largest")
        print(f"Read {self.out / 'README.md'} before you pass it on: it says on whose images the weights were trained.")
