"""Audit 6: AUC among films of the same view, sex and age band, and the gap to the AUC over all films.

A model that reads how the patient lay ranks AP above PA. Within AP it can't.
"""

import numpy as np

from scarce.audit.attributes import Attribute, attributes_of, missing_attributes
from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun, Found, Row
from scarce.audit.yardstick import Measured, Number
from scarce.fewshot import statistics

TOLERATED = 0.05  # of AUC that the whole may have over the matched
FEWEST = 5  # patients of either class; a stratum with fewer says nothing by itself


def matched_test(subject: Subject) -> Found:
    """AUC within strata of each attribute, and what the pooled AUC has over it."""
    missing = [f"No strata by {reason}." for reason in missing_attributes(subject.films)]
    rows, small = [], []
    for attribute in attributes_of(subject.films):
        strata = attribute.strata
        matched = subject.yardstick.matched_auc(subject.scores, strata)
        pooled = subject.yardstick.matched_auc(subject.scores, np.minimum(strata, 0))  # known ones, in one stratum
        gap = pooled.minus(matched)
        within = {
            name: subject.yardstick.matched_auc(subject.scores, np.where(strata == value, 0, -1))
            for value, name in ((1, attribute.yes), (0, attribute.no))
        }
        for finding, name in enumerate(subject.task.findings):
            by_stratum, too_small = _by_stratum(subject, attribute, finding, within)
            small += [f"{name}, {which}" for which in too_small]
            if np.isnan(matched.values[finding]):
                rows.append(_no_pairs(subject, attribute, finding))
                continue
            number = subject.yardstick.difference(gap, finding)
            rows.append(
                Row(
                    name=f"{name}, by {attribute.name}",
                    finding=name,
                    numbers={
                        "pooled": subject.yardstick.number(pooled, finding),
                        "matched": subject.yardstick.number(matched, finding),
                        "pooled minus matched": number,
                        **by_stratum,
                    },
                    decides="pooled minus matched",
                    p=subject.yardstick.p_difference(gap, finding, null=0.0),
                    small=number.high < TOLERATED,
                )
            )
    if not rows:
        raise CannotRun("view, sex and age are each unknown or the same for all test films")
    if small:
        missing.append(f"Too few to say anything by themselves (under {FEWEST} patients a class): {'; '.join(small)}.")
    return Found(tuple(rows), missing=tuple(missing))


def _no_pairs(subject: Subject, attribute: Attribute, finding: int) -> Row:
    name = subject.task.findings[finding]
    return Row(
        name=f"{name}, by {attribute.name}",
        finding=name,
        numbers={"whole picture": subject.yardstick.number(subject.whole, finding)},
        words=f"No two films of the same {attribute.name}, one with and one without: the AUC can't be matched.",
        verdict="can't tell",
    )


def _by_stratum(
    subject: Subject, attribute: Attribute, finding: int, within: dict[str, Measured]
) -> tuple[dict[str, Number], list[str]]:
    """AUC within each stratum, and the names of those too small to have one."""
    task, rows = subject.task, subject.task.evaluated[finding]
    numbers, too_small = {}, []
    for value, name in ((1, attribute.yes), (0, attribute.no)):
        here = attribute.strata[rows] == value
        truth, patients = task.truth(finding)[here], task.patients[rows[here]]
        counts = [len(np.unique(patients[truth])), len(np.unique(patients[~truth]))]
        if min(counts) < FEWEST:
            too_small.append(f"{name} ({counts[0]} with, {counts[1]} without)")
            continue
        kept = statistics.evidence(subject.yardstick.only(finding, rows[here]), subject.yardstick.resamples)[0][0]
        low, high = statistics.auc_interval(within[name].draws[finding], kept, subject.yardstick.confidence)
        numbers[name] = Number(float(within[name].values[finding]), low, high)
    return numbers, too_small
