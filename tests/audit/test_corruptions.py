from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.fft import dctn, idctn
from torchvision.transforms.v2 import functional as tv

from scarce.audit.corruptions import CORRUPTIONS, Corruption
from scarce.data.phantom import PhantomConfig, draw, plan_films

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
every = pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    config = PhantomConfig("a", 6, 64)
    return draw(list(plan_films(config))[:8], config).images


def levels(name: str) -> list[float]:
    """All but the neutral one."""
    return [level for level in BY_NAME[name].levels if level != BY_NAME[name].neutral]


def test_every_kind_has_a_neutral_and_a_mild_level_among_ascending_ones():
    assert len(BY_NAME) == len(CORRUPTIONS) >= 7
    for corruption in CORRUPTIONS:
        assert list(corruption.levels) == sorted(set(corruption.levels))
        assert corruption.neutral in corruption.levels
        assert corruption.mild
        assert set(corruption.mild) <= set(corruption.levels) - {corruption.neutral}


@every
def test_the_neutral_level_leaves_every_pixel(corruption: Corruption, films):
    assert np.array_equal(corruption.apply(films, corruption.neutral), films)


@every
def test_films_stay_films_and_the_original_stays(corruption: Corruption, films):
    before = films.copy()
    for level in corruption.levels:
        for part in (films, films[:1], films[:, ::2, ::2]):
            changed = corruption.apply(part, level)
            assert (changed.dtype, changed.shape) == (np.uint8, part.shape)
            assert np.array_equal(changed, corruption.apply(part, level))
    assert np.array_equal(films, before)


@every
def test_a_level_farther_from_neutral_changes_films_more(corruption: Corruption, films):
    def distance(level: float) -> float:
        return float(np.abs(corruption.apply(films, level).astype(float) - films).mean())

    above = [distance(level) for level in corruption.levels if level >= corruption.neutral]
    below = [distance(level) for level in reversed(corruption.levels) if level <= corruption.neutral]
    for side in (above, below):
        assert all(one < other for one, other in pairwise(side)), side
    assert len(above) + len(below) >= 6


def as_tensor(films: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(films)[:, None]


def assert_close(ours: np.ndarray, theirs: torch.Tensor | np.ndarray, most: int = 1) -> None:
    difference = np.abs(ours.astype(int) - np.asarray(theirs).reshape(ours.shape).astype(int))
    assert difference.max() <= most


@pytest.mark.parametrize("level", levels("brightness"))
def test_brightness_is_a_shift_of_gray_levels(level, films):
    assert_close(BY_NAME["brightness"].apply(films, level), np.clip(films + 255.0 * level, 0, 255))


@pytest.mark.parametrize("level", levels("contrast"))
def test_contrast_as_torchvision_has_it(level, films):
    assert_close(BY_NAME["contrast"].apply(films, level), tv.adjust_contrast(as_tensor(films), level))


@pytest.mark.parametrize("level", levels("gamma"))
def test_gamma_as_torchvision_has_it(level, films):
    assert_close(BY_NAME["gamma"].apply(films, level), tv.adjust_gamma(as_tensor(films), level))


@pytest.mark.parametrize("level", levels("blur"))
def test_blur_as_torchvision_has_it(level, films):
    sigma = level * 64
    margin = int(4 * sigma + 0.5)
    theirs = tv.gaussian_blur(as_tensor(films), 2 * margin + 1, sigma)[:, 0].numpy()
    inner = (slice(None), slice(margin, 64 - margin), slice(margin, 64 - margin))  # it mirrors at the edges
    assert_close(BY_NAME["blur"].apply(films, level)[inner], theirs[inner])


@pytest.mark.parametrize("level", levels("noise"))
def test_noise_has_its_standard_deviation_no_mean_and_the_same_pattern(level):
    gray = np.full((4, 64, 64), 128, np.uint8)
    noise = BY_NAME["noise"].apply(gray, level).astype(float) - 128
    assert noise.std() == pytest.approx(255 * level, rel=0.05)
    assert abs(noise.mean()) < 255 * level / 20
    stronger = BY_NAME["noise"].apply(gray, 0.1).astype(float) - 128
    assert np.corrcoef(noise.ravel(), stronger.ravel())[0, 1] > 0.95


# Luminance table of the JPEG standard (ITU T.81, table K.1).
QUANTISATION = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


@pytest.mark.parametrize("level", levels("JPEG"))
def test_jpeg_is_the_rounding_of_cosine_coefficients_in_blocks_of_eight(level, films):
    scale = 5000 / level if level < 50 else 200 - 2 * level  # per cent, as the Independent JPEG Group has it
    steps = np.clip((QUANTISATION * scale + 50) // 100, 1, 255)
    blocks = films.reshape(-1, 8, 8, 8, 8).swapaxes(2, 3) - 128.0
    coefficients = np.round(dctn(blocks, axes=(3, 4), norm="ortho") / steps) * steps
    decoded = idctn(coefficients, axes=(3, 4), norm="ortho").swapaxes(2, 3).reshape(films.shape) + 128
    difference = BY_NAME["JPEG"].apply(films, level) - np.clip(decoded, 0, 255)
    assert np.abs(difference).mean() < 1  # coefficients halfway between two steps go either way


@pytest.mark.parametrize("level", levels("field of view"))
def test_the_field_of_view_as_pillow_crops_and_expands(level, films):
    side = 40  # times each level it is even
    parts = films[:, 20:60, 10:50]
    edge = abs(side - round(side * level)) // 2
    change = ImageOps.crop if level < 1 else ImageOps.expand
    theirs = [change(Image.fromarray(part), edge).resize((side, side), Image.Resampling.LANCZOS) for part in parts]
    ours = BY_NAME["field of view"].apply(parts, level)
    assert np.array_equal(ours, np.stack(theirs))
    if level == 1.2:
        assert ours[:, :2].max() <= 8  # black around the film, but for Lanczos' ringing
        assert ours[:, :, -2:].max() <= 8
