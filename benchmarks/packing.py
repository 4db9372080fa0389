"""Several trials at once on one device against one trial that has all of it: images a second of all trials together.

    python benchmarks/packing.py                 # the default method and backbone, at 32 px on a CPU
    python benchmarks/packing.py --preset l4     # what runs on a GPU by default: MoCo, ResNet-50, 224 px, batch 384

The peer is one trial at a time with every core, or the whole GPU. Ours are 2 at once with half the cores each, and on
a GPU as many up to 4 as fit into its memory: the sweep's own defaults. On a CPU all packings' processes are started
first and wait without work, and each repeat lets one packing after the other train; on a GPU, whose memory they would
hold, they are started anew each time. The bound on a CPU: twice what one trial with half the cores does while the
other half is idle, so two trials that do not disturb each other.
"""

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import joblib
import torch
from measure import OURS, alternate, row

from scarce.command_line import parse
from scarce.packing.config import PACKING_PRESETS, PackingConfig
from scarce.packing.packed_trials import Packing, start_trials, window_rates
from scarce.packing.tune import line, make_recipe, measure, share_out
from scarce.pretrain import Recipe

IMAGES = 2000
SMALL = replace(PACKING_PRESETS["cpu"], seconds=1.5)
SMALL = replace(SMALL, training=replace(SMALL.training, image_size=32))
PRESETS = {"cpu": SMALL, "l4": PACKING_PRESETS["l4"]}


def main(config: PackingConfig) -> None:
    """Print the curve, and a row a comparison."""
    training, gpus, cores = config.training, torch.cuda.device_count(), joblib.cpu_count()
    recipe, side = make_recipe(config, training.batch_size, IMAGES), 2 * training.image_size
    packings = {f"{k} at once": share_out(k, training.batch_size, cores, gpus) for k in (1, 2, 4)}
    if gpus:
        tried = {name: measure(packing, recipe, IMAGES, side, 1, 1.0) for name, packing in packings.items()}
        for name in [name for name, result in tried.items() if not result.rates]:
            print(line(tried[name]))
            del packings[name]
    ours = list(packings)[-1] if gpus else "2 at once"
    alone = f"half of {ours}"
    if not gpus:
        packings[alone] = replace(packings[ours], at_once=1)

    with ExitStack() as stack:
        rates = {}
        for name, packing in packings.items():
            rates[OURS if name == ours else name] = rate_of(
                packing, recipe, side, config.seconds, None if gpus else stack
            )
        ratios = alternate(rates, repeats=4)

    middle = {name: statistics.median(ratio.peers) for name, ratio in ratios.items()}
    middle[ours] = statistics.median(next(iter(ratios.values())).ours)
    print("images/s: " + ", ".join(f"{name} {middle[name]:,.0f}" for name in middle))
    bound = f"{middle[ours] / (2 * middle[alone]):.2f} of 2 x one with half the cores" if not gpus else ""
    claim = f"{training.method}, {training.backbone}, {training.image_size} px, batch {training.batch_size}"
    for name, ratio in ratios.items():
        if name != alone:
            row(f"{told(packings[ours])}: {claim}", told(packings[name]), ratio, "above 1", bound)


def rate_of(
    packing: Packing, recipe: Recipe, side: int, seconds: float, stack: ExitStack | None
) -> Callable[[], float]:
    """A function that trains for so long and returns images/s; the processes live as long as `stack`, or the call."""
    if stack is None:
        return lambda: measure(packing, recipe, IMAGES, side, 1, seconds).rate
    trials = stack.enter_context(start_trials(packing, recipe, IMAGES, side))
    return lambda: window_rates(trials.train(seconds)[0], packing.batch_size, 1)[0]


def told(packing: Packing) -> str:
    """A packing in words."""
    share = f" and {packing.gpus:g} of the GPU" if packing.gpus else ""
    return f"{packing.at_once} at once, {packing.threads} thread(s){share} each"


if __name__ == "__main__":
    presets = dict(reversed(PRESETS.items())) if torch.cuda.is_available() else PRESETS
    main(parse(sys.argv[1:], presets, __doc__ or ""))
