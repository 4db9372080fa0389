"""Search augmentations, temperature and probe for self-supervised pretraining on unlabelled chest X-rays.

    python sweeps/ssl_aug.py                                       # two built-in phantom hospitals, minutes on a CPU
    python sweeps/ssl_aug.py --pretrain data/nih --target data/padchest --preset l4

Each trial pretrains a backbone without labels; while it does, a grid of probes is trained on a few labelled images of
the target hospital's pool and scored on its validation patients, averaged over few-shot seeds. The best probe's AUC
prunes trials (ASHA) and guides the sampler (Optuna's TPE); with --objective auc,shortcut so does what is left of it
when the lungs are blacked out. The chosen trial is then scored once on the target's test patients with fresh seeds,
beside the baselines that every result has to beat, and audited: anatomy or shortcut?
"""

import sys

from scarce.command_line import parse
from scarce.config import PRESETS
from scarce.errors import run_or_exit


def main() -> None:
    """Search, evaluate, write runs/<name>/."""
    config = parse(sys.argv[1:], PRESETS, __doc__)

    # Imported here, so that --help does not wait for torch and Ray.
    from scarce.run_sweep import run_sweep
    from scarce.settings import search_space

    run_sweep(config, search_space(config.pretrain))


if __name__ == "__main__":
    run_or_exit(main)
