import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scarce.data.decode import DecodeError, decode
from scarce.data.intensity import stretch_range, to_8_bit


def radiograph(low: int, high: int, seed: int = 0, side: int = 256) -> np.ndarray:
    """A smooth field with a little noise that spans [low, high]: uint16 [side, side]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    field = np.sin(3 * x + generator.uniform(0, 6)) + np.cos(4 * y + generator.uniform(0, 6))
    field += generator.normal(0, 0.02, field.shape)
    field = (field - field.min()) / np.ptp(field)
    return (low + field * (high - low)).round().astype(np.uint16)


def stretched(raw: np.ndarray, size: int, inverted: bool = False) -> np.ndarray:
    return to_8_bit(raw, *stretch_range(raw, inverted), size)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([64, 128, 256]))
def test_a_16_bit_image_keeps_more_than_200_levels(seed: int, size: int) -> None:
    raw = radiograph(4200, 18_500, seed)
    assert len(np.unique(stretched(raw, size))) > 200


def test_8_bits_first_would_lose_them() -> None:
    raw = radiograph(4200, 18_500)
    too_early = (raw // 256).astype(np.uint8)
    assert len(np.unique(stretched(too_early, 256))) < 60


@settings(max_examples=50, deadline=None)
@given(
    low=st.integers(0, 60_000),
    spread=st.integers(1, 5000),
    seed=st.integers(0, 1000),
    inverted=st.booleans(),
)
def test_any_range_fills_0_to_255_in_order(low: int, spread: int, seed: int, inverted: bool) -> None:
    raw = radiograph(low, low + spread, seed, side=64)
    black, white = stretch_range(raw, inverted)
    assert (black > white) is inverted
    image = to_8_bit(raw, black, white, 64)
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    by_level = image.ravel()[np.argsort(raw.ravel(), kind="stable")].astype(int)
    assert (np.diff(by_level) * (-1 if inverted else 1) >= 0).all()


def test_without_a_change_of_size_nothing_is_interpolated() -> None:
    raw = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    expected = np.rint(np.clip((raw - 1000.0) * 255 / 2000, 0, 255))
    assert np.abs(to_8_bit(raw, 1000, 3000, 64) - expected).max() <= 1  # float32 may fall to the other side of .5
    levels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    np.testing.assert_array_equal(to_8_bit(levels, 0, 255, 64), levels)


def test_a_few_extreme_pixels_do_not_set_the_range() -> None:
    raw = radiograph(4200, 18_500)
    marked = raw.copy()
    marked[:5, :5] = 65_535  # a burnt-in marker
    marked[-5:, -5:] = 0
    assert np.allclose(stretch_range(marked), stretch_range(raw), rtol=0.01)


def test_an_image_is_resized_to_a_square() -> None:
    wide = radiograph(0, 1000)[:100]
    assert stretched(wide, 32).shape == (32, 32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_constant_image_is_rejected(dtype: type) -> None:
    image = np.full((64, 64), 7, dtype)
    image[0, 0] = 200  # one pixel of 4,096 is no content
    with pytest.raises(DecodeError, match=r"^constant image$"):
        stretch_range(image)


def test_from_file_to_levels_at_16_bit() -> None:
    raw = radiograph(4200, 18_500)
    file = io.BytesIO()
    Image.fromarray(raw).save(file, "PNG")
    decoded = decode(file.getvalue())
    assert decoded.bits == 16
    np.testing.assert_array_equal(decoded.pixels, raw)
    low, high = stretch_range(decoded.pixels)
    assert 4200 <= low < 5000
    assert 17_500 < high <= 18_500
