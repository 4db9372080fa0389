"""Rebuild the first failure: a random forest on the pixels of a small balanced set, and whether its accuracy is one.

    python sweeps/first_failure.py
    python sweeps/first_failure.py --target data/nih --finding Effusion --images 200

A balanced set of 600 images, a fifth held out, no patient in both parts. The accuracy is judged by the exact binomial
test against chance, with the number of images that it would take to tell, and beside it stands what the mean
brightness of the same images reaches on the same split.
"""

import sys

from scarce.command_line import parse
from scarce.errors import UserError, run_or_exit
from scarce.first_failure_config import FirstFailureConfig

PRESETS = {"phantom": FirstFailureConfig(), "nih": FirstFailureConfig(target="data/nih")}


def main() -> None:
    """Draw, train, judge, write runs/<name>/."""
    config = parse(sys.argv[1:], PRESETS, __doc__)
    if config.folder().exists():
        raise UserError(f"{config.folder()} holds a run already: choose another --name")

    # Imported here, so that --help does not wait for torch.
    from scarce.audit.first_failure import first_failure, first_failure_markdown, write_first_failure
    from scarce.data.hospitals import open_hospital

    dataset = open_hospital(config.target)
    summary = first_failure(dataset, config)
    write_first_failure(summary, dataset, config)
    print(f"{first_failure_markdown(summary)}\nWritten to {config.folder()}")


if __name__ == "__main__":
    run_or_exit(main)
