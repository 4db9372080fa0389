"""The settings of sweeps/first_failure.py, without torch: the command line is made from them."""

from dataclasses import dataclass
from pathlib import Path

from scarce.errors import UserError
from scarce.files import folder_of_run


@dataclass(frozen=True)
class FirstFailureConfig:
    """Everything the experiment is told; written to config.json beside its results."""

    target: str = "phantom-b"
    """Labelled images of one hospital: a converted folder or its URL, or phantom-b."""
    finding: str = ""
    """Finding to tell from the images of patients who never have it; empty: images with any finding from images
    labelled to have none."""
    images: int = 600
    """Images of the balanced set, half of them with the finding."""
    held_out: float = 0.2
    """Share of these that is held out, balanced, one image a patient; in (0, 1)."""
    seed: int = 0
    """Seed of the images, the split and the forest."""
    name: str = ""
    """The run's folder under --out; empty: first_failure-<target>."""
    out: str = "runs"
    """Folder of all runs."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2**32), got {self.seed}")
        if self.images < 4 or self.images % 2:
            raise UserError(f"--images must be an even number of at least 4, got {self.images}")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out must lie between 0 and 1, got {self.held_out:g}")
        if held_out_images(self.images, self.held_out) is None:
            raise UserError(
                f"--held-out {self.held_out:g} of --images {self.images} is {self.held_out * self.images:g} images: "
                "expected an even number, half of them with the finding, and others to learn from"
            )

    def folder(self) -> Path:
        """The absolute path of the run's folder."""
        from scarce.storage import place_of, require_path  # here, as Arrow costs a tenth of a second at --help

        require_path("--out", self.out, "write here, then copy the folder")
        return folder_of_run(self.out, self.name or f"first_failure-{place_of(self.target).name}")


def held_out_images(images: int, share: float) -> int | None:
    """The images to hold out of a balanced set: an even number; None where the share is no such number."""
    count = 2 * round(share * images / 2)
    return count if 0 < count < images and abs(count - share * images) < 1e-6 else None
