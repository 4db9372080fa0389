"""Everything a backbone is judged on, in plain arrays: made once and shipped to every trial."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scarce.data.pixels import reduce_images
from scarce.data.splits import image_splits
from scarce.data.store import Dataset
from scarce.fewshot.episodes import Episode, choose_findings, draw_episodes, label_matrix, negative_images
from scarce.fewshot.protocol import ProtocolConfig
from scarce.files import stable_hash

REFERENCE_IMAGES = 256  # enough for a mean and a standard deviation a feature


@dataclass(frozen=True, eq=False)
class Task:
    """The images, labels and episodes of one evaluation. All row numbers point into `images`.

    Attributes:
        held_out: the split that is scored. A val task holds no test image.
        images: uint8 [N, H, W]; only those that some array below points to.
        image_ids: str [N].
        patients: str [N].
        labels: which images show which findings, bool [N, F].
        findings: F names, sorted.
        shots: for every finding, the shots its pool can supply, ascending; at least one.
        seeds: one episode each.
        episodes: ordered by finding, shots, seed.
        evaluated: for every finding, the held-out images that are scored: all positives and the capped negatives
            (patients without any positive image), int64, ascending.
        reference: pool images whose features say how a feature is centred and scaled; their labels are not used.
        skipped: (finding, shots) that the pool can't supply.
    """

    held_out: Literal["val", "test"]
    images: np.ndarray
    image_ids: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    findings: tuple[str, ...]
    shots: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    episodes: tuple[Episode, ...]
    evaluated: tuple[np.ndarray, ...]
    reference: np.ndarray
    skipped: tuple[tuple[str, int], ...]

    def place(self, episode: Episode) -> tuple[int, tuple[int, int]]:
        """Where the episode's scores lie in `Scores`: index of its finding, and (shots, seed) in that array."""
        finding = self.findings.index(episode.finding)
        return finding, (self.shots[finding].index(episode.shots), self.seeds.index(episode.seed))

    def with_shots(self, shots: Sequence[int]) -> "Task":
        """The task with one number of shots for every finding, which it must have."""
        wanted = dict(zip(self.findings, shots, strict=True))
        episodes = tuple(episode for episode in self.episodes if episode.shots == wanted[episode.finding])
        return replace(self, shots=tuple((count,) for count in shots), episodes=episodes)

    def with_largest_shots(self) -> "Task":
        """The task with every finding's largest number of shots only."""
        return self.with_shots([able[-1] for able in self.shots])

    def first_seeds(self, count: int) -> "Task":
        """The task with its first seeds only."""
        seeds = self.seeds[:count]
        return replace(self, seeds=seeds, episodes=tuple(episode for episode in self.episodes if episode.seed in seeds))

    def empty_scores(self) -> "Scores":
        """Scores to be filled in."""
        cells = [(len(shots), len(self.seeds)) for shots in self.shots]
        pairs = zip(cells, self.evaluated, strict=True)
        return Scores(tuple(np.full((*cell, len(rows)), np.nan) for cell, rows in pairs))

    def truth(self, finding: int) -> np.ndarray:
        """Which of the images evaluated for the finding of this index show it: bool [len(evaluated[finding])]."""
        return self.labels[self.evaluated[finding], finding]


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's scores of a task's held-out images; higher means more likely positive.

    Attributes:
        values: for every finding, float64 [shots, seeds, evaluated images], in the task's order.
    """

    values: tuple[np.ndarray, ...]


def build_task(
    dataset: Dataset,
    config: ProtocolConfig,
    *,
    held_out: Literal["val", "test"],
    seeds: Sequence[int] | None = None,
    largest_size: int | None = None,
) -> Task:
    """The task of the labelled hospital `dataset`, scored on its `held_out` split.

    With the protocol's seeds for that split, or `seeds`. Images larger than `largest_size` pixels a side are reduced to
    it (Lanczos), as backbones would see no more of them.

    Images without labels (None) enter only `reference`, where no label is looked at.

    Raises:
        UserError: no finding has enough patients; see `choose_findings`.
    """
    seeds = config.seeds(held_out) if seeds is None else seeds
    metadata = dataset.metadata()
    split = image_splits(metadata, config.fractions)
    findings = choose_findings(metadata, split, config)
    labels = label_matrix(metadata, findings)
    labelled = metadata["labels"].notna().to_numpy()
    patients = metadata["patient_id"].to_numpy(dtype=str)
    image_ids = metadata["image_id"].to_numpy(dtype=str)
    order = _hash_order(image_ids)

    episodes: list[Episode] = []
    evaluated: list[np.ndarray] = []
    shots: list[tuple[int, ...]] = []
    for index, finding in enumerate(findings):
        positive = labels[:, index]
        negative = negative_images(positive, labelled, patients)
        pool, held = split == "pool", split == held_out
        drawn = draw_episodes(
            finding,
            np.flatnonzero(positive & pool),
            np.flatnonzero(negative & pool),
            patients,
            config.shots,
            seeds,
        )
        episodes += drawn
        shots.append(tuple(sorted({episode.shots for episode in drawn})))
        capped = order[(negative & held)[order]][: config.max_negatives]
        evaluated.append(np.sort(np.concatenate([np.flatnonzero(positive & held), capped])))
    reference = np.sort(order[(split == "pool")[order]][:REFERENCE_IMAGES])

    in_episodes = [rows for episode in episodes for rows in (episode.positives, episode.negatives)]
    needed = np.unique(np.concatenate([*in_episodes, *evaluated, reference]))
    moved = np.full(len(metadata), -1)
    moved[needed] = np.arange(len(needed))
    images = dataset.pixels(needed)
    if largest_size is not None and images.shape[1] > largest_size:
        images = reduce_images(images, largest_size)
    return Task(
        held_out=held_out,
        images=images,
        image_ids=image_ids[needed],
        patients=patients[needed],
        labels=labels[needed],
        findings=findings,
        shots=tuple(shots),
        seeds=tuple(seeds),
        episodes=tuple(replace(e, positives=moved[e.positives], negatives=moved[e.negatives]) for e in episodes),
        evaluated=tuple(moved[rows] for rows in evaluated),
        reference=moved[reference],
        skipped=tuple(
            (f, count) for f, able in zip(findings, shots, strict=True) for count in config.shots if count not in able
        ),
    )


def _hash_order(image_ids: np.ndarray) -> np.ndarray:
    """The images' row numbers in an order that adding images does not change.

    One order for all findings, so that they share most of their capped negatives and fewer features are extracted.
    """
    return np.argsort([stable_hash(["capped", image_id]) for image_id in image_ids.tolist()], kind="stable")
