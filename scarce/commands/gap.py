"""`scarce gap`: how far are two hospitals apart?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from scarce.errors import UserError


@dataclass(frozen=True)
class Gap:
    """Measure how far the films of two hospitals are apart, against how far random halves of either are: intensity,
    spectrum, features, and how well a classifier tells them. Writes gap.json and gap.png.
    """

    a: Annotated[Positional[str], arg(metavar="A")]
    """A converted dataset: its folder, its URL, or phantom-a or phantom-b."""
    b: Annotated[Positional[str], arg(metavar="B")]
    """Another one."""
    backbone: str = ""
    """Folder of a finished run, or its best/, whose backbone gives the features; empty: random weights."""
    patients: int = 500
    """Patients of either hospital, at most, one film each; at least 20."""
    draws: int = 200
    """Draws of random halves behind every interval; at least 100."""
    out: Path = Path("gap")
    """New folder for gap.json and gap.png."""

    def __post_init__(self) -> None:
        if self.patients < 20:
            raise UserError(f"--patients must be at least 20, got {self.patients}")
        if self.draws < 100:
            raise UserError(f"--draws must be at least 100, got {self.draws}")

    def run(self) -> None:
        """Measure, and print the table and a sentence."""
        from scarce.data.hospitals import open_hospital
        from scarce.files import check_new_folder

        check_new_folder("--out", self.out)
        datasets = open_hospital(self.a), open_hospital(self.b)
        if datasets[0].manifest.digest == datasets[1].manifest.digest:
            raise UserError(f"{self.a} and {self.b} hold the same films: expected two hospitals")
        size = min(dataset.manifest.size for dataset in datasets)

        from scarce.looking.backbone import open_backbone, untrained
        from scarce.looking.gap import table, write_gap
        from scarce.looking.sample import draw_sample

        pipeline = open_backbone(Path(self.backbone)) if self.backbone else untrained(size)
        name = self.backbone or f"resnet_small with random weights, {pipeline.image_size} pixels"
        names = [dataset.manifest.hospital for dataset in datasets]
        if names[0] == names[1]:
            names = [self.a, self.b]
        a, b = (draw_sample(*pair, self.patients, size) for pair in zip(names, datasets, strict=True))
        report = write_gap(self.out, (a, b), pipeline, name, self.draws)
        print(f"{len(a.images)} patients of {a.name} and {len(b.images)} of {b.name}, one film each, {size} pixels")
        print(f"between halves of {report['patients_a_half']} patients, 95% intervals; features: {name}\n")
        print(table(report))
        print(f"\n{report['sentence']}\nWritten to {self.out / 'gap.png'} and {self.out / 'gap.json'}")
