import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from scarce.views import (
    SEARCH_SPACE,
    ViewConfig,
    ViewParameters,
    draw_parameters,
    make_views,
    resize,
    to_input,
)

OFF = ViewConfig(crop_min=1, aspect=1, rotation=0, flip=0, intensity_p=0, blur=0, noise=0, cutout=0)


def pictures(count: int = 4, size: int = 48) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def smooth(count: int = 2, size: int = 96) -> torch.Tensor:
    line = torch.linspace(0, 3, size)
    return torch.stack([100 + 60 * torch.sin(line[:, None] * (k + 1)) * torch.cos(2 * line) for k in range(count)])


def views(images: torch.Tensor, size: int, config: ViewConfig, seed: int = 0) -> torch.Tensor:
    parameters = draw_parameters(len(images), size, config, torch.Generator().manual_seed(seed))
    return make_views(images, size, config, parameters, torch.Generator().manual_seed(seed))


def set_parameters(base: ViewParameters, **values: float) -> ViewParameters:
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return ViewParameters(**fields | {name: torch.full_like(base.top, value) for name, value in values.items()})


def test_all_off_is_a_resize():
    images = pictures()
    torch.testing.assert_close(views(images, 48, OFF), to_input(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(views(images, 20, OFF), to_input(resize(images, 20)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [16, 40, 64])
def test_crop_is_torchvisions_antialiased_resized_crop(size):
    image = smooth(1)
    config = replace(OFF, crop_min=0.2)
    base = draw_parameters(1, size, config, torch.Generator())
    top, left, height, width = 12, 24, 48, 60
    parameters = set_parameters(base, top=top / 96, left=left / 96, height=height / 96, width=width / 96)
    ours = make_views(image, size, config, parameters, torch.Generator())[0, 0]
    theirs = to_input(tv.resized_crop(image, top, left, height, width, [size, size], antialias=True))[0, 0]
    # torchvision cuts first, so its filter misses the neighbours beyond the crop's edge: compare inside.
    edge = math.ceil(2 * size / 48)
    inside = slice(edge, -edge)
    torch.testing.assert_close(ours[inside, inside], theirs[inside, inside], atol=2e-4, rtol=0)


def test_brightness_contrast_and_gamma_are_torchvisions():
    image = smooth(1)
    config = replace(OFF, intensity_p=1.0)
    base = draw_parameters(1, 96, config, torch.Generator())
    parameters = set_parameters(base, brightness=1.3, contrast=0.7, gamma=1.2)
    ours = make_views(image, 96, config, parameters, torch.Generator())[0]
    expected = tv.adjust_brightness(image / 255, 1.3)
    expected = tv.adjust_gamma(tv.adjust_contrast(expected[:, None], 0.7)[:, 0], 1.2)
    torch.testing.assert_close(ours, to_input(expected * 255)[0], atol=1e-4, rtol=0)


def test_blur_is_torchvisions_away_from_the_border():
    image = pictures(1)
    config = replace(OFF, blur=1.0)
    parameters = set_parameters(draw_parameters(1, 48, config, torch.Generator()), sigma=1.5)
    ours = make_views(image, 48, config, parameters, torch.Generator())
    theirs = to_input(tv.gaussian_blur(image.float(), [21, 21], [1.5, 1.5]))
    torch.testing.assert_close(ours[..., 12:-12, 12:-12], theirs[..., 12:-12, 12:-12], atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [-15.0, 10.0])
def test_rotation_turns_by_its_angle_and_shows_no_black_corner(degrees):
    image = smooth(1)
    config = replace(OFF, crop_min=0.3, rotation=15.0)
    base = draw_parameters(1, 48, config, torch.Generator())
    place = {"top": 0.25, "left": 0.25, "height": 0.5, "width": 0.5, "mirrored": 0.0}
    turned = make_views(
        image, 48, config, set_parameters(base, **place, angle=math.radians(degrees)), torch.Generator()
    )
    whole = tv.rotate(image, degrees, interpolation=tv.InterpolationMode.BILINEAR)[:, 24:72, 24:72]
    # A crop at the image's own resolution, so rotating first and cropping after must agree.
    torch.testing.assert_close(turned, to_input(whole), atol=0.05, rtol=0)


def test_flip_mirrors():
    image = pictures(1)
    config = replace(OFF, flip=1.0)
    torch.testing.assert_close(views(image, 48, config), to_input(image.flip(2)), atol=1e-5, rtol=0)


def test_cutout_fills_a_rectangle_with_the_mean():
    image = pictures(1)
    config = replace(OFF, cutout=1.0)
    parameters = set_parameters(
        draw_parameters(1, 48, config, torch.Generator()), cut_top=0.25, cut_left=0.5, cut_height=0.25, cut_width=0.25
    )
    cut = make_views(image, 48, config, parameters, torch.Generator())[0, 0]
    plain = to_input(image)[0, 0]
    hole = torch.zeros(48, 48, dtype=torch.bool)
    hole[12:24, 24:36] = True
    torch.testing.assert_close(cut[hole], plain.mean().expand(144), atol=1e-5, rtol=0)
    torch.testing.assert_close(cut[~hole], plain[~hole], atol=1e-6, rtol=0)


def test_noise_has_the_drawn_deviation():
    image = torch.full((64, 64, 64), 128.0)
    config = replace(OFF, noise=0.1)
    parameters = draw_parameters(64, 64, config, torch.Generator().manual_seed(0))
    noisy = make_views(image, 64, config, parameters, torch.Generator().manual_seed(0))
    measured = noisy.std(dim=(1, 2, 3)) * 0.25
    torch.testing.assert_close(measured, parameters.noise, atol=0.005, rtol=0)
    assert parameters.noise.min() < 0.02 < 0.08 < parameters.noise.max()


def test_every_image_has_its_own_parameters_and_a_seed_repeats_them():
    image = pictures(1).expand(6, -1, -1)
    first, again, other = (views(image, 32, ViewConfig(cutout=0.5), seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert min((first[i] - first[j]).abs().max() for i in range(6) for j in range(i)) > 0.01


def test_parameters_do_not_depend_on_the_rest_of_the_batch():
    images, config = pictures(6), ViewConfig(noise=0)
    parameters = draw_parameters(6, 32, config, torch.Generator().manual_seed(0))
    whole = make_views(images, 32, config, parameters, torch.Generator())
    part = make_views(images[2:4], 32, config, parameters.rows(slice(2, 4)), torch.Generator())
    torch.testing.assert_close(whole[2:4], part, atol=1e-5, rtol=0)


def test_drawn_parameters_keep_to_their_ranges():
    config = ViewConfig(crop_min=0.08, rotation=10, brightness=0.8, contrast=0.8, gamma=0.3, blur=0.5, cutout=0.4)
    p = draw_parameters(20_000, 224, config, torch.Generator().manual_seed(0))
    assert (p.top >= 0).all()
    assert (p.top + p.height <= 1 + 1e-6).all()
    assert (p.left + p.width <= 1 + 1e-6).all()
    assert p.angle.abs().max() <= math.radians(10)
    assert p.brightness.min() >= 0.2 - 1e-6
    assert p.brightness.max() <= 1.8 + 1e-6
    assert (p.brightness == 1).float().mean().item() == pytest.approx(1 - config.intensity_p, abs=0.02)
    assert (p.sigma > 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert p.sigma.max() <= 2.0
    assert (p.cut_height > 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    unclamped = (p.height < 1) & (p.width < 1)
    area = (p.height * p.width)[unclamped]
    assert area.min() >= 0.079
    ratio = (p.width / p.height)[unclamped]
    assert ratio.min() > 0.74
    assert ratio.max() < 1.34


def dense_crop(images: Tensor, size: int, side: int, p: ViewParameters) -> Tensor:
    """Crop and resize by a matrix a side, with a weight for every pixel of the image."""
    margin = (side / size - 1) / 2

    def weights(start: Tensor, length: Tensor, source: int) -> Tensor:
        step = ((1 + 2 * margin) * length * source / side)[:, None]
        centre = ((start - margin * length) * source)[:, None] + (torch.arange(side) + 0.5) * step
        distance = torch.arange(source) + 0.5 - centre.clamp(0.5, source - 0.5)[:, :, None]
        dense = (1 - distance.abs() / step[:, :, None].clamp(min=1)).clamp(min=0)
        return dense / dense.sum(dim=2, keepdim=True)

    rows, columns = (weights(*box) for box in ((p.top, p.height, images.shape[1]), (p.left, p.width, images.shape[2])))
    columns = torch.where(p.mirrored[:, None, None] > 0, columns.flip(1), columns)
    return rows @ (images.float() / 255) @ columns.transpose(1, 2)


def slow_views(images: Tensor, size: int, config: ViewConfig, p: ViewParameters) -> Tensor:
    """`make_views` without noise, in dense matrices and one plain operation after the other, each on every view."""

    def column(values: Tensor) -> Tensor:
        return values[:, None, None]

    turn = math.radians(min(config.rotation, 45))
    x = dense_crop(images, size, math.ceil(size * (math.cos(turn) + math.sin(turn))), p)
    cos, sin, zero = (size / x.shape[1] * v for v in (p.angle.cos(), p.angle.sin(), torch.zeros_like(p.angle)))
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrix, [len(x), 1, size, size], align_corners=False)
    x = F.grid_sample(x.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)
    x = (x * column(p.brightness)).clamp(0, 1)
    mean = x.mean(dim=(1, 2), keepdim=True)
    x = ((x - mean) * column(p.contrast) + mean).clamp(0, 1)
    x = x.clamp(min=1e-6) ** column(p.gamma)
    line = torch.arange(size)
    band = torch.exp(-0.5 * ((line[:, None] - line) / column(p.sigma).clamp(min=1e-3)) ** 2)
    band = band / band.sum(dim=2, keepdim=True)
    x = band @ x @ band.transpose(1, 2)
    line = (line + 0.5) / size
    rows = (line >= p.cut_top[:, None]) & (line < (p.cut_top + p.cut_height)[:, None])
    columns = (line >= p.cut_left[:, None]) & (line < (p.cut_left + p.cut_width)[:, None])
    x = torch.where(rows[:, :, None] & columns[:, None, :], x.mean(dim=(1, 2), keepdim=True), x)
    return (x.unsqueeze(1) - 0.5) / 0.25


ALL = ViewConfig(crop_min=0.1, flip=0.5, brightness=0.6, contrast=0.6, gamma=0.5, blur=0.5, noise=0, cutout=0.5)


@pytest.mark.parametrize(
    ("size", "shape", "config"),
    [
        (48, (48, 48), ALL),
        (224, (256, 256), ALL),
        (33, (100, 70), ALL),  # neither square nor even, and shrunk
        (64, (20, 20), replace(ALL, rotation=70)),  # enlarged, and turned further than a corner
        (32, (32, 32), replace(ALL, rotation=0, blur=1)),
        (16, (300, 300), replace(ALL, crop_min=1)),
        (12, (40, 40), replace(ALL, blur=1, blur_sigma=80)),  # wider than the view
    ],
)
def test_views_are_those_of_dense_matrices(size, shape, config):
    images = torch.randint(0, 256, (9, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    parameters = draw_parameters(9, size, config, torch.Generator().manual_seed(2))
    ours = make_views(images, size, config, parameters, torch.Generator())
    slow = slow_views(images, size, config, parameters)
    torch.testing.assert_close(ours, slow, atol=4e-4, rtol=0)  # 1e-4 of intensity


def test_images_are_left_as_they_were():
    images = pictures().float()
    before = images.clone()
    views(images, 48, ALL)
    assert torch.equal(images, before)


def test_views_do_not_depend_on_the_number_of_threads():
    images, threads = pictures(40), torch.get_num_threads()
    try:
        made = []
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            made.append(views(images, 160, replace(ALL, noise=0.05)))
            with ThreadPoolExecutor(1) as pool:  # what starts later has as many as before, too
                assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_noise_is_normal_and_its_own_in_every_pixel():
    image = torch.full((2, 301, 301), 128.0)
    config = replace(OFF, noise=0.1)
    parameters = set_parameters(draw_parameters(2, 301, config, torch.Generator()), noise=0.1)
    noise = (make_views(image, 301, config, parameters, torch.Generator().manual_seed(0)) - to_input(image)) / 0.4
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01
    flat = noise.flatten(1)
    for shift in (1, 2, 3, 4, 301):  # four numbers are cut out of one random word
        assert torch.corrcoef(torch.stack([flat[0, shift:], flat[0, :-shift]]))[0, 1].abs() < 4 / 301
    assert torch.corrcoef(flat)[0, 1].abs() < 4 / 301


def test_the_strength_of_the_blur_stays_on_the_cpu():
    moved = draw_parameters(3, 32, ViewConfig(), torch.Generator()).to(torch.device("meta"))
    assert {name for name in moved.__dataclass_fields__ if getattr(moved, name).device.type == "cpu"} == {"sigma"}


def test_search_space_names_fields_and_holds_the_defaults():
    from scarce.study.optuna_space import to_distributions

    for name, distribution in to_distributions(SEARCH_SPACE).items():
        assert distribution._contains(distribution.to_internal_repr(getattr(ViewConfig(), name))), name


def test_bad_crop_is_refused():
    with pytest.raises(ValueError, match="crop_min"):
        ViewConfig(crop_min=0.9, crop_max=0.5)
