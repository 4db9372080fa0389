"""`scarce views`: are the augmentations too much?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from scarce.errors import UserError


@dataclass(frozen=True)
class Views:
    """Draw one film under every augmentation that is searched, weak to strong, so that a radiologist can say what is
    too much: each alone in each.png, all at once in together.png.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """Folder of the converted dataset, its URL, or phantom-a or phantom-b."""
    index: int | None = None
    """Row of the film in the dataset, as `scarce show` writes below it; by default a random one."""
    seed: int = 0
    """Seed of the views, and of the choice of the film."""
    size: int = 0
    """Side of the views, pixels (16 to 2048); 0: that of the dataset, at most 224. Blur and noise look as strong as in
    a pretraining with this --image-size."""
    out: Path = Path("views")
    """New folder for the two sheets."""

    def __post_init__(self) -> None:
        if self.size and not 16 <= self.size <= 2048:
            raise UserError(f"--size must lie in [16, 2048] pixels, or be 0, got {self.size}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2**32), got {self.seed}")

    def run(self) -> None:
        """Draw the sheets, and tell where they are."""
        from scarce.data.hospitals import open_hospital
        from scarce.files import check_new_folder, whole_folder

        check_new_folder("--out", self.out)
        dataset = open_hospital(self.dataset)
        images = dataset.manifest.images
        if self.index is not None and not 0 <= self.index < images:
            raise UserError(
                f"--index must lie in [0, {images - 1}], as {self.dataset} has {images:,} films, got {self.index}"
            )

        import numpy as np

        from scarce.looking.augmentations import one_by_one, together
        from scarce.looking.sheet import write_sheet

        row = int(np.random.default_rng(self.seed).integers(images)) if self.index is None else self.index
        size = self.size or min(dataset.manifest.size, 224)
        image = dataset.pixels(np.array([row]))[0]
        film = f"#{row} of {dataset.manifest.hospital}, views of {size} pixels"
        with whole_folder(self.out) as folder:
            title = f"{film}: every augmentation alone, from weak to strong; of each value the farthest of 64 views"
            write_sheet(folder / "each.png", title, one_by_one(image, size, self.seed))
            title = f"{film}: all augmentations at once, random views"
            write_sheet(folder / "together.png", title, together(image, size, self.seed))
        print(f"{self.out / 'each.png'}: each augmentation alone\n{self.out / 'together.png'}: all at once")
        print(
            "Where a view no longer shows what is looked for, hold that field: sweeps/ssl_aug.py --fix views.NAME=VALUE"
        )
