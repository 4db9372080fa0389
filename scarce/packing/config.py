"""The settings of `scarce tune-packing`, without torch: the command line is made from them."""

import math
from dataclasses import dataclass, field

from scarce.config import PRESETS, DataConfig, PretrainConfig
from scarce.errors import UserError


@dataclass(frozen=True)
class PackingConfig:
    """What is measured. The flags of the pretraining run are those of sweeps/ssl_aug.py."""

    pretrain: str = DataConfig.pretrain
    """Hospital of the unlabelled images, for their number and size: a converted folder, or phantom-a."""
    training: PretrainConfig = field(default_factory=PretrainConfig)
    trials_at_once: tuple[int, ...] = (1, 2, 4)
    """Numbers of trials at a time to try; they share the device's memory and the cores equally."""
    batch_sizes: tuple[int, ...] = ()
    """Batch sizes to try; none: --batch-size, half of it and twice as many."""
    seconds: float = 5.0
    """Seconds to measure each packing for, after starting and warming up; at least so many steps as give a spread."""

    def __post_init__(self) -> None:
        for flag, values, least in (
            ("--trials-at-once", self.trials_at_once, 1),
            ("--batch-sizes", self.batch_sizes, 2),
        ):
            wrong = [value for value in values if value < least]
            if wrong:
                raise UserError(f"{flag} must be at least {least}, got {wrong[0]}")
        if not self.trials_at_once:
            raise UserError("--trials-at-once needs at least one number, such as 1 2 4")
        if not 0 < self.seconds < math.inf:
            raise UserError(f"--seconds must be a positive number, got {self.seconds:g}")


PACKING_PRESETS = {name: PackingConfig(training=sweep.pretrain) for name, sweep in PRESETS.items()}
