import numpy as np
import pytest
from scipy.ndimage import label

from scarce.audit.regions import black_out, corners, frame, lung_territory, thorax_box

SIZES = (16, 32, 64, 224)


@pytest.mark.parametrize("size", SIZES)
def test_regions_are_where_their_shares_of_the_side_say(size):
    masks = thorax_box(size), frame(size), corners(size)
    assert all(mask.shape == (size, size) and mask.dtype == bool for mask in masks)
    for row, column in np.random.default_rng(size).integers(size, size=(200, 2)):
        x, y = (column + 0.5) / size, (row + 0.5) / size
        near_x, near_y = min(x, 1 - x), min(y, 1 - y)
        expected = 0.1 <= x < 0.9 and 0.1 <= y < 0.88, min(near_x, near_y) < 0.1, near_x < 0.2 and near_y < 0.2
        assert tuple(mask[row, column] for mask in masks) == expected


@pytest.mark.parametrize("size", SIZES)
def test_left_and_right_are_treated_alike(size):
    for mask in (thorax_box(size), frame(size), corners(size)):
        assert np.array_equal(mask, mask[:, ::-1])
    for mask in (frame(size), corners(size)):
        assert np.array_equal(mask, mask[::-1])
        assert np.array_equal(mask, mask.T)


@pytest.mark.parametrize("size", SIZES)
def test_the_frame_goes_all_round_and_holds_no_thorax(size):
    assert label(frame(size))[1] == 1
    assert label(~frame(size))[1] == 1
    assert label(corners(size))[1] == 4
    assert not (frame(size) & thorax_box(size)).any()


def two_lungs(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Two ellipses each, a little elsewhere in every film."""
    line = (np.arange(size) + 0.5) / size
    lungs = np.zeros((count, size, size), dtype=bool)
    for film, (shift_x, shift_y) in zip(lungs, rng.uniform(-0.03, 0.03, (count, 2)), strict=True):
        for centre in (0.3, 0.7):
            x, y = (line - centre - shift_x) / 0.13, (line - 0.45 - shift_y) / 0.3
            film |= x[None, :] ** 2 + y[:, None] ** 2 < 1
    return lungs


@pytest.mark.parametrize("size", SIZES)
def test_the_territory_of_the_lungs_is_one_region_with_the_mediastinum_and_a_margin(size):
    lungs = two_lungs(size, 60, np.random.default_rng(0))
    territory = lung_territory(lungs)
    assert label(lungs[0])[1] == 2
    assert label(territory)[1] == 1
    assert label(~territory)[1] == 1  # no hole
    usual = lungs.mean(axis=0) > 0.5
    assert not (usual & ~territory).any()
    assert territory[int(0.45 * size), size // 2]  # between the lungs
    rows, columns = (np.flatnonzero(usual.any(axis=axis)) for axis in (1, 0))
    margin = max(1, round(0.05 * size))
    reached = [np.flatnonzero(territory.any(axis=axis)) for axis in (1, 0)]
    assert reached[0][0] <= rows[0] - margin
    assert reached[0][-1] >= rows[-1] + margin
    assert reached[1][0] <= columns[0] - margin
    assert reached[1][-1] >= columns[-1] + margin
    assert not territory[0].any()


def test_one_odd_mask_in_a_hundred_does_not_widen_the_territory():
    lungs = np.repeat(two_lungs(32, 1, np.random.default_rng(0)), 100, axis=0)
    odd = lungs.copy()
    odd[7] = True
    assert np.array_equal(lung_territory(odd), lung_territory(lungs))


def test_black_out_leaves_the_rest_and_the_original_as_they_were():
    images = np.random.default_rng(0).integers(1, 256, (3, 32, 32), dtype=np.uint8)
    before, region = images.copy(), corners(32)
    hidden = black_out(images, region)
    assert np.array_equal(images, before)
    assert not np.shares_memory(hidden, images)
    assert hidden.dtype == np.uint8
    assert not hidden[:, region].any()
    assert np.array_equal(hidden[:, ~region], images[:, ~region])
