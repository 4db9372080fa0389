"""Golden loss curves: what every method's loss is, step by step, over one epoch on a small phantom hospital.

    python tests/methods/record_golden.py            # shows what changed
    python tests/methods/record_golden.py --write    # records it, on purpose: say in the commit why the numbers moved

In float64, so that they hold to 1e-5 on every x86 machine with AVX2. Views are drawn in float32, whose last bits differ
without it (ATEN_CPU_CAPABILITY=default), and a hundred steps make more of that than 1e-5.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from scarce.config import PretrainConfig
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.pixels import Pixels
from scarce.data.store import open_dataset
from scarce.methods import REGISTRY
from scarce.pretrain import count_steps, pretrain
from scarce.settings import default_settings

GOLDEN = Path(__file__).parent / "golden_losses.json"
# Small heads: what is guarded is the arithmetic, not its size.
SMALL = {
    "dino": {"prototypes": 64, "bottleneck": 16, "local_views": 2},
    "spark": {"decoder_width": 32},
}


def record(name: str, images: Pixels) -> list[float]:
    """The loss of every step of one epoch."""
    torch.set_num_threads(1)
    config = PretrainConfig(method=name, image_size=32, epochs=1, batch_size=16, precision="float64")
    steps = count_steps(config, len(images))
    config = replace(config, report_epochs=1 / steps)
    recipe = default_settings(config, len(images)).recipe
    recipe = replace(recipe, method=replace(recipe.method, **SMALL.get(name, {})))
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        pretrain(recipe, images, Path(folder), device=torch.device("cpu"), report=lambda m: losses.append(m["loss"]))
    return losses


def small_hospital(folder: Path) -> Pixels:
    """Pixels of a small phantom hospital."""
    write_phantom(PhantomConfig("a", patients=60, size=32), folder)
    return Pixels([open_dataset(folder).pixels()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the recorded numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = small_hospital(Path(folder) / "a")
        now = {name: record(name, images) for name in sorted(REGISTRY)}
    before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for name, losses in now.items():
        old = before.get(name, [])
        moved = max((abs(a - b) for a, b in zip(losses, old, strict=False)), default=float("nan"))
        print(f"{name:14} {len(losses)} steps, {losses[0]:.6f} to {losses[-1]:.6f}, largest change {moved:.2e}")
    if arguments.write:
        GOLDEN.write_text(json.dumps(now, indent=2) + "\n")


if __name__ == "__main__":
    main()
