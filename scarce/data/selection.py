"""Which images of a dataset are pretrained on, and how they are reduced: one answer for every way to hold them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import PIL
import pyarrow as pa

from scarce.data.pixels import reduce_images
from scarce.data.store import Dataset, pixel_array, read_shard
from scarce.files import stable_hash
from scarce.storage import Place, side_by_side

COLUMNS = ["patient_id", "pixels"]  # all that `Selection.pixels` reads


@dataclass(frozen=True)
class Selection:
    """A dataset's images, in row order, without those of some patients."""

    dataset: Dataset
    without_patients: tuple[str, ...]  # sorted
    size: int  # pixels a side, at most the dataset's

    @property
    def identity(self) -> str:
        """Hash of everything that shapes the pixels."""
        return stable_hash([self.dataset.manifest.digest, self.without_patients, self.size, PIL.__version__])

    @cached_property
    def images(self) -> int:
        """How many there are."""

        def count(shard: Place) -> int:
            return pa.compute.sum(self._wanted(read_shard(shard, ["patient_id"]))).as_py() or 0

        return sum(side_by_side(count, self.dataset.shard_paths))

    @property
    def bytes(self) -> int:
        """What their pixels take."""
        return self.images * self.size**2

    def pixels(self, table: pa.Table) -> np.ndarray:
        """The selected images among some rows of the dataset (`COLUMNS`), uint8 [n, size, size]."""
        full_size = self.dataset.manifest.size
        images = pixel_array(table.filter(self._wanted(table))["pixels"].combine_chunks(), full_size)
        return reduce_images(images, self.size) if self.size < full_size else images

    def _wanted(self, table: pa.Table) -> pa.Array:
        excluded = pa.array(self.without_patients, pa.string())
        return pa.compute.invert(pa.compute.is_in(table["patient_id"], excluded))
