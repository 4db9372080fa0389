"""The settings of a sweep over one finished backbone, without torch: the command line is made from them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scarce.audit_config import SweepAuditConfig
from scarce.errors import UserError
from scarce.fewshot.baselines_config import check_scratch_seeds
from scarce.fewshot.protocol import ProtocolConfig
from scarce.files import folder_of_run


@dataclass(frozen=True)
class FrozenConfig:
    """Everything such a sweep is told; written to config.json beside its results."""

    checkpoint: str
    """The backbone: a folder with backbone.safetensors and card.json, or the folder of a run whose best/ is one."""
    target: str = "phantom-b"
    """Labelled images of the hospital that the classifier is for: a converted folder or its URL, or phantom-b."""
    trials: int = 40
    """Settings to try; the first one is the defaults."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's sampler: multivariate TPE, or random search."""
    seed: int = 0
    """Seed of the sampler."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto is the GPU where there is one."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    audits: SweepAuditConfig = field(default_factory=SweepAuditConfig)
    name: str = ""
    """The run's folder under --out; empty: <experiment>-<checkpoint>-<target>."""
    out: str = "runs"
    """Folder of all runs."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError(f"--trials must be at least 1, got {self.trials}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2**32), got {self.seed}")

    def folder(self, experiment: str) -> Path:
        """The absolute path of the run's folder."""
        from scarce.storage import place_of, require_path  # here, as Arrow costs a tenth of a second at --help

        require_path("--out", self.out, "write here, then copy the folder")
        require_path("--checkpoint", self.checkpoint, "copy the folder here first")
        checkpoint = Path(self.checkpoint).absolute()
        run = checkpoint.parent.name if checkpoint.name == "best" else checkpoint.name
        return folder_of_run(self.out, self.name or f"{experiment}-{run}-{place_of(self.target).name}")


@dataclass(frozen=True)
class FinetuneSweepConfig(FrozenConfig):
    """Everything sweeps/finetune.py is told."""

    trials: int = 12
    """Settings to try; the first one is the defaults."""
    val_seeds: int = 2
    """Episodes of every finding and shot that a setting is tried on; at least 2, at most --search-seeds."""
    scratch_seeds: int = 3
    """Test seeds on which the same network is trained from random weights as well, at least 2; 0: on none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.val_seeds <= self.protocol.search_seeds:
            raise UserError(
                f"--val-seeds must lie in [2, --search-seeds {self.protocol.search_seeds}], got {self.val_seeds}"
            )
        check_scratch_seeds(self.scratch_seeds)
