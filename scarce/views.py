"""Batched augmentation: two random views of a batch of X-rays, on whatever device the batch lies.

Every image of a batch gets its own parameters. They are drawn on the CPU from a seed and applied to all images at once,
so a batch costs a handful of kernels instead of a Python loop over images.

Cropping is `torchvision.transforms.v2.RandomResizedCrop` with its anti-aliased bilinear filter: a crop and a resize are
linear and separable, so each is a weighted sum of a few rows, then of a few columns. Plain bilinear would alias
whenever a crop is shrunk. Brightness and contrast follow torchvision's `ColorJitter`.
"""

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.resample import blur_taps, combine_lines, resize_taps
from scarce.space import Choice, Dimension, Float
from scarce.transfer import to_device

INPUT_MEAN, INPUT_STD = 0.5, 0.25  # of intensities in [0, 1]; fixed, so that no dataset leaks into another
_CHUNK = 2**19  # pixels of views that a CPU thread makes at once, so that a step finds in the cache what the last wrote


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
        for name in ("flip", "intensity_p", "blur", "cutout", "cutout_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"need {name} in [0, 1], got {getattr(self, name)}")
        if not self.aspect >= 1:
            raise ValueError(f"need aspect >= 1, got {self.aspect}")


NO_AUGMENTATION = ViewConfig(
    crop_min=1, aspect=1, rotation=0, flip=0, brightness=0, contrast=0, gamma=0, intensity_p=0, blur=0, noise=0,
    cutout=0,
)  # fmt: skip

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
    """One random view of each of B images: float32 tensors [B].

    Positions and sides of boxes are shares of the image or view side, in [0, 1]. `sigma` stays on the CPU, which then
    knows without asking the device which views to blur, and how far.
    """

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
        """The parameters on another device, all but `sigma`."""
        names = [f.name for f in fields(self) if f.name != "sigma"]
        moved = to_device(torch.stack([getattr(self, name) for name in names]), device)  # one copy
        return ViewParameters(**dict(zip(names, moved, strict=True)), sigma=self.sigma)


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
        parameters: of the B views, on the device of `images` (`ViewParameters.to`).
        noise: generator of the pixel noise, on the device of `images`.

    Returns:
        float32 [B, 1, image_size, image_size], normalised as `to_input` does.
    """
    out = torch.empty(len(images), 1, image_size, image_size, device=images.device)
    taps = _crop_taps(images.shape[1:], image_size, config.rotation, parameters)
    on_cpu = images.device.type == "cpu"
    step = max(1, _CHUNK // image_size**2) if on_cpu else max(1, len(images))

    parts = (slice(start, min(start + step, len(images))) for start in range(0, len(images), step))
    turn = Lock()

    def make() -> None:
        while True:
            with turn:  # whichever thread takes a chunk, its noise is the generator's next
                part = next(parts, None)
                if part is None:
                    return
                drawn = _draw_noise(part.stop - part.start, image_size, noise) if config.noise > 0 else None
            x = _crop(images[part].float(), *(t[part] for t in taps))
            x = _augment(x, image_size, config, parameters.rows(part), drawn)
            torch.sub(x.unsqueeze(1), INPUT_MEAN, out=out[part]).div_(INPUT_STD)

    threads = torch.get_num_threads()
    if not on_cpu or threads == 1 or len(images) <= step:
        make()
        return out
    # A thread a chunk: operations are so short that threads which share each of them mostly wait for each other.
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for made in [pool.submit(make) for _ in range(threads)]:
                made.result()
    finally:
        torch.set_num_threads(threads)  # threads that start later would have one as well
    return out


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


def _augment(x: Tensor, image_size: int, config: ViewConfig, p: ViewParameters, draws: Tensor | None) -> Tensor:
    """What follows the crop: intensities [B, side, side] in [0, 1] to those of the view. May overwrite its input."""
    x = _rotate(x, image_size, p.angle) if config.rotation > 0 else x.contiguous()
    if config.intensity_p > 0:
        x = _change_intensity(x, p)
    if config.blur > 0:
        x = _blur(x, p.sigma)
    if draws is not None:
        x += _normal(draws, x.shape) * _column(p.noise)
    if config.cutout > 0:
        x = _cut_out(x, p)
    return x


def _crop_taps(shape: torch.Size, image_size: int, rotation: float, p: ViewParameters) -> tuple[Tensor, ...]:
    """What `_crop` needs to crop and resize images of a shape: rows and their weights, columns and theirs.

    With a rotation to follow, so much more is cropped that its corners are anatomy, not black.
    """
    angle = math.radians(min(rotation, 45))
    side = math.ceil(image_size * (math.cos(angle) + math.sin(angle)))
    margin = (side / image_size - 1) / 2

    def taps(start: Tensor, length: Tensor, source: int, mirrored: Tensor | float) -> tuple[Tensor, Tensor]:
        start, length = (start - margin * length) * source, (1 + 2 * margin) * length * source
        longest = (1 + 2 * margin) * source
        return resize_taps(start + mirrored * length, (1 - 2 * mirrored) * length, source, side, longest)

    high, wide = shape
    rows, weights = taps(p.top, p.height, high, 0.0)
    return rows, weights / 255, *taps(p.left, p.width, wide, p.mirrored)


def _crop(images: Tensor, rows: Tensor, row_weights: Tensor, columns: Tensor, column_weights: Tensor) -> Tensor:
    """Of float32 images in [0, 255] intensities in [0, 1]; rows are columns in memory, as the last sum left them."""
    lines = combine_lines(images, rows, row_weights)
    return combine_lines(lines.transpose(1, 2), columns, column_weights).transpose(1, 2)


def _rotate(x: Tensor, image_size: int, angle: Tensor) -> Tensor:
    line = (torch.arange(image_size, device=x.device) * 2 + 1) / image_size - 1
    scale = image_size / x.shape[1]
    along, across = scale * angle.cos()[:, None] * line, scale * angle.sin()[:, None] * line
    grid = torch.empty(len(x), 2, image_size, image_size, device=x.device)
    torch.sub(along[:, None, :], across[:, :, None], out=grid[:, 0])
    torch.add(across[:, None, :], along[:, :, None], out=grid[:, 1])
    grid = grid.permute(0, 2, 3, 1)
    return F.grid_sample(x.unsqueeze(1), grid, padding_mode="border", align_corners=False).squeeze(1)


def _change_intensity(x: Tensor, p: ViewParameters) -> Tensor:
    contrast = _column(p.contrast)
    x = x.mul_(_column(p.brightness)).clamp_(0, 1)
    mean = x.mean(dim=(1, 2), keepdim=True)
    x = x.mul_(contrast).add_(mean * (1 - contrast)).clamp_(1e-6, 1)
    return x.log2_().mul_(_column(p.gamma)).exp2_()  # a power, in half its time


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with each view's own sigma, of the views that have one."""
    blurred = sigma.nonzero().squeeze(1)
    if len(blurred) == 0:
        return x
    longest = float(sigma.max())
    taps = blur_taps(to_device(sigma[blurred], x.device), x.shape[1], longest)
    blurred = to_device(blurred, x.device)
    rows = combine_lines(x[blurred], *taps)
    x[blurred] = combine_lines(rows.transpose(1, 2), *taps).transpose(1, 2)
    return x


@functools.cache
def _quantiles() -> Tensor:
    return torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16).float()


