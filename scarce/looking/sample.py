"""Films that stand for a hospital where two are compared: a random one of each of some patients."""

from dataclasses import dataclass

import numpy as np

from scarce.data.pixels import reduce_images
from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.files import stable_hash

FEWEST = 20  # patients of a hospital; a quarter of them is the least to learn from and to test on


@dataclass(frozen=True, eq=False)
class Sample:
    """One random film of each of some patients of a hospital.

    Attributes:
        name: of the hospital.
        images: uint8 [N, S, S].
    """

    name: str
    images: np.ndarray


def draw_sample(name: str, dataset: Dataset, patients: int, size: int) -> Sample:
    """At most so many patients of a dataset, by a hash, reduced to `size`; `UserError` where they are too few."""
    table = dataset.metadata()
    order = np.argsort([stable_hash(["gap", name]) for name in table["image_id"]], kind="stable")
    first = order[~table["patient_id"].iloc[order].duplicated().to_numpy()][:patients]
    if len(first) < FEWEST:
        raise UserError(
            f"{dataset.path} has {len(first)} patients: expected at least {FEWEST}, of which halves can be compared"
        )
    images = dataset.pixels(np.sort(first))
    return Sample(name, reduce_images(images, size) if images.shape[1] > size else images)
