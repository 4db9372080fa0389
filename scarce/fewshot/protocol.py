"""The settings of the few-shot evaluation. Imports nothing heavy: the command line is made from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scarce.errors import UserError

FIRST_TEST_SEED = 1000  # test seeds start here, so the search can never have used one


@dataclass(frozen=True)
class ProtocolConfig:
    """How a pretrained backbone is judged at the target hospital."""

    shots: tuple[int, ...] = (1, 5, 10, 23, 50)
    """Labelled positives in an episode, with as many negatives; images, one a patient."""
    search_seeds: int = 5
    """Episodes drawn for every finding and shot during the search (seeds 0, 1, ...); at least 2."""
    test_seeds: int = 10
    """Episodes drawn for every finding and shot in the final evaluation (seeds 1000, 1001, ...); at least 2."""
    fractions: tuple[float, float, float] = (0.5, 0.2, 0.3)
    """Shares of the labelled hospital's patients in pool, val and test; they sum to 1."""
    min_pool: int = 15
    """Positive patients that a finding needs in the pool to be evaluated."""
    min_held_out: int = 6
    """Positive patients that a finding needs in val, and again in test, to be evaluated."""
    max_negatives: int = 1000
    """Most held-out negative images scored for a finding; positives are never capped."""
    findings: tuple[str, ...] = ()
    """Findings to evaluate; none: every finding with enough positive patients."""
    bootstrap: int = 2000
    """Bootstrap resamples behind every interval and p-value."""
    confidence: float = 0.95
    """Coverage of the intervals, between 0 and 1."""
    target_auc: float | None = None
    """AUC to tell the needed labels for, between 0.5 and 1, from the fitted learning curve."""
    protocol: Literal["scarce", "original"] = "scarce"
    """`original` adds the evaluation published by SCARCE-CXR, for comparison with its tables."""

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) != len(self.shots):
            raise UserError(f"--shots must be different positive numbers, got {self.shots}")
        if not (min(self.fractions) > 0 and abs(sum(self.fractions) - 1) <= 1e-9):
            raise UserError(f"--fractions must be three positive numbers that sum to 1, got {self.fractions}")
        if not 2 <= self.search_seeds <= FIRST_TEST_SEED:
            raise UserError(f"--search-seeds must lie in [2, {FIRST_TEST_SEED}], got {self.search_seeds}")
        if self.test_seeds < 2:
            raise UserError(f"--test-seeds must be at least 2, got {self.test_seeds}")
        if min(self.min_pool, self.min_held_out, self.max_negatives) < 1:
            raise UserError("--min-pool, --min-held-out and --max-negatives must be at least 1")
        if self.bootstrap < 100:
            raise UserError(f"--bootstrap must be at least 100 resamples, got {self.bootstrap}")
        if self.target_auc is not None and not 0.5 < self.target_auc < 1:
            raise UserError(f"--target-auc must lie between 0.5 and 1, got {self.target_auc:g}")
        if not 0 < self.confidence < 1:
            raise UserError(f"--confidence must lie between 0 and 1, got {self.confidence}")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "ProtocolConfig":
        """The protocol as a run's config.json has it, which knows lists and no tuples."""
        kept: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return ProtocolConfig(**kept)

    def seeds(self, held_out: Literal["val", "test"]) -> tuple[int, ...]:
        """The episode seeds of a split: the search's for val, fresh ones for test."""
        if held_out == "val":
            return tuple(range(self.search_seeds))
        return tuple(range(FIRST_TEST_SEED, FIRST_TEST_SEED + self.test_seeds))
