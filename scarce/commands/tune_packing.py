"""`scarce tune-packing`: how many trials at once?"""

from dataclasses import dataclass

from scarce.packing.config import PackingConfig


@dataclass(frozen=True)
class TunePacking(PackingConfig):
    """Measure how many trials at once, and which batch size, give the most trials an hour on this device; the last
    line printed is the flags for sweeps/ssl_aug.py.
    """

    def run(self) -> None:
        """Measure, and print the table and the flags."""
        from scarce.data.hospitals import open_hospital

        manifest = open_hospital(self.pretrain).manifest  # before the slow imports, as it may not be there

        from scarce.packing.tune import tune_packing
        from scarce.pairing import VIEW_MARGIN

        tune_packing(self, manifest.images, min(manifest.size, VIEW_MARGIN * self.training.image_size))
