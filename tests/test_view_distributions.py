"""Parameters of views are distributed as torchvision v2 draws its own, and differ only where it is said.

By design: a crop longer than the image is clamped and not drawn again; contrast always follows brightness, where
`ColorJitter` shuffles; brightness, contrast and gamma come together or not at all; a cut-out is filled with the view's
mean. Gamma and the strength of the noise have no counterpart there and are held against their formula.
"""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from scarce.views import ViewConfig, ViewParameters, draw_parameters

OURS, THEIRS = 20_000, 2_000
SIDE = 2**14  # pixels of an image so large that torchvision's rounding to pixels is not seen
SIGNIFICANT = 0.01  # a fixed seed: no test fails by chance


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def draw(**settings: float) -> ViewParameters:
    return draw_parameters(OURS, 224, ViewConfig(**settings), torch.Generator().manual_seed(1))


def sample(transform: v2.Transform, *names: str) -> list[torch.Tensor]:
    """What torchvision draws for a large image, by name."""
    image = torch.empty(1, 1, 1).expand(1, SIDE, SIDE)
    drawn = [transform.make_params([image]) for _ in range(THEIRS)]
    return [torch.tensor([float(np.ravel(d[name])[0]) for d in drawn], dtype=torch.float64) for name in names]


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > SIGNIFICANT


def boxes_agree(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    """Whether top, left, height, width, as shares of the side, are alike; so are area, aspect and place in the room."""

    def properties(top, left, height, width):
        room = (height < 0.99) & (width < 0.99)
        place = [top[room] / (1 - height[room]), left[room] / (1 - width[room])]
        return [top, left, height, width, height * width, torch.log(width / height), *place]

    pairs = zip(properties(*ours), properties(*theirs), strict=True)
    return all(agree(a, b) for a, b in pairs)


def crops_of_both(low: float, high: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    names = ("top", "left", "height", "width")
    p = draw(crop_min=low, crop_max=high)
    theirs = sample(v2.RandomResizedCrop(224, scale=(low, high)), *names)
    return [getattr(p, name) for name in names], [values / SIDE for values in theirs]


def test_crops_are_random_resized_crops():
    assert boxes_agree(*crops_of_both(0.2, 0.7))  # none of these can be longer than the image


def test_crops_longer_than_the_image_are_clamped_where_torchvision_draws_again():
    ours, theirs = crops_of_both(0.5, 1.0)
    assert not boxes_agree(ours, theirs)
    fits = (ours[2] < 1) & (ours[3] < 1)
    assert 0.1 < 1 - fits.float().mean() < 0.5
    assert boxes_agree([values[fits] for values in ours], theirs)


def test_angles_are_random_rotations():
    (theirs,) = sample(v2.RandomRotation(12), "angle")
    assert agree(torch.rad2deg(draw(rotation=12).angle), theirs)


@pytest.mark.parametrize(("brightness", "contrast"), [(0.4, 0.2), (1.5, 1.2)])
def test_factors_are_those_of_color_jitter(brightness, contrast):
    p = draw(brightness=brightness, contrast=contrast, intensity_p=1)
    theirs = sample(v2.ColorJitter(brightness, contrast), "brightness_factor", "contrast_factor")
    assert agree(p.brightness, theirs[0])
    assert agree(p.contrast, theirs[1])


def test_sigmas_are_those_of_gaussian_blur():
    (theirs,) = sample(v2.GaussianBlur(17, (0.1, 1.5)), "sigma")
    sigma = draw(blur=1, blur_sigma=1.5).sigma
    assert agree(sigma, theirs)
    half = draw_parameters(OURS, 112, ViewConfig(blur=1, blur_sigma=1.5), torch.Generator().manual_seed(1)).sigma
    torch.testing.assert_close(2 * half, sigma)


def test_cutouts_are_random_erasings():
    p = draw(cutout=1, cutout_area=0.3)
    theirs = sample(v2.RandomErasing(scale=(0.02, 0.3), ratio=(0.5, 2.0), value=0), "i", "j", "h", "w")
    assert boxes_agree([p.cut_top, p.cut_left, p.cut_height, p.cut_width], [values / SIDE for values in theirs])


def test_gamma_and_noise_follow_their_formula():
    p = draw(gamma=0.3, intensity_p=1, noise=0.05)
    assert stats.kstest(p.gamma.log().numpy(), stats.uniform(-0.3, 0.6).cdf).pvalue > SIGNIFICANT
    assert stats.kstest(p.noise.numpy(), stats.uniform(0, 0.05).cdf).pvalue > SIGNIFICANT


def test_an_augmentation_happens_as_often_as_asked():
    p = draw(flip=0.3, intensity_p=0.8, blur=0.4, cutout=0.1)
    for happened, probability in (
        (p.mirrored > 0, 0.3),
        (p.brightness != 1, 0.8),
        (p.sigma > 0, 0.4),
        (p.cut_height > 0, 0.1),
    ):
        assert stats.binomtest(int(happened.sum()), OURS, probability).pvalue > SIGNIFICANT
    assert torch.equal(p.brightness != 1, p.contrast != 1)
    assert torch.equal(p.cut_height > 0, p.cut_width > 0)


def test_parameters_are_drawn_independently_of_each_other():
    p = draw(crop_min=0.2, crop_max=0.7, flip=0.5, intensity_p=1, blur=1, cutout=1)
    columns = {f.name: getattr(p, f.name).numpy() for f in fields(p)}
    for box in ("", "cut_"):  # of the parts that are drawn; sides share an area, and the place depends on them
        height, width = columns.pop(f"{box}height"), columns.pop(f"{box}width")
        columns[f"{box}top"] = columns[f"{box}top"] / (1 - height)
        columns[f"{box}left"] = columns[f"{box}left"] / (1 - width)
        columns |= {f"{box}area": height * width, f"{box}aspect": width / height}
    ranks = stats.spearmanr(np.stack(list(columns.values()), axis=1)).statistic
    np.fill_diagonal(ranks, 0)
    assert np.abs(ranks).max() < 4.5 / math.sqrt(OURS)
