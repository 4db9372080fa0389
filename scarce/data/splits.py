"""Which patients may be learned from: pool, val and test of a hospital, by a stable hash of the patient.

A patient's split depends on nothing but its hospital, its id and the fractions. So it never changes when images or
patients are added, and no two parts of the program can disagree about it.
"""

from collections.abc import Collection
from typing import Literal

import numpy as np
import pandas as pd

from scarce.files import stable_hash

Split = Literal["pool", "val", "test"]
Fractions = tuple[float, float, float]  # of the patients in pool, val and test; they sum to 1
Patient = tuple[str, str]  # hospital and patient_id: ids are unique in a hospital only


def split_of(hospital: str, patient_id: str, fractions: Fractions) -> Split:
    """The split of a patient: the first 64 bits of a SHA-256, as a number in [0, 1), against the fractions."""
    position = int(stable_hash(["split", hospital, patient_id])[:16], 16) / 2**64
    if position < fractions[0]:
        return "pool"
    return "val" if position < fractions[0] + fractions[1] else "test"


def image_splits(metadata: pd.DataFrame, fractions: Fractions) -> np.ndarray:
    """The split of every image (str [N]) of a dataset's `metadata`."""
    of_patient = {patient: split_of(*patient, fractions) for patient in patients_of(metadata)}
    pairs = zip(metadata["hospital"], metadata["patient_id"], strict=True)
    return np.array([of_patient[pair] for pair in pairs], dtype="<U4")


def patients_of(metadata: pd.DataFrame) -> frozenset[Patient]:
    """The patients of a dataset's `metadata`."""
    return frozenset(zip(metadata["hospital"], metadata["patient_id"], strict=True))


def held_out_patients(metadata: pd.DataFrame, fractions: Fractions) -> frozenset[Patient]:
    """The val and test patients of the target hospital. Pretraining must see none of their images."""
    return frozenset(patient for patient in patients_of(metadata) if split_of(*patient, fractions) != "pool")


def assert_no_leak(pretraining: Collection[Patient], held_out: Collection[Patient]) -> None:
    """Raise `RuntimeError` if a held-out patient is among those that pretraining sees.

    Not an `assert` statement: the check has to hold under `python -O` too.
    """
    leaked = set(pretraining) & set(held_out)
    if leaked:
        raise RuntimeError(f"{len(leaked)} held-out patients are in the pretraining set")  # no names in logs
