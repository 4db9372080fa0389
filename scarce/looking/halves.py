"""How sure a distance between two hospitals is, and what it is measured against: random halves of their patients.

None of these distances is unbiased: two samples of the same hospital are a distance apart as well, and the further the
fewer they hold. Resampling with replacement adds to that, as it puts films in twice. So every distance is measured
between random halves instead, with the same number of patients on both sides whatever the hospitals: between a half of
A and one of B, and as a yardstick between the two halves of A and the two of B. Half-samples without replacement spread
around their mean as the whole sample does around the truth (McCarthy 1969, "Pseudo-replication: half samples", Review
of the International Statistical Institute 37:239; Politis & Romano 1994, Annals of Statistics 22:2031), so their
quantiles are the interval; where one hospital is larger than the other it is wider than need be.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scarce.fewshot.statistics import percentile_interval
from scarce.files import stable_hash

Distance = Callable[[np.ndarray, np.ndarray], float]  # of row numbers of either sample
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Number:
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Halves:
    """Row numbers of random, disjoint halves of equal size, int64: two of hospital A and two of B."""

    a: tuple[np.ndarray, np.ndarray]
    b: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Compared:
    """A distance between two hospitals beside the same one within each of them.

    Attributes:
        between: the mean over pairs of a half of A and one of B.
        within: the mean over pairs of halves of A, and of B.
        excess: `between` minus the mean of the two `within`, paired by the draw.
    """

    between: Number
    within: tuple[Number, Number]
    excess: Number

    @property
    def shown(self) -> bool:
        """Whether the hospitals are shown to be further apart than each is from itself."""
        return self.excess.low > 0


def draw_halves(patients: tuple[int, int], count: int) -> list[Halves]:
    """`count` draws, the same ones on every call, of halves as large as the smaller hospital allows.

    Args:
        patients: of A and of B, a row each; A's rows come first, B's follow.
        count: how many.
    """
    size = min(patients) // 2
    rng = np.random.default_rng(int(stable_hash(["halves", *patients]), 16))

    def two(start: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        order = start + rng.permutation(rows)
        return order[:size], order[size : 2 * size]

    return [Halves(two(0, patients[0]), two(patients[0], patients[1])) for _ in range(count)]


def compare_halves(distance: Distance, halves: list[Halves]) -> Compared:
    """A distance on every draw."""
    return compared(
        np.array([distance(draw.a[0], draw.b[0]) for draw in halves]),
        np.array([distance(*draw.a) for draw in halves]),
        np.array([distance(*draw.b) for draw in halves]),
    )


def compared(between: np.ndarray, within_a: np.ndarray, within_b: np.ndarray) -> Compared:
    """The numbers of distances [draws]."""
    excess = between - (within_a + within_b) / 2
    return Compared(_number(between), (_number(within_a), _number(within_b)), _number(excess))


def _number(draws: np.ndarray) -> Number:
    return Number(float(draws.mean()), *percentile_interval(draws, CONFIDENCE))
