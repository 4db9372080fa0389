"""Two augmented views of a batch, against torchvision in two workers and against kornia.

    python benchmarks/views.py
    pip install --no-deps --target kornia_only kornia kornia_rs && PYTHONPATH=kornia_only python benchmarks/views.py

Of 256 one-channel 256 x 256 images two 224 x 224 views each, every augmentation on. Claimed: at least 3 times each
peer's images/s on two cores; on a GPU above 15,000 images/s, or at most 3 times the time its memory needs to read the
images and write the views.

torchvision: transforms v2 on uint8 tensors, image by image, in a DataLoader of two workers with one thread each.
kornia: its batched augmentations one after the other in `nn.Sequential`, which is faster than its
`AugmentationSequential`, with as many threads as ours, or on the same GPU: on the whole batch, and on 32 images at a
time, which was the fastest of 4, 8, 16, 32, 64 and 256 on a CPU. Left out where it can't be imported.

Each has a process of its own. All have the images decoded in memory, the same ranges and probabilities, and a blur that
reaches as far as ours. No peer widens the crop before it turns it, theirs have noise of one fixed strength, and
kornia's crop has no anti-aliasing, all of which is in their favour.

The stages are ours alone: what turning each one on adds to those before.
"""

import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from measure import OURS, OwnProcess, alternate, row
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from scarce.allocator import keep_freed_memory
from scarce.views import INPUT_MEAN, INPUT_STD, ViewConfig, draw_parameters, make_views

