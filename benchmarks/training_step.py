"""Claim: a training step, from pixels to updated weights, takes less than lightly's modules in a plain AMP loop take.

MoCo v2 with a ResNet-50 and a queue of 65,536, Barlow Twins with a ResNet-18, SparK with a ResNet-50. At least 2.5
times the images/s on a CUDA GPU (224 px, batches of 384, 512 and 256, bfloat16), and ResNet-50 at 45% of the card's own
matrix-product rate or more; at least 1.5 times on a CPU (64 px, the same batches, float32).

The peer (lightly_peers.py) is written as lightly's examples are: PNG files through lightly's transforms in a
DataLoader's workers, torchvision's backbones, lightly's heads, losses and memory bank, in the same autocast. Both sides
have the same images, batch, optimiser, widths, queue and augmentations, and all cores. Ours is what the training loop
does: pixels out of memory, batched views, one channel. Each trains in a process of its own, as how memory is given back
is a setting of the process, and waits while the other is measured. Both train on from repeat to repeat, so that their
loss curves can be compared: over 200 steps on a GPU. (Step by step, `tests/methods/test_lightly.py` compares them.)

    python benchmarks/training_step.py                     # on the GPU, if there is one; else on the CPU, in 75 s
    python benchmarks/training_step.py --full              # on the CPU with the batches of the GPU, in 10 minutes
    python benchmarks/training_step.py --methods moco_plain --steps 10 --batch 128
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightly_peers
import numpy as np
import torch
import torch.nn.functional as F
from measure import OURS, OwnProcess, alternate, row
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scarce.config import PretrainConfig
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.pixels import Pixels
from scarce.data.store import open_dataset
from scarce.methods import REGISTRY
from scarce.pretrain import Recipe, build_method, build_optimiser, next_views, set_up, train_step
from scarce.views import ViewConfig

# What lightly's transforms can do too. The strengths are the reference runs'.
VIEWS = ViewConfig(
    crop_min=0.08, rotation=10, flip=0.5, brightness=0.8, contrast=0.8, gamma=0, blur=0.5, noise=0, cutout=0
)
METHODS = {"moco_plain": ("resnet50", 384), "barlow_twins": ("resnet18", 512), "spark": ("resnet50", 256)}
CPU_BATCH = 64  # where there is no time for theirs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=50 if on_gpu else 2, help="a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--batch", type=int, default=0, help="images a step; 0: the claim's, on a CPU without --full 64"
    )
    parser.add_argument("--full", action="store_true", help="the claim's batches on a CPU too")
    parser.add_argument("--image-size", type=int, default=224 if on_gpu else 64)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="of the peer's DataLoader")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16" if on_gpu else "float32")
    arguments = parser.parse_args()
    device = torch.device("cuda" if on_gpu else "cpu")

    images = phantom_images(patients=24)
    what, rate = measured_rate(device)
    for name in arguments.methods:
        backbone, large = METHODS[name]
        batch = arguments.batch or (large if on_gpu or arguments.full else CPU_BATCH)
        config = PretrainConfig(
            method=name,
            backbone=backbone,
            image_size=arguments.image_size,
            batch_size=batch,
            precision=arguments.precision,
        )
        recipe = Recipe(config, REGISTRY[name].Config(), REGISTRY[name].OPTIMISER, VIEWS)
        operations = step_operations(recipe, images, device)
        peer = f"lightly's modules, {arguments.workers} workers" if name != "spark" else "the authors' way"
        title = f"{name}, {backbone}, {config.image_size} px, batch {batch}, {arguments.precision}"
        print(title, flush=True)
        given = (runs_of, recipe, images, arguments.steps, device)
        with OwnProcess(*given) as ours, OwnProcess(*given, arguments.workers) as peers:
            sides = {OURS: Side(ours), peer: Side(peers)}
            ratio = alternate({side: sides[side].run for side in sides}, arguments.repeats)[peer]
        fast, slow = (statistics.median(side.rates[1:]) for side in sides.values())  # the first one warmed up
        share = operations / batch * fast / rate
        asked = "at least 2.5" + (", 45%" if backbone == "resnet50" else "") if on_gpu else "at least 1.5"
        row(
            f"Training step: {title}: {fast:,.0f} images/s",
            f"{peer}: {slow:,.0f} images/s",
            ratio,
            asked if batch == large else "",
            f"{share:.0%} of the rate of a large {what}, {rate / 1e9:,.0f} GFLOP/s",
        )
        steps = len(sides[OURS].losses)
        ends = [f"{statistics.mean(side.losses[-max(1, steps // 10) :]):.3f}" for side in sides.values()]
        print(f"  mean loss of the last tenth of {steps} steps: {ends[0]} against the peer's {ends[1]}", flush=True)
    if not on_gpu:
        row("Training step on a GPU, 224 px", "lightly's modules", "not measured", "at least 2.5, 45%")


class Side:
    """One side's training in a process of its own, in runs of some steps each."""

    def __init__(self, process: OwnProcess) -> None:
        """The process does what `runs_of` makes."""
        self.process = process
        self.rates: list[float] = []
        self.losses: list[float] = []

    def run(self) -> float:
        """Train for some steps; images/s."""
        rate, losses = self.process()
        self.rates.append(rate)
        self.losses += losses
        return self.rates[-1]


