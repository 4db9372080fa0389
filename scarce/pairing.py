"""The two hospitals of a run: where the unlabelled images come from, and whom the classifier is for."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from scarce.config import DataConfig
from scarce.data.feed import Feed, Trains, load_feed
from scarce.data.hospitals import open_hospital
from scarce.data.splits import Fractions, assert_no_leak, held_out_patients, patients_of
from scarce.data.store import Dataset

VIEW_MARGIN = 2  # images are held at no more than this times the view's size: crops need no more


@dataclass(frozen=True)
class Hospitals:
    """Where the unlabelled images come from and whom the classifier is for; possibly the same hospital."""

    pretraining: Dataset
    target: Dataset

    @staticmethod
    def open(config: DataConfig) -> "Hospitals":
        """Both datasets; `UserError` where one is missing."""
        return Hospitals(open_hospital(config.pretrain), open_hospital(config.target))

    @property
    def digests(self) -> tuple[str, str]:
        """What names the two datasets' content."""
        return self.pretraining.manifest.digest, self.target.manifest.digest

    def patients_to_leave_out(self, fractions: Fractions) -> frozenset[str]:
        """Ids of the pretraining hospital's patients that validation or test will score."""
        held_out = held_out_patients(self.target.metadata(), fractions)
        here = self.pretraining.manifest.hospital
        return frozenset(patient for hospital, patient in held_out if hospital == here)

    def count_images(self, left_out: Collection[str]) -> int:
        """Images to pretrain on."""
        return int((~self.pretraining.metadata()["patient_id"].isin(sorted(left_out))).sum())

    def load_feed(
        self, fractions: Fractions, image_size: int, trains: Trains | None = None
    ) -> tuple[Feed, dict[str, Any]]:
        """The images to pretrain on with views of `image_size`, where `trains` says, and what `check_leak` says."""
        left_out = self.patients_to_leave_out(fractions)
        size = VIEW_MARGIN * image_size
        feed = load_feed(self.pretraining, without_patients=left_out, largest_size=size, trains=trains)
        return feed, self.check_leak(fractions, left_out, feed)

    def check_leak(self, fractions: Fractions, left_out: Collection[str], feed: Feed) -> dict[str, Any]:
        """Prove that no held-out patient is in the feed; what was checked, for summary.json."""
        metadata = self.pretraining.metadata()
        kept = metadata[~metadata["patient_id"].isin(sorted(left_out))]
        held_out = held_out_patients(self.target.metadata(), fractions)
        assert_no_leak(patients_of(kept), held_out)
        if len(kept) != feed.images:
            raise RuntimeError(f"the feed holds {feed.images} images, {len(kept)} remain without held-out patients")
        return {
            "pretraining_images": feed.images,
            "pretraining_patients": int(kept["patient_id"].nunique()),
            "held_out_patients": len(held_out),
            "shared_patients": 0,
            "images_left_out": len(metadata) - len(kept),
        }
