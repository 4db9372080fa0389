"""Random films of every finding of a dataset, for a contact sheet."""

from collections.abc import Sequence

import numpy as np

from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.files import stable_hash
from scarce.looking.sheet import Row

NOTHING, UNLABELLED = "nothing found", "not labelled"
MOST = 20  # findings shown where none are named; PadChest has more than 170


def finding_rows(dataset: Dataset, findings: Sequence[str], per_finding: int, seed: int) -> list[Row]:
    """A row for every finding, with the numbers of its films and patients.

    Args:
        dataset: whose films are shown.
        findings: which, in this order; none: the `MOST` commonest, then films in which nothing was found, and those
            that nobody labelled.
        per_finding: films a row, of different patients; fewer where a finding has fewer patients.
        seed: of the choice, which for a finding does not depend on the others.

    Returns:
        Rows whose captions are the film's row number in the dataset and its view; nothing names a patient.

    Raises:
        UserError: a finding that no film has.
    """
    table = dataset.metadata()
    patients = table["patient_id"].to_numpy(dtype=str)
    members: dict[str, list[int]] = {}
    for row, labels in enumerate(table["labels"]):
        for label in [UNLABELLED] if labels is None else labels or [NOTHING]:
            members.setdefault(label, []).append(row)
    others = (NOTHING, UNLABELLED)
    commonest = sorted(members.keys() - set(others), key=lambda label: (-len(members[label]), label))
    shown = list(dict.fromkeys(findings)) or [*commonest[:MOST], *(name for name in others if name in members)]
    for finding in shown:
        if finding not in members:
            known = [*commonest, *(name for name in others if name in members)]
            raise UserError(f"no film of {dataset.path} has {finding!r}: expected --findings among {', '.join(known)}")
    rows = []
    for finding in shown:
        films = np.array(members[finding])
        shuffled = np.random.default_rng(int(stable_hash(["show", finding, seed]), 16)).permutation(films)
        _, first = np.unique(patients[shuffled], return_index=True)
        chosen = shuffled[np.sort(first)][:per_finding]
        views = table["view"].iloc[chosen]
        captions = [
            f"#{row}" + (f" {view}" if isinstance(view, str) else "") for row, view in zip(chosen, views, strict=True)
        ]
        counts = f"{_counted(len(films), 'film')} of {_counted(len(first), 'patient')}"
        rows.append(Row(finding, counts, dataset.pixels(chosen), captions))
    return rows


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
