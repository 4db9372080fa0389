import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarce.data.splits import assert_no_leak, held_out_patients, image_splits, patients_of, split_of

FRACTIONS = (0.5, 0.2, 0.3)
IDS = st.text(min_size=1, max_size=12)
PATIENTS = st.lists(st.tuples(st.sampled_from(["nih", "padchest"]), IDS), min_size=1, max_size=60)


def frame(patients):
    return pd.DataFrame(patients, columns=["hospital", "patient_id"])


@given(PATIENTS)
def test_no_patient_is_in_two_splits(patients):
    metadata = frame(patients + patients[::-1])  # every patient has at least two images
    of_patient: dict = {}
    for patient, split in zip(patients + patients[::-1], image_splits(metadata, FRACTIONS), strict=True):
        assert of_patient.setdefault(patient, split) == split
    assert set(of_patient.values()) <= {"pool", "val", "test"}


@given(PATIENTS, PATIENTS)
def test_adding_patients_moves_nobody(patients, more):
    before = image_splits(frame(patients), FRACTIONS)
    after = image_splits(frame(patients + more), FRACTIONS)
    assert (after[: len(patients)] == before).all()


@given(PATIENTS)
def test_held_out_patients_are_those_outside_the_pool(patients):
    metadata = frame(patients)
    expected = {patient for patient in patients if split_of(*patient, FRACTIONS) != "pool"}
    assert held_out_patients(metadata, FRACTIONS) == expected


def test_splits_have_the_sizes_asked_for():
    splits = image_splits(frame([("nih", str(number)) for number in range(20_000)]), FRACTIONS)
    shares = [(splits == name).mean() for name in ("pool", "val", "test")]
    assert shares == pytest.approx(FRACTIONS, abs=0.015)  # four standard deviations


def test_splits_never_change_between_versions():
    """A published number depends on who was held out: these must stay as they are."""
    assert [split_of("nih", str(number), FRACTIONS) for number in range(10)] == PINNED


PINNED = ["pool", "pool", "test", "test", "pool", "pool", "test", "pool", "test", "pool"]


def test_a_leak_is_an_error_and_equal_ids_of_two_hospitals_are_not_a_leak():
    metadata = frame([("nih", str(number)) for number in range(50)])
    held_out = held_out_patients(metadata, FRACTIONS)
    assert_no_leak(patients_of(metadata) - held_out, held_out)
    assert_no_leak({("padchest", patient) for _, patient in held_out}, held_out)
    with pytest.raises(RuntimeError, match="1 held-out patients"):
        assert_no_leak([sorted(held_out)[0], ("nih", "nobody")], held_out)
