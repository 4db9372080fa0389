"""Which findings are evaluated, and on which few labelled images a probe is trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scarce.errors import UserError
from scarce.fewshot.protocol import ProtocolConfig
from scarce.files import stable_hash

# Labels that say something about the report or the film, not what is wrong with the patient. The last three are
# PadChest's.
NOT_FINDINGS = frozenset({"no finding", "normal", "exclude", "suboptimal study", "unchanged"})


@dataclass(frozen=True, eq=False)
class Episode:
    """`shots` positive and `shots` negative images (row numbers, int64 [shots]), each of another patient."""

    finding: str
    shots: int
    seed: int
    positives: np.ndarray
    negatives: np.ndarray


def is_finding(label: str) -> bool:
    """Whether a label names a finding, rather than its absence or the quality of the film."""
    return label.strip().lower() not in NOT_FINDINGS


def label_matrix(metadata: pd.DataFrame, findings: Sequence[str]) -> np.ndarray:
    """Which images show which findings: bool [N, F]. An unlabelled image's row is all False."""
    column = {finding: index for index, finding in enumerate(findings)}
    matrix = np.zeros((len(metadata), len(findings)), dtype=bool)
    for row, labels in enumerate(metadata["labels"]):
        for label in labels or ():
            if label in column:
                matrix[row, column[label]] = True
    return matrix


def negative_images(positive: np.ndarray, labelled: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Labelled images of the patients who have no positive image at all: bool [N].

    An image without the label whose patient has the finding in another image is left out of both classes: most
    findings outlast one examination, so such an image is more often an unreported positive than a negative.

    Args:
        positive: which images show the finding, bool [N].
        labelled: which images somebody labelled, bool [N].
        patients: patient of every image, [N].
    """
    return labelled & ~np.isin(patients, patients[positive])


def choose_findings(metadata: pd.DataFrame, split: np.ndarray, config: ProtocolConfig) -> tuple[str, ...]:
    """The findings to evaluate, sorted: those asked for, or all with enough positive and negative patients.

    Args:
        metadata: of the target dataset, N rows.
        split: "pool", "val" or "test" of every image, str [N].
        config: `findings`, `min_pool`, `min_held_out` and the fewest `shots` are used.

    Raises:
        UserError: a finding asked for is absent or too rare, or none qualifies.
    """
    counts = _patients_by_finding(metadata, split)
    need = {"pool": max(config.min_pool, min(config.shots)), "val": config.min_held_out, "test": config.min_held_out}
    enough = sorted(f for f, have in counts.items() if all(have[part] >= need[part] for part in need))
    if not config.findings:
        if not enough:
            raise UserError(_nothing_qualifies(counts, need))
        return tuple(enough)
    for finding in config.findings:
        if finding not in counts:
            known = ", ".join(sorted(counts)) or "none"
            raise UserError(f"no labelled image shows {finding!r}: expected --findings among {known}")
        if finding not in enough:
            raise UserError(
                f"finding {finding!r} has {_in_words(counts[finding])}, needs {_in_words(need)}: "
                "leave it out or lower --min-pool, --min-held-out or --shots"
            )
    return tuple(sorted(set(config.findings)))


def _patients_by_finding(metadata: pd.DataFrame, split: np.ndarray) -> dict[str, Counter[str]]:
    """Patients a finding and a split that can be used: positive ones, or negative ones where these are fewer."""
    positive: dict[str, dict[str, set[str]]] = {}
    labelled: dict[str, set[str]] = {"pool": set(), "val": set(), "test": set()}
    for labels, part, patient in zip(metadata["labels"], split, metadata["patient_id"], strict=True):
        if labels is None:
            continue
        labelled[part].add(patient)
        for label in filter(is_finding, labels):
            positive.setdefault(label, {}).setdefault(part, set()).add(patient)
    return {
        finding: Counter({part: min(len(who), len(labelled[part]) - len(who)) for part, who in parts.items()})
        for finding, parts in positive.items()
    }


def _in_words(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{counts[part]} {part}" for part in ("pool", "val", "test")) + " patients"


def _nothing_qualifies(counts: dict[str, Counter[str]], need: dict[str, int]) -> str:
    if not counts:
        return "no image of the target dataset has a finding: expected labels such as 'Effusion' in its label table"
    best = max(sorted(counts), key=lambda f: min(counts[f][part] / need[part] for part in need))
    return (
        f"no finding has enough positive and negative patients: {_in_words(need)} are needed and the best "
        f"candidate, {best!r}, has {_in_words(counts[best])}: lower --min-pool, --min-held-out or --shots"
    )


def draw_episodes(
    finding: str,
    positive: np.ndarray,
    negative: np.ndarray,
    patients: np.ndarray,
    shots: Sequence[int],
    seeds: Sequence[int],
) -> list[Episode]:
    """The episodes of a finding, ordered by shots and then seed. Shots the pool can't supply are left out.

    Every seed has one random order of the positive and one of the negative patients, and an episode is a prefix of
    both: the 5-shot set of a seed lies in its 10-shot set. The order depends on the finding and the seed only, so
    that evaluating another finding beside it changes nothing.

    Args:
        finding: its name.
        positive: row numbers of the pool's positive images, int64 [P].
        negative: row numbers of the pool's negative images, int64 [Q]; of other patients than the positives.
        patients: patient of every row number that may occur, [N].
        shots: positives in an episode.
        seeds: one episode each.
    """
    supply = min(len(np.unique(patients[positive])), len(np.unique(patients[negative])))
    orders = {}
    for seed in seeds:
        rng = np.random.default_rng(int(stable_hash(["episode", finding, seed]), 16))
        orders[seed] = [_one_image_a_patient(rows, patients, rng) for rows in (positive, negative)]
    return [
        Episode(finding, count, seed, orders[seed][0][:count], orders[seed][1][:count])
        for count in sorted(shots)
        if count <= supply
        for seed in seeds
    ]


def _one_image_a_patient(rows: np.ndarray, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random image of every patient, the patients in random order; many images give no patient precedence."""
    shuffled = rng.permutation(rows)
    _, first = np.unique(patients[shuffled], return_index=True)
    return rng.permutation(shuffled[first])
