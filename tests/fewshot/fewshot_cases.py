"""Small made-up hospitals and tasks for the few-shot tests."""

import numpy as np
import pandas as pd
from phantom_hospitals import write_films

from scarce.data.store import Dataset
from scarce.fewshot.episodes import Episode
from scarce.fewshot.task import Task

SIZE = 16


def make_metadata(rng, patients=300, rates=None, unlabelled=0.1) -> pd.DataFrame:
    """One to three images a patient; findings persist in a patient's images more often than not."""
    rates = rates or {"hernia": 0.25, "mass": 0.15}
    rows = []
    for patient in range(patients):
        has = {name: rng.random() < rate for name, rate in rates.items()}
        for image in range(rng.integers(1, 4)):
            labels = [name for name in rates if has[name] and rng.random() < 0.8] or ["No Finding"]
            rows.append((f"{patient:04d}-{image}", f"p{patient}", None if rng.random() < unlabelled else labels))
    frame = pd.DataFrame(rows, columns=["image_id", "patient_id", "labels"])
    frame["hospital"], frame["view"] = "here", "PA"
    return frame


def write_dataset(path, metadata: pd.DataFrame, images: np.ndarray, lungs: np.ndarray | None = None) -> Dataset:
    """A converted dataset of two shards with the metadata's rows in their order, of whatever columns it has."""
    return write_films(path, "here", metadata, images, lungs, shards=2)


def make_task(
    rng, findings=3, shots=(1, 4), seeds=4, positives=12, negatives=40, pool=60, images_a_patient=1, split="test"
):
    """A task of random images: `pool` of them for episodes, then the held-out ones, all evaluated for every finding."""
    names = tuple(f"finding {index}" for index in range(findings))
    held_out = (positives + negatives) * images_a_patient
    total = pool + held_out
    labels = np.zeros((total, findings), dtype=bool)
    for finding in range(findings):
        ill = rng.permutation(positives + negatives)[:positives]
        labels[pool:, finding] = np.isin(np.arange(held_out) // images_a_patient, ill)
        labels[:pool:2, finding] = True
    patients = np.concatenate([np.arange(pool), pool + np.arange(held_out) // images_a_patient]).astype(str)
    episodes = []
    for name in names:
        order = {seed: (2 * rng.permutation(pool // 2), 2 * rng.permutation(pool // 2) + 1) for seed in range(seeds)}
        episodes += [
            Episode(name, k, seed, order[seed][0][:k], order[seed][1][:k]) for k in shots for seed in range(seeds)
        ]
    return Task(
        held_out=split,
        images=rng.integers(0, 256, size=(total, SIZE, SIZE), dtype=np.uint8),
        image_ids=np.arange(total).astype(str),
        patients=patients,
        labels=labels,
        findings=names,
        shots=(tuple(shots),) * findings,
        seeds=tuple(range(seeds)),
        episodes=tuple(episodes),
        evaluated=(np.arange(pool, total),) * findings,
        reference=np.arange(pool),
        skipped=(),
    )