def _draw_noise(count: int, image_size: int, generator: torch.Generator) -> Tensor:
    """What `_normal` makes the noise of so many views of: on a CPU random bits, of which a pixel needs 16."""
    if generator.device.type != "cpu":
        return torch.randn(count, image_size, image_size, generator=generator, device=generator.device)
    bits = torch.empty(count, math.ceil(image_size**2 / 4), dtype=torch.int64)
    return bits.random_(-(2**63), None, generator=generator)


def _normal(draws: Tensor, shape: torch.Size) -> Tensor:
    """Standard normal numbers [B, S, S]; on a CPU one of 65,536 quantiles each, a third of the time of `randn`."""
    if draws.is_floating_point():
        return draws
    index = draws.view(torch.uint16)[:, : shape[1] * shape[2]].int()
    return _quantiles().index_select(0, index.flatten()).view(shape)


def _cut_out(x: Tensor, p: ViewParameters) -> Tensor:
    line = (torch.arange(x.shape[1], device=x.device) + 0.5) / x.shape[1]
    rows = (line >= p.cut_top[:, None]) & (line < (p.cut_top + p.cut_height)[:, None])
    columns = (line >= p.cut_left[:, None]) & (line < (p.cut_left + p.cut_width)[:, None])
    hole = rows[:, :, None].float() * columns[:, None, :].float()
    return x.lerp_(x.mean(dim=(1, 2), keepdim=True), hole)
