"""Drawing a phantom chest X-ray against reading a real-sized file for the same 64 pixels, in one process and in two.

    python benchmarks/phantom.py

The peer is Pillow: decode a 1024 x 1024 8-bit PNG (the size of NIH ChestX-ray14's) and shrink it with Lanczos.
"""

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from scarce.data.phantom import BATCH, PhantomConfig, draw, plan_films

CONFIG = PhantomConfig("b", patients=400)


def draw_films(part: int, parts: int) -> int:
    """Draw every `parts`-th batch of the hospital; returns the number of images."""
    films = list(plan_films(CONFIG))
    batches = [films[i : i + BATCH] for i in range(0, len(films), BATCH)][part::parts]
    return sum(len(draw(batch, CONFIG).images) for batch in batches)


def read_files(part: int, parts: int) -> int:
    """Decode and shrink a share of 300 files held in memory; returns the number of images."""
    film = draw(list(plan_films(CONFIG))[:1], CONFIG).images[0]
    big = np.asarray(Image.fromarray(film).resize((1024, 1024)))
    noise = np.random.default_rng(0).normal(0, 4, big.shape)  # a film's grain: without it a PNG decodes too fast
    file = io.BytesIO()
    Image.fromarray(np.clip(big + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    count = len(range(part, 300, parts))
    for _ in range(count):
        Image.open(io.BytesIO(file.getvalue())).convert("L").resize(
            (CONFIG.size, CONFIG.size), Image.Resampling.LANCZOS
        )
    return count


def images_per_second(work: Callable[[int, int], int], processes: int) -> float:
    """Images a second of `work` split over processes that have already started."""
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(abs, range(processes)))
        start = time.perf_counter()
        done = sum(pool.map(work, range(processes), [processes] * processes))
        return done / (time.perf_counter() - start)


def main() -> None:
    """Print images a second and the ratio to the peer."""
    for processes in (1, 2):
        drawn, read = images_per_second(draw_films, processes), images_per_second(read_files, processes)
        print(
            f"{processes} process(es): phantom {drawn:5.0f} images/s, PNG 1024 + Lanczos {read:5.0f} images/s, "
            f"ratio {drawn / read:.1f}"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
