"""Pretraining under a limit of memory, attempt after attempt, each in a process of its own: a script for a test.

    python attempts.py FOLDER MIB

Prints a JSON line for each report.
"""

import json
import os
import resource
import sys
from pathlib import Path

import torch
from pretraining import CPU, images, recipe

from scarce.memory import is_out_of_memory
from scarce.pretrain import pretrain
from scarce.trials.failures import failure, mark_out_of_memory, micro_batch

BATCH = 256


def attempt(folder: Path, mebibytes: int) -> None:
    """Pretrain with no more memory than so much more than now."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + mebibytes * 2**20,) * 2)
    chosen = recipe(epochs=1, report_epochs=1, batch_size=BATCH, image_size=64)
    tried = micro_batch(folder)
    try:
        pretrain(chosen, images(300), folder, device=CPU, report=lambda m: print(json.dumps(m)), micro_batch=tried)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        mark_out_of_memory(folder, BATCH, tried, 1)
        sys.exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    while failure(run) is None:
        if (child := os.fork()) == 0:
            attempt(run, int(sys.argv[2]))
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
