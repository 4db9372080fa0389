"""Batched augmentation: two random views of a batch of X-rays, on whatever device the batch lies.

Every image of a batch gets its own parameters. They are drawn on the CPU from a seed and applied as batched matrix
products and element-wise operations, so a batch costs a handful of kernels instead of a Python loop over images.

Cropping is `torchvision.transforms.v2.RandomResizedCrop` with its anti-aliased bilinear filter: a crop and a resize are
linear and separable, so each is one weight matrix a side, and a view is `rows @ image @ columnsᵀ`. Plain bilinear
sampling would alias whenever a crop is shrunk. Brightness and contrast follow torchvision's `ColorJitter`.
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.space import Choice, Dimension, Float

INPUT_MEAN, INPUT_STD = 0.5, 0.25  # of intensities in [0, 1]; fixed, so that no dataset leaks into another


@dataclass(frozen=True)
class ViewConfig:
    """How strongly views differ from the image they come from. Zero turns an augmentation off."""

    crop_min: float = 0.5  # smallest crop, share of the image's area, in (0, 1]
    crop_max: float = 1.0  # largest crop, share of the image's area, in (0, 1]
    aspect: float = 4 / 3  # a crop's width/height lies in [1/aspect, aspect], log-uniform
    rotation: float = 10.0  # degrees; angles are uniform in [-rotation, rotation]
    flip: float = 0.0  # probability of mirroring left-right; a mirrored chest has its heart on the wrong side
    brightness: float = 0.2  # factor uniform in [1 - brightness, 1 + brightness]
    contrast: float = 0.2  # factor around the view's mean, uniform in [1 - contrast, 1 + contrast]
    gamma: float = 0.1  # exponent log-uniform in [exp(-gamma), exp(gamma)]
    intensity_p: float = 0.8  # probability of brightness, contrast and gamma
    blur: float = 0.1  # probability of a Gaussian blur
    blur_sigma: float = 2.0  # largest sigma, in pixels of a 224-pixel view (scaled with the view)
    noise: float = 0.03  # largest standard deviation of Gaussian noise, in intensities of [0, 1]
    cutout: float = 0.0  # probability of filling a rectangle with the view's mean
    cutout_area: float = 0.2  # largest rectangle, share of the view's area

    def __post_init__(self) -> None:
        if not 0 < self.crop_min <= self.crop_max <= 1:
            raise ValueError(f"need 0 < crop_min <= crop_max <= 1, got {self.crop_min} and {self.crop_max}")


SEARCH_SPACE: dict[str, Dimension] = {
    "crop_min": Float(0.08, 0.8),
    "rotation": Float(0.0, 20.0),
    "flip": Choice((0.0, 0.5)),
    "brightness": Float(0.0, 0.8),
    "contrast": Float(0.0, 0.8),
    "gamma": Float(0.0, 0.5),
    "blur": Float(0.0, 0.8),
    "noise": Float(0.0, 0.1),
    "cutout": Float(0.0, 0.5),
}


@dataclass(frozen=True)
class ViewParameters:
    """One random view of each of B images: float32 tensors [B]. Positions are shares of the image or view side."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor  # 0 or 1
    angle: Tensor  # radians
    brightness: Tensor  # factor
    contrast: Tensor  # factor
    gamma: Tensor  # exponent
    sigma: Tensor  # pixels of the view; 0 is no blur
    noise: Tensor  # standard deviation
    cut_top: Tensor
    cut_left: Tensor
    cut_height: Tensor  # 0 is no cut-out
    cut_width: Tensor

    def rows(self, index: slice) -> "ViewParameters":
        """The parameters of some of the images."""
        return ViewParameters(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device) -> "ViewParameters":
        """The parameters on another device."""
        return ViewParameters(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def draw_parameters(count: int, image_size: int, config: ViewConfig, generator: torch.Generator) -> ViewParameters:
    """Draw the parameters of `count` views of `image_size` pixels from a CPU `generator`.

    Drawn on the CPU whatever the training device, so that a seed means the same views everywhere. Unlike torchvision,
    which redraws a crop that sticks out of the image and finally gives up, a side longer than the image is clamped.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    def happens(probability: float) -> Tensor:
        return (torch.rand(count, generator=generator) < probability).float()

    def box(area: Tensor, aspect: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ratio = torch.exp(uniform(-math.log(aspect), math.log(aspect)))
        height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
        return uniform(0, 1) * (1 - height), uniform(0, 1) * (1 - width), height, width

    top, left, height, width = box(uniform(config.crop_min, config.crop_max), config.aspect)
    cut_top, cut_left, cut_height, cut_width = box(uniform(0.02, max(0.02, config.cutout_area)), 2.0)
    jitter, cut = happens(config.intensity_p), happens(config.cutout)
    return ViewParameters(
        top=top,
        left=left,
        height=height,
        width=width,
        mirrored=happens(config.flip),
        angle=torch.deg2rad(uniform(-config.rotation, config.rotation)),
        brightness=1 + jitter * uniform(-min(config.brightness, 1), config.brightness),
        contrast=1 + jitter * uniform(-min(config.contrast, 1), config.contrast),
        gamma=torch.exp(jitter * uniform(-config.gamma, config.gamma)),
        sigma=happens(config.blur) * uniform(0.1, max(0.1, config.blur_sigma)) * image_size / 224,
        noise=uniform(0, config.noise),
        cut_top=cut_top,
        cut_left=cut_left,
        cut_height=cut * cut_height,
        cut_width=cut * cut_width,
    )


def make_views(
    images: Tensor, image_size: int, config: ViewConfig, parameters: ViewParameters, noise: torch.Generator
) -> Tensor:
    """One view of each image.

    Args:
        images: uint8 or float32 in [0, 255], [B, H, W].
        image_size: side of the views in pixels.
        config: only says which augmentations are off altogether, to skip them.
        parameters: of the B views, on the device of `images`.
        noise: generator of the pixel noise, on the device of `images`.

    Returns:
        float32 [B, 1, image_size, image_size], normalised as `to_input` does.
    """
    x = _crop(images.float() / 255, image_size, config.rotation, parameters)
    if config.rotation > 0:
        x = _rotate(x, image_size, parameters.angle)
    if config.intensity_p > 0:
        x = (x * _column(parameters.brightness)).clamp(0, 1)
        mean = x.mean(dim=(1, 2), keepdim=True)
        x = ((x - mean) * _column(parameters.contrast) + mean).clamp(0, 1)
        x = x.clamp(min=1e-6).pow(_column(parameters.gamma))
    if config.blur > 0:
        x = _blur(x, parameters.sigma)
    if config.noise > 0:
        x = x + _column(parameters.noise) * torch.randn(x.shape, generator=noise, device=x.device)
    if config.cutout > 0:
        x = _cut_out(x, parameters)
    return _normalise(x)


def to_input(images: Tensor) -> Tensor:
    """What a backbone sees of whole images: uint8 or float32 [N, H, W] in [0, 255] to float32 [N, 1, H, W]."""
    return _normalise(images.float() / 255)


def resize(images: Tensor, image_size: int) -> Tensor:
    """Resize whole images [N, H, W] to squares of `image_size`, anti-aliased; float32, same range as the input."""
    if images.shape[1:] == (image_size, image_size):
        return images.float()
    size = (image_size, image_size)
    return F.interpolate(images.float().unsqueeze(1), size=size, mode="bilinear", antialias=True).squeeze(1)


def _normalise(x: Tensor) -> Tensor:
    return ((x - INPUT_MEAN) / INPUT_STD).unsqueeze(1)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]


def resample_weights(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Weights [B, target, source] that resize the span [start, start + length) of a line to `target` pixels.

    `start` and `length` [B] are in source pixels and may reach beyond the line, whose end pixels are then repeated.
    The filter is the triangle of Pillow and torchvision, widened by the reduction factor when shrinking.
    """
    step = (length / target)[:, None]
    centre = start[:, None] + (torch.arange(target, device=start.device) + 0.5) * step
    centre = centre.clamp(0.5, source - 0.5)
    pixel = torch.arange(source, device=start.device) + 0.5
    distance = (pixel - centre[:, :, None]).abs() / step[:, :, None].clamp(min=1)
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def _crop(images: Tensor, image_size: int, rotation: float, p: ViewParameters) -> Tensor:
    """Crop and resize. With a rotation to follow, crop so much more that its corners are anatomy, not black."""
    angle = math.radians(min(rotation, 45))
    side = math.ceil(image_size * (math.cos(angle) + math.sin(angle)))
    margin = (side / image_size - 1) / 2
    high, wide = images.shape[1:]
    rows = resample_weights((p.top - margin * p.height) * high, (1 + 2 * margin) * p.height * high, high, side)
    columns = resample_weights((p.left - margin * p.width) * wide, (1 + 2 * margin) * p.width * wide, wide, side)
    columns = torch.where(_column(p.mirrored).bool(), columns.flip(1), columns)
    return rows @ images @ columns.transpose(1, 2)


def _rotate(x: Tensor, image_size: int, angle: Tensor) -> Tensor:
    scale = image_size / x.shape[1]
    cos, sin, zero = scale * angle.cos(), scale * angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrix, [len(x), 1, image_size, image_size], align_corners=False)
    return F.grid_sample(x.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with each view's own sigma, as one band matrix a view (rows and columns share it)."""
    line = torch.arange(x.shape[1], device=x.device)
    distance = (line[:, None] - line[None, :]).float()
    band = torch.exp(-0.5 * (distance / _column(sigma).clamp(min=1e-3)) ** 2)
    band = band / band.sum(dim=2, keepdim=True)
    return band @ x @ band.transpose(1, 2)


def _cut_out(x: Tensor, p: ViewParameters) -> Tensor:
    line = (torch.arange(x.shape[1], device=x.device) + 0.5) / x.shape[1]
    rows = (line >= p.cut_top[:, None]) & (line < (p.cut_top + p.cut_height)[:, None])
    columns = (line >= p.cut_left[:, None]) & (line < (p.cut_left + p.cut_width)[:, None])
    return torch.where(rows[:, :, None] & columns[:, None, :], x.mean(dim=(1, 2), keepdim=True), x)
