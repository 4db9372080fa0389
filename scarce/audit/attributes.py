"""What is known of a film and may stand in for a finding: view, sex, age, source; and how they are tied to it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from scarce.audit.accuracy import difference_of_shares
from scarce.audit.yardstick import Number
from scarce.files import stable_hash

SOURCES = 4  # of so many, the commonest, each is asked for
OLDER = 60.0  # years; the age band is "60 or older" against "younger"


@dataclass(frozen=True, eq=False)
class Attribute:
    """Something that is true or false of every film, or not known."""

    name: str  # "view", "sex", "age", "source"
    yes: str  # what it is called where it is true
    no: str
    values: np.ndarray  # float [N]: 1, 0, or NaN where nobody knows

    @property
    def strata(self) -> np.ndarray:
        """1, 0 or -1 for unknown: int [N]."""
        return np.nan_to_num(self.values, nan=-1).astype(int)


@dataclass(frozen=True)
class Tie:
    """How well an attribute alone tells a finding, on one image of every labelled patient.

    Attributes:
        auc: of the attribute, turned so that it is at least 0.5: (1 + |difference of its shares|) / 2, with Newcombe's
            interval of that difference.
        sign: 1 where the attribute is commoner with the finding, -1 where it is rarer.
        p: Fisher's exact test, two-sided.
        words: the shares.
    """

    auc: Number
    sign: int
    p: float
    words: str


def attributes_of(films: pd.DataFrame) -> list[Attribute]:
    """View, sex, age band and sources of every film, those that are known of at least one film of either kind."""
    return [attribute for attribute in _asked(films) if {0.0, 1.0} <= set(attribute.values.tolist())]


def missing_attributes(films: pd.DataFrame) -> list[str]:
    """The names of those that `attributes_of` leaves out, each with the reason."""
    reasons = []
    for attribute in _asked(films):
        kinds = set(attribute.values[~np.isnan(attribute.values)].tolist())
        if not kinds:
            reasons.append(f"{attribute.name}: not known of any film")
        elif len(kinds) == 1:
            kind = attribute.yes if kinds == {1.0} else attribute.no
            reasons.append(f"{attribute.name}: the same for all films ({kind})")
    return reasons


def _asked(films: pd.DataFrame) -> list[Attribute]:
    age = films["age"].to_numpy(dtype=float)
    return [
        Attribute("view", "AP", "PA", _is(films["view"], "AP", "PA")),
        Attribute("sex", "female", "male", _is(films["sex"], "F", "M")),
        Attribute("age", "60 or older", "younger", np.where(np.isnan(age), np.nan, (age >= OLDER).astype(float))),
        *_sources(films["source"]),
    ]


def _sources(column: pd.Series) -> list[Attribute]:
    """Each source against the others: one attribute for two sources, none for fewer, the commonest of many."""
    known = column.dropna()
    commonest = known.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:SOURCES].tolist()
    if len(commonest) < 2:
        return []
    chosen = commonest[:1] if known.nunique() == 2 else commonest
    values = {name: np.where(column.notna(), (column == name).astype(float), np.nan) for name in chosen}
    return [Attribute(f"source {name}", f"from {name}", "from elsewhere", values[name]) for name in chosen]


def _is(column: pd.Series, yes: str, no: str) -> np.ndarray:
    values: np.ndarray = column.map({yes: 1.0, no: 0.0}).to_numpy(dtype=float)
    return values


def tie(
    attribute: Attribute, positive: np.ndarray, eligible: np.ndarray, films: pd.DataFrame, confidence: float
) -> Tie:
    """How an attribute is tied to a finding.

    Args:
        attribute: of N films.
        positive: which films show the finding, bool [N].
        eligible: which are labelled, and either positive or of a patient who has the finding in no film, bool [N].
        films: has `patient_id` and `image_id`; of a patient with several eligible films the first one by a hash counts.
        confidence: of the interval.
    """
    rows = np.flatnonzero(eligible & ~np.isnan(attribute.values))
    order = np.argsort([stable_hash(["tie", name]) for name in films["image_id"].iloc[rows]], kind="stable")
    first = ~films["patient_id"].iloc[rows[order]].duplicated().to_numpy()
    chosen = rows[order][first]
    has, truth = attribute.values[chosen] == 1, positive[chosen]
    table = [
        [int((has & truth).sum()), int((~has & truth).sum())],
        [int((has & ~truth).sum()), int((~has & ~truth).sum())],
    ]
    (a, b), (c, d) = table
    if not (a + b and c + d):
        return Tie(Number(0.5, 0.0, 1.0), 1, 1.0, "nothing to compare")
    sign = 1 if a / (a + b) >= c / (c + d) else -1
    value, low, high = difference_of_shares(a, a + b, c, c + d, confidence)
    if sign < 0:
        value, low, high = -value, -high, -low
    words = f"{attribute.yes} in {a} of {a + b} with the finding and in {c} of {c + d} without"
    number = Number((1 + value) / 2, (1 + low) / 2, (1 + high) / 2)
    return Tie(number, sign, float(fisher_exact([[a, b], [c, d]]).pvalue), words)
