"""Gathering by number, whatever the blocks, the images left out and the memory given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarce.data.pixels import Pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 5, 7), dtype=np.uint8)


@given(
    cuts=st.lists(st.integers(0, 30), max_size=5).map(sorted),
    left_out=st.sets(st.integers(0, 29), max_size=20),
    numbers=st.lists(st.integers(0, 9), max_size=12),
    given_memory=st.booleans(),
)
def test_gather_is_indexing(cuts: list[int], left_out: set[int], numbers: list[int], given_memory: bool) -> None:
    pixels = Pixels(np.split(IMAGES, cuts)).without(np.array(sorted(left_out), int))
    index = np.array(numbers, int)
    out = np.zeros((len(index), 5, 7), np.uint8) if given_memory else None
    got = pixels.gather(index, out)
    assert out is None or got is out
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.delete(IMAGES, sorted(left_out), axis=0)[index])


@pytest.mark.parametrize(
    "out", [np.zeros((3, 5, 7), np.uint8), np.zeros((2, 5, 8), np.uint8), np.zeros((2, 5, 7), np.float32)]
)
def test_memory_of_another_shape_or_type_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected out to be uint8 \(2, 5, 7\)"):
        Pixels([IMAGES]).gather(np.array([0, 1]), out)


@pytest.mark.parametrize("number", [30, -31])
def test_a_number_without_an_image_is_refused(number: int) -> None:
    with pytest.raises(IndexError):
        Pixels([IMAGES[:9], IMAGES[9:]]).gather(np.array([number]))


def test_prefetch_gets_the_numbers_in_the_blocks() -> None:
    asked = []
    pixels = Pixels([IMAGES], prefetch=lambda index: asked.append(index.tolist())).without(np.array([0, 4]))
    pixels.gather(np.array([3, 0]))
    assert asked == [[5, 1]]
