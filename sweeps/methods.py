"""Compare the self-supervised methods at equal cost: the same seconds of training for every run of every method.

    python sweeps/methods.py                                       # all methods on the phantom hospitals, on two cores
    python sweeps/methods.py --pretrain data/nih --target data/padchest --preset l4

A few timed steps say how many epochs of each method fit the budget. Each method is then searched a little (its own
settings and its learning rate, scored on the target hospital's validation patients), and the settings found are run
again with pretraining seeds that the search never used. Those runs are scored once on the target's test patients and
ranked, beside the same backbones before pretraining: intervals cover patients, few-shot episodes and pretraining seeds.
"""

import sys

from scarce.command_line import parse
from scarce.config import METHODS_PRESETS
from scarce.errors import run_or_exit


def main() -> None:
    """Calibrate, search, repeat, rank, write runs/<name>/."""
    config = parse(sys.argv[1:], METHODS_PRESETS, __doc__)

    # Imported here, so that --help does not wait for torch and Ray.
    from scarce.contest import run_contest

    run_contest(config)


if __name__ == "__main__":
    run_or_exit(main)
