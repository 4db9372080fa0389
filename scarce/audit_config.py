"""The settings of the audits. Imports nothing heavy: command lines are made from them."""

from dataclasses import dataclass

from scarce.errors import UserError


@dataclass(frozen=True)
class AuditConfig:
    """How a result is audited."""

    other: str = ""
    """Another hospital to compare with: a converted folder, or phantom-a; empty: the one pretrained on, where known."""
    masks: str = ""
    """Folder of lung masks of the target's images, PNG, named as the images; empty: the dataset's own, or a box."""
    permutations: int = 99
    """Shuffles of the labels behind the audit of chance; at least 39."""
    resamples: int = 1000
    """Bootstrap resamples behind the audits' intervals; at least 100."""

    def __post_init__(self) -> None:
        if self.permutations < 39:
            raise UserError(f"--permutations must be at least 39 for a p-value below 0.05, got {self.permutations}")
        if self.resamples < 100:
            raise UserError(f"--resamples must be at least 100, got {self.resamples}")


@dataclass(frozen=True)
class SweepAuditConfig(AuditConfig):
    """Whether a sweep ends with the audits, and how."""

    audit: bool = True
    """Audit the chosen model at the end: anatomy or shortcut? See audit/index.html in the run's folder."""
