"""Which packing of trials on one device gives the most trials an hour: so many at a time, with this batch size.

A packing is measured by doing it: that many processes start, build the method and warm up, then train together on
made-up pixels for a few seconds. What counts is the images of all of them within the time that all of them trained.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import joblib
import torch

from scarce.errors import UserError
from scarce.packing.config import PackingConfig
from scarce.packing.packed_trials import WINDOWS, OutOfMemory, Packing, Steps, start_trials, step_ends, window_rates
from scarce.pretrain import Recipe, build_method, count_held_out, count_steps
from scarce.settings import default_settings


@dataclass(frozen=True)
class Row:
    """A packing and what was measured."""

    packing: Packing
    rates: tuple[float, ...]  # images/s of all trials together, one a window; none: they ran out of memory
    peak_bytes: int  # of the trial with the most: allocated on the GPU, or resident; 0: unknown
    trial_images: int  # images that one trial trains on, each as often as it is seen

    @property
    def rate(self) -> float:
        """Images/s of all trials together: the middle window's."""
        return statistics.median(self.rates)

    def trials_per_hour(self, rate: float) -> float:
        """Trials that end in an hour at so many images/s, evaluation and start-up apart."""
        return 3600 * rate / self.trial_images

    @property
    def spread(self) -> tuple[float, float]:
        """Trials an hour in the slowest and in the fastest window."""
        return self.trials_per_hour(min(self.rates)), self.trials_per_hour(max(self.rates))


def tune_packing(config: PackingConfig, images: int, side: int) -> Row:
    """Measure the packings, print what came of each, and the flags of the recommended one.

    Args:
        config: what to measure.
        images: number of pretraining images.
        side: of an image as trials hold it, pixels.

    Returns:
        The recommended packing.

    Raises:
        UserError: what was asked for cannot be trained, runs out of memory in every packing, or a trial failed.
    """
    trained = images - count_held_out(images)
    gpus = torch.cuda.device_count()
    cores = joblib.cpu_count()
    recipes = {size: make_recipe(config, size, images) for size in candidate_sizes(config, trained)}
    for recipe in recipes.values():
        build_method(recipe)  # what cannot work is refused now
    training = config.training
    device = torch.cuda.get_device_name() if gpus else "this CPU"
    print(
        f"{training.method} with {training.backbone} on {images:,} images ({trained:,} of them trained on) at "
        f"{training.image_size} px for {training.epochs:g} epochs, on {device} with {cores} core(s)"
    )
    print(HEADER, flush=True)
    rows = []
    for at_once, (size, recipe) in itertools.product(sorted(set(config.trials_at_once)), recipes.items()):
        packing = share_out(at_once, size, cores, gpus)
        trial_images = count_steps(recipe.pretrain, images) * size
        rows.append(measure(packing, recipe, trained, side, trial_images, config.seconds))
        print(line(rows[-1]), flush=True)
    chosen, others = recommend(rows, training.batch_size)
    print(
        "An hour's trials are training alone: evaluation, start-up and what pruning saves are apart.\n"
        "Another batch size learns something else, although the learning rate grows with it: it is a setting, no mere "
        "matter of speed.\n"
        f"Recommended: {named(chosen)}, {chosen.trials_per_hour(chosen.rate):.3g} trials an hour."
        + (f" Not distinguishable from the best: {'; '.join(map(named, others))}." if others else "")
    )
    print(chosen.packing.flags, flush=True)
    return chosen


def candidate_sizes(config: PackingConfig, trained: int) -> list[int]:
    """The batch sizes to try, ascending. `UserError` where one has more images than there are."""
    if trained < 2:
        raise UserError(f"--pretrain {config.pretrain}: too few images to train on, expected at least 4")
    own = config.training.batch_size
    sizes = config.batch_sizes or tuple(size for size in (own // 2, own, 2 * own) if 2 <= size <= trained)
    too_large = [size for size in sizes or (own,) if size > trained]
    if too_large:
        raise UserError(
            f"batch size {too_large[0]} is more than the {trained:,} images trained on: use --batch-sizes {trained} or "
            "less, or another --pretrain"
        )
    return sorted(set(sizes))


def make_recipe(config: PackingConfig, batch_size: int, images: int) -> Recipe:
    """The config's run with this batch size and nothing else changed."""
    return default_settings(replace(config.training, batch_size=batch_size), images).recipe


def share_out(at_once: int, batch_size: int, cores: int, gpus: int) -> Packing:
    """The packing on one of so many GPUs, or on the cores where there is none.

    More trials than cores get less than one each, which Ray takes, and one thread.
    """

    def share(whole: float) -> float:
        return math.floor(1000 * whole / at_once) / 1000  # down: all of them must fit

    cpus = share(cores / max(1, gpus))
    return Packing(at_once, batch_size, float(int(cpus)) if cpus >= 1 else cpus, share(1) if gpus else 0.0)


def recommend(rows: Sequence[Row], own_batch_size: int) -> tuple[Row, list[Row]]:
    """The packing to use, and the others that cannot be told from the best: whose spread overlaps the best one's.

    Of these it is one with the fewest trials at a time: each ends sooner, and ASHA knows more before it starts the
    next. Among those, the one with the config's own batch size, else the fastest.

    Raises:
        UserError: none fits into memory.
    """
    rows = [row for row in rows if row.rates]
    if not rows:
        raise UserError("every packing ran out of memory: use smaller --batch-sizes, --image-size or --backbone")
    best = max(rows, key=lambda row: row.trials_per_hour(row.rate))
    alike = [row for row in rows if row.spread[1] >= best.spread[0]]
    chosen = min(
        alike,
        key=lambda row: (
            row.packing.at_once,
            row.packing.batch_size != own_batch_size,
            -row.trials_per_hour(row.rate),
        ),
    )
    return chosen, [row for row in alike if row is not chosen]


HEADER = (
    f"{'at once':>7} {'GPU each':>8} {'CPU each':>8} {'threads':>7} {'batch':>6} {'images/s each':>13} "
    f"{'images/s':>9} {'trials/hour (lowest to highest)':>32} {'memory each':>11}"
)


def line(row: Row) -> str:
    """A row of the table."""
    packing = row.packing
    start = f"{packing.at_once:>7} {packing.gpus:>8g} {packing.cpus:>8g} {packing.threads:>7} {packing.batch_size:>6} "
    if not row.rates:
        return f"{start}out of memory"
    low, high = row.spread
    hourly = f"{row.trials_per_hour(row.rate):.4g} ({low:.4g} to {high:.4g})"
    memory = f"{row.peak_bytes / 1e9:.2f} GB" if row.peak_bytes else "unknown"
    return f"{start}{row.rate / packing.at_once:>13,.1f} {row.rate:>9,.1f} {hourly:>32} {memory:>11}"


def named(row: Row) -> str:
    """A row in words."""
    return f"{row.packing.at_once} at once with batch size {row.packing.batch_size}"


def measure(
    packing: Packing,
    recipe: Recipe,
    images: int,
    side: int,
    trial_images: int,
    seconds: float,
    steps: Steps = step_ends,
) -> Row:
    """Start the trials of a packing (see `start_trials`), time them together for so long, end them."""
    try:
        with start_trials(packing, recipe, images, side, steps) as trials:
            ends, peaks = trials.train(seconds)
    except OutOfMemory:
        return Row(packing, (), 0, trial_images)
    return Row(packing, window_rates(ends, packing.batch_size, WINDOWS), max(peaks), trial_images)
