"""The evaluation that SCARCE-CXR published, for comparison with its tables.

It differs from ours in what it reports, not only in how: held-out patients choose nothing, but there is one split for
everything, an image has exactly one label, and the AUC is over as many negatives as positives, so a finding with six
held-out positives is judged on twelve images.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import normalize
from torch import Tensor

from scarce.data.schema import FRONTAL_VIEWS
from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.fewshot.auc import auc
from scarce.fewshot.episodes import is_finding
from scarce.fewshot.logistic import fit_logistic
from scarce.fewshot.logistic_cv import fit_logistic_cv
from scarce.files import stable_hash

SHOTS = (1, 5, 10, 20, 50)
TRIALS = 10
MIN_TRAIN, MIN_HELD_OUT = 15, 6  # positive images
MAX_TRAIN_NEGATIVES, MAX_HELD_OUT_NEGATIVES = 5000, 2000
NEGATIVE = ""  # stands for every label that is not a rare finding
CROSS_VALIDATED_C = (0.01, 0.1, 1.0, 10.0, 100.0)


def is_held_out(patient_id: str) -> bool:
    """One patient in five, by the MD5 of the id."""
    return int(hashlib.md5(patient_id.encode(), usedforsecurity=False).hexdigest(), 16) % 5 == 0


def evaluate_original(
    dataset: Dataset, feature_fn: Callable[[np.ndarray], np.ndarray], findings: Sequence[str] = ()
) -> dict[str, Any]:
    """Mean AUC, and the AUC of every cell, under the published protocol.

    PA and AP images with exactly one label; images labelled as showing nothing are negatives too. Where the pool has
    fewer positives than shots, all are used, as there.

    Args:
        dataset: the labelled hospital.
        feature_fn: uint8 [N, H, W] to features float32 [N, D].
        findings: the rare findings; none: every label with enough images. Images of a rare finding are never
            negatives of another.

    Returns:
        `auc` and `cells`: `finding`, `shots`, `auc`, `auc_sd` (over trials), `train_positives`, `test_positives`.

    Raises:
        UserError: no finding has enough images.
    """
    metadata = dataset.metadata()
    label = _single_label(metadata)
    label[~metadata["view"].isin(FRONTAL_VIEWS)] = None
    held_out = np.array([is_held_out(patient) for patient in metadata["patient_id"]])
    rare, train, test = _rows_by_label(label, held_out, findings)

    needed = np.unique(np.concatenate([*train.values(), *test.values()]))
    features = normalize(feature_fn(dataset.pixels(needed)))
    x_train = {name: features[np.searchsorted(needed, rows)] for name, rows in train.items()}
    x_test = {name: features[np.searchsorted(needed, rows)] for name, rows in test.items()}
    cells = [
        _cell(name, shots, x_train[name], x_train[NEGATIVE], x_test[name], x_test[NEGATIVE])
        for name in rare
        for shots in SHOTS
    ]
    return {"auc": float(np.mean([cell["auc"] for cell in cells])), "cells": cells}


def _single_label(metadata: pd.DataFrame) -> pd.Series:
    """The only label of an image; "normal" for a labelled image without any; None for several or none known."""
    only = [None if row is None or len(set(row)) > 1 else (row or ["normal"])[0] for row in metadata["labels"]]
    return pd.Series(only, index=metadata.index, dtype=object)


def _rows_by_label(
    label: pd.Series, held_out: np.ndarray, findings: Sequence[str]
) -> tuple[list[str], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The rare findings, and the training and held-out rows of each and of `NEGATIVE`."""
    train_counts, test_counts = label[~held_out].value_counts(), label[held_out].value_counts()
    rare = [
        name
        for name in sorted(findings or filter(is_finding, train_counts.index))
        if train_counts.get(name, 0) >= MIN_TRAIN and test_counts.get(name, 0) >= MIN_HELD_OUT
    ]
    negative = (label.notna() & ~label.isin(rare)).to_numpy()
    if not rare or not (negative & held_out).any() or not (negative & ~held_out).any():
        raise UserError(
            f"--protocol original needs a finding with {MIN_TRAIN} training and {MIN_HELD_OUT} held-out images that "
            "show nothing else, and images without it, and found none: use --protocol scarce"
        )
    rng = np.random.default_rng(int(stable_hash(["original", "negatives"]), 16))
    train, test = (
        {
            **{name: np.flatnonzero((label == name).to_numpy() & part) for name in rare},
            NEGATIVE: rng.permutation(np.flatnonzero(negative & part))[:most],
        }
        for part, most in ((~held_out, MAX_TRAIN_NEGATIVES), (held_out, MAX_HELD_OUT_NEGATIVES))
    )
    return rare, train, test


def _cell(
    finding: str, shots: int, train: np.ndarray, train_negative: np.ndarray, test: np.ndarray, test_negative: np.ndarray
) -> dict[str, Any]:
    """All trials of a finding and shots, from features [n, D] of its positives and of the negatives."""
    count = min(shots, len(train), len(train_negative))
    compared = min(len(test), len(test_negative))
    episodes, held_out = [], []
    for trial in range(TRIALS):
        rng = np.random.default_rng(int(stable_hash(["original", finding, shots, trial]), 16))
        episodes.append(np.concatenate([_some(train, count, rng), _some(train_negative, count, rng)]))
        held_out.append(np.concatenate([test, _some(test_negative, compared, rng)]))
    weights, intercepts = fit_trials(torch.from_numpy(np.stack(episodes)), torch.arange(2 * count) < count)
    scores = np.stack([x @ w + b for x, w, b in zip(held_out, weights.numpy(), intercepts.numpy(), strict=True)])
    aucs = auc(scores, np.arange(scores.shape[1]) < len(test))
    return {
        "finding": finding,
        "shots": shots,
        "auc": float(np.mean(aucs)),
        "auc_sd": float(np.std(aucs, ddof=1)),
        "train_positives": len(train),
        "test_positives": len(test),
    }


def fit_trials(features: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """The published probe on every trial: weights float64 [E, D] and intercepts float64 [E].

    Args:
        features: [E, n, D].
        positive: bool [n], half of them.
    """
    count = int(positive.sum())
    if count == 1:  # one image a class can't be cross-validated
        return fit_logistic(features.double(), positive.expand(len(features), -1), C=1.0)
    weights, intercepts, _ = fit_logistic_cv(features, positive, CROSS_VALIDATED_C, folds=min(5, count))
    return weights, intercepts


def _some(features: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return features[rng.choice(len(features), size=count, replace=False)]
