"""What is audited: a task, how scores come about for it, and everything else that is known of its images."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from scarce.audit.yardstick import Measured, Yardstick
from scarce.backbones import Backbone
from scarce.data.store import Dataset
from scarce.fewshot.evaluate import one_thread, score_task
from scarce.fewshot.features import extract_features
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task

Pipeline = Callable[[Task], Scores]  # trains on every episode of a task, on its images as they are, and scores them


@dataclass(frozen=True, eq=False)
class FrozenPipeline:
    """A backbone without further training, and a probe on its features."""

    backbone: Backbone  # on `device`, in eval mode
    image_size: int
    probe: ProbeConfig
    device: torch.device
    _known: dict[bool, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, task: Task) -> Scores:
        """Train the probe on every episode, score the held-out images."""
        return self._probe(task, self.features(task.images, self.probe.uses_positions))

    def _probe(self, task: Task, features: np.ndarray) -> Scores:
        with one_thread():
            return score_task(task, features, self.probe)

    def features(self, images: np.ndarray, positions: bool = False) -> np.ndarray:
        """Features of uint8 [N, H, W]: float32 [N, D], or of every position.

        Those of the task that the pipeline was `prepared` for are known and not extracted again.
        """
        images_known, features = self._known.get(positions, (None, None))
        if features is not None and images is images_known:
            return features
        return extract_features(self.backbone, images, self.image_size, self.device, positions=positions)

    def prepared(self, task: Task) -> Pipeline:
        """The same pipeline for variants of a task: images that are as in `task` keep their features.

        Most audits change the held-out images only, or no image at all.
        """
        known = self.features(task.images, self.probe.uses_positions)
        self._known[self.probe.uses_positions] = task.images, known

        def score(variant: Task) -> Scores:
            if variant.images is task.images:
                return self._probe(variant, known)
            if variant.images.shape != task.images.shape:
                return self(variant)
            features = known.copy()
            changed = np.flatnonzero((variant.images != task.images).any(axis=(1, 2)))
            if len(changed):
                features[changed] = self.features(variant.images[changed], self.probe.uses_positions)
            return self._probe(variant, features)

        return score


@dataclass(frozen=True, eq=False)
class Subject:
    """Everything an audit may look at.

    Attributes:
        task: of the split that the result is about, with every finding's largest number of shots
            only: where a probe can learn most, shortcuts too.
        score: the pipeline whose result is audited, for variants of `task` with changed images or labels.
        hospital: the labelled one.
        protocol: by which the task was made.
        frozen: the pipeline where it is a frozen backbone with a probe; None where networks are fine-tuned.
        other: another hospital's dataset; None where there is none.
        lungs: true or segmented lungs of the task's images, bool [N, S, S]; None where there are none.
        unusable_masks: why lung masks that were given can't be used.
        left_out: findings that were asked for and can't be audited, each with the reason.
        count: bootstrap resamples.
        permutations: of the labels, for the audit of chance.
    """

    task: Task
    score: Pipeline
    hospital: Dataset
    protocol: ProtocolConfig
    frozen: FrozenPipeline | None
    other: Dataset | None
    lungs: np.ndarray | None = None
    unusable_masks: str = ""
    left_out: tuple[str, ...] = ()
    count: int = 1000
    permutations: int = 99

    @cached_property
    def table(self) -> pd.DataFrame:
        """What is known of all images of the hospital, by row of its dataset."""
        return self.hospital.metadata()

    @cached_property
    def films(self) -> pd.DataFrame:
        """What is known of the task's images, in their order."""
        return self.table.set_index("image_id").loc[list(self.task.image_ids)].reset_index()

    @cached_property
    def yardstick(self) -> Yardstick:
        """Measures every variant on the same resamples."""
        return Yardstick(self.task, self.count, self.protocol.confidence)

    @cached_property
    def scores(self) -> Scores:
        """Of the held-out images, as they are."""
        return self.score(self.task)

    @cached_property
    def whole(self) -> Measured:
        """AUC on the pictures as they are: what every audit compares with."""
        return self.yardstick.auc(self.scores)

    @property
    def size(self) -> int:
        """Side of the task's images in pixels."""
        return self.task.images.shape[1]

    @cached_property
    def held_out(self) -> np.ndarray:
        """Row numbers of the images that are scored for any finding."""
        return np.unique(np.concatenate(self.task.evaluated))

    def with_images(self, images: np.ndarray) -> Scores:
        """Scores of the pipeline trained and tested on other pictures of the same patients, uint8 [N, S, S]."""
        return self.score(replace(self.task, images=images))

    def with_held_out(self, change: Callable[[np.ndarray], np.ndarray]) -> Scores:
        """Scores of the pipeline trained on the pictures as they are and tested on changed ones."""
        images = self.task.images.copy()
        images[self.held_out] = change(images[self.held_out])
        return self.with_images(images)