def runs_of(
    recipe: Recipe, images: np.ndarray, steps: int, device: torch.device, peer_workers: int | None = None
) -> Callable[[], tuple[float, list[float]]]:
    """What trains for so many steps whenever it is called, ours or the peer's with so many loading workers.

    It returns images/s and the loss of each step.
    """
    if peer_workers is None:
        losses_of = train(recipe, images, device)
    else:
        losses_of = lightly_peers.train(recipe, [png(image) for image in images], steps, peer_workers, device)

    def run() -> tuple[float, list[float]]:
        losses = list[Tensor]()
        seconds = seconds_of(lambda: losses.extend(next(losses_of) for _ in range(steps)), device)
        return steps * recipe.pretrain.batch_size / seconds, torch.stack(losses).float().tolist()

    return run


def train(recipe: Recipe, images: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    """What the training loop does between two reports, without end; yields the loss of each step."""
    method, optimiser = set_up(recipe, device)
    pixels = repeated(images, recipe)
    step = 0
    while True:
        method.train()
        views = next_views(pixels, recipe, method, step, device)
        yield train_step(method, method, optimiser, recipe, views, device)
        step += 1


def repeated(images: np.ndarray, recipe: Recipe) -> Pixels:
    """The images, over and over, until there is a batch of them."""
    return Pixels([images] * -(-recipe.pretrain.batch_size // len(images)))


def step_operations(recipe: Recipe, images: np.ndarray, device: torch.device) -> int:
    """Multiplications and additions in the convolutions and matrix products of our step; views are not counted."""
    method = build_method(recipe).to(device)
    optimiser = build_optimiser(method, recipe.optimiser, recipe.pretrain.batch_size, device)
    views = next_views(repeated(images, recipe), recipe, method, 0, device)
    with FlopCounterMode(display=False) as counter:
        train_step(method, method, optimiser, recipe, views, device)
    return counter.get_total_flops()


def measured_rate(device: torch.device) -> tuple[str, float]:
    """Of what, and operations/s, the best of ten: a large bfloat16 matrix product on a GPU.

    On a CPU it is a 3×3 convolution in float32, which is the faster of the two there.
    """
    if device.type == "cuda":
        a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
        return "bfloat16 matrix product", 2 * 8192**3 / min(seconds_of(lambda: a @ b, device) for _ in range(10))
    x = torch.randn(32, 256, 32, 32).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3).contiguous(memory_format=torch.channels_last)
    operations = 2 * x.numel() * 9 * 256
    return "float32 convolution", operations / min(
        seconds_of(lambda: F.conv2d(x, w, padding=1), device) for _ in range(10)
    )


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes."""
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def phantom_images(patients: int) -> np.ndarray:
    """Phantom X-rays, uint8 [N, 256, 256]."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantom(PhantomConfig("a", patients=patients, size=256), Path(folder) / "a")
        return np.array(open_dataset(Path(folder) / "a").pixels())


def png(image: np.ndarray) -> bytes:
    """A PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    main()