BATCH, BATCHES, SOURCE, SIZE, THREADS, REPEATS = 256, 4, 256, 224, 2, 4
CONFIG = ViewConfig(crop_min=0.2, flip=0.5, brightness=0.4, contrast=0.4, blur=0.5, cutout=0.5)
CROP, RATIO, CUTOUT = (CONFIG.crop_min, CONFIG.crop_max), (1 / CONFIG.aspect, CONFIG.aspect), (0.02, CONFIG.cutout_area)
KERNEL = 2 * math.ceil(4 * CONFIG.blur_sigma) + 1
STAGES = {
    "crop": (),
    "rotation": ("rotation",),
    "intensity": ("intensity_p",),
    "blur": ("blur",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class RandomGamma(v2.Transform):
    """torchvision has `adjust_gamma` and no random form of it."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """An exponent, log-uniform."""
        return {"gamma": math.exp(torch.empty(1).uniform_(-CONFIG.gamma, CONFIG.gamma).item())}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The image, raised to it."""
        return v2.functional.adjust_gamma(inpt, params["gamma"])


TORCHVISION = v2.Compose(
    [
        v2.RandomResizedCrop(SIZE, CROP, RATIO, antialias=True),
        v2.RandomHorizontalFlip(CONFIG.flip),
        v2.RandomRotation(CONFIG.rotation, v2.InterpolationMode.BILINEAR),
        v2.RandomApply([v2.ColorJitter(CONFIG.brightness, CONFIG.contrast), RandomGamma()], CONFIG.intensity_p),
        v2.RandomApply([v2.GaussianBlur(KERNEL, (0.1, CONFIG.blur_sigma))], CONFIG.blur),
        v2.ToDtype(torch.float32, scale=True),
        v2.GaussianNoise(sigma=CONFIG.noise / 2, clip=False),
        v2.RandomErasing(CONFIG.cutout, CUTOUT, (0.5, 2.0)),
        v2.Normalize([INPUT_MEAN], [INPUT_STD], inplace=True),
    ]
)


class TwoViews(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each image, as torchvision makes them: float32 [1, SIZE, SIZE]."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.unsqueeze(1)

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index % BATCH]
        return TORCHVISION(image), TORCHVISION(image)


def with_threads(make: Callable[..., Callable[[], float]], *arguments: Any) -> Callable[[], float]:
    """What `make` makes of the arguments, in a process with our number of threads and without gradients."""
    torch.set_num_threads(THREADS)
    return torch.no_grad()(make(*arguments))


def torchvision_rate(images: Tensor) -> Callable[[], float]:
    """Images/s of a DataLoader over `TwoViews`, up to the device."""
    loader = DataLoader(
        TwoViews(images),
        BATCH,
        num_workers=2,
        multiprocessing_context="fork",  # Linux's own, which a process that was spawned does not have
        persistent_workers=True,
        pin_memory=DEVICE.type == "cuda",
    )

    def batches() -> None:
        for views in loader:
            for view in views:
                view.to(DEVICE, non_blocking=True)

    return lambda: BATCH * BATCHES / seconds(batches)


def kornia_rate(images: Tensor, at_a_time: int) -> Callable[[], float]:
    """Images/s of kornia's batched augmentations on so many images at a time."""
    k = importlib.import_module("kornia.augmentation")
    brightness, contrast = (1 - CONFIG.brightness, 1 + CONFIG.brightness), (1 - CONFIG.contrast, 1 + CONFIG.contrast)
    gamma = (math.exp(-CONFIG.gamma), math.exp(CONFIG.gamma))
    augment = nn.Sequential(
        k.RandomResizedCrop((SIZE, SIZE), CROP, RATIO),
        k.RandomHorizontalFlip(p=CONFIG.flip),
        k.RandomRotation(CONFIG.rotation, p=1.0),
        k.RandomBrightness(brightness, p=CONFIG.intensity_p),
        k.RandomContrast(contrast, p=CONFIG.intensity_p),
        k.RandomGamma(gamma, p=CONFIG.intensity_p),
        k.RandomGaussianBlur((KERNEL, KERNEL), (0.1, CONFIG.blur_sigma), p=CONFIG.blur),
        k.RandomGaussianNoise(std=CONFIG.noise / 2, p=1.0),
        k.RandomErasing(CUTOUT, (0.5, 2.0), p=CONFIG.cutout),
    )
    images = images.to(DEVICE)

    def batches() -> None:
        for part in images.split(at_a_time):
            x = part.unsqueeze(1).float() / 255
            for _ in range(2):
                augment(x).sub_(INPUT_MEAN).div_(INPUT_STD)

    return lambda: BATCH / seconds(batches)


def our_rate(images: Tensor, config: ViewConfig = CONFIG) -> Callable[[], float]:
    """Images/s of `make_views`, parameters drawn anew for every view, in a process set up as for training."""
    if DEVICE.type == "cpu":
        keep_freed_memory()
    images = images.to(DEVICE)
    generator, noise = torch.Generator().manual_seed(0), torch.Generator(DEVICE).manual_seed(0)

    def batches() -> None:
        for _ in range(2 * BATCHES):
            parameters = draw_parameters(BATCH, SIZE, config, generator).to(DEVICE)
            make_views(images, SIZE, config, parameters, noise)

    return lambda: BATCH * BATCHES / seconds(batches)


def bound_rate(images: Tensor) -> Callable[[], float]:
    """Images/s if a view cost only reading the image and writing the view, by the rate of a copy of 256 MB."""
    source = torch.ones(2**26, device=DEVICE)
    target = torch.ones_like(source)
    a_view = images[0].nbytes + 4 * SIZE**2

    def rate() -> float:
        target.copy_(source)  # the system may have put them aside meanwhile
        return 2 * source.nbytes / seconds(lambda: target.copy_(source)) / a_view / 2

    return rate


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, until the device has done it."""
    synchronise = torch.cuda.synchronize if DEVICE.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def print_stages(images: Tensor) -> None:
    """What turning on one stage after the other adds, in microseconds a view."""
    off = dict.fromkeys((name for fields in STAGES.values() for name in fields), 0.0)
    rates = {}
    for name, fields in STAGES.items():
        off = {field: value for field, value in off.items() if field not in fields}
        rates[name] = our_rate(images, ViewConfig(**{**CONFIG.__dict__, **off}))
    times: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(REPEATS + 1):
        for name, rate in rates.items():
            times[name].append(1e6 / 2 / rate())
    before = 0.0
    for name, values in times.items():
        total = statistics.median(values[1:])
        print(f"  {name}: {total - before:.0f} us a view, {total:.0f} with those before", flush=True)
        before = total


@torch.no_grad()
def main() -> None:
    """Print the stages, and a row of the table for each peer."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    noise = torch.rand(BATCH, SOURCE, SOURCE)
    images = (255 * nn.functional.avg_pool2d(noise, 9, stride=1, padding=4)).to(torch.uint8)
    kornia = {"kornia, whole batch": BATCH, "kornia, 32 at a time": 32}
    makers: dict[str, tuple[Any, ...]] = {"torchvision": (torchvision_rate,), OURS: (our_rate,)}
    if importlib.util.find_spec("kornia"):
        makers |= {name: (kornia_rate, at_a_time) for name, at_a_time in kornia.items()}
    with ExitStack() as processes:
        rates: dict[str, Callable[[], float]] = {"a copy": bound_rate(images)}
        for name, (make, *more) in makers.items():
            rates[name] = processes.enter_context(OwnProcess(with_threads, make, images, *more))
        ratios = alternate(rates, REPEATS)
    print_stages(images)
    cores = f"{THREADS} threads" if DEVICE.type == "cpu" else "one GPU"
    claim = f"two {SIZE}-pixel views of {BATCH} images, every augmentation on, {cores}"
    copied = 1 / ratios.pop("a copy").median
    bound = f"copying as many bytes as are read and written takes 1/{copied:.0f} of our time"
    row(claim, "torchvision v2, 2 workers", ratios["torchvision"], "at least 3", bound)
    for name in kornia:
        row(claim, name, ratios.get(name, "not installed"), "at least 3", bound)
    if DEVICE.type == "cuda":
        median = statistics.median(ratios["torchvision"].ours)
        asked = "above 15,000 images/s, or at most 3 times the bound's time"
        row(claim, "memory bandwidth", f"{median:,.0f} images/s; {copied:.1f} times the time of the copy", asked, bound)


if __name__ == "__main__":
    main()
