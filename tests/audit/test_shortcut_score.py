from pathlib import Path

import numpy as np
import pytest

from scarce.audit.regions import thorax_box
from scarce.audit.shortcut_score import shortcut_score, without_thorax
from scarce.data.phantom import Confounding, PhantomConfig, write_phantom
from scarce.data.store import open_dataset
from scarce.fewshot.baselines import pixels_16
from scarce.fewshot.episodes import Episode
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Task, build_task

FINDING = "pulmonary fibrosis"


def test_seeds_are_averaged_before_chance_is_taken_off_and_findings_after():
    """A probe on one feature is its sign: an episode's AUC is that of the feature, or one minus it."""
    # Pool: rows 0 and 1, feature 1 and 0. Held out: rows 2 to 5, feature 0, 1, 2 and 3.
    features = np.array([[1], [0], [0], [1], [2], [3]], dtype=np.float32)
    labels = np.zeros((6, 3), dtype=bool)
    labels[[3, 5]] = True  # 3 of 4 pairs in order: the feature's AUC is 0.75 for every finding
    up, down = (0, 1), (1, 0)  # positive and negative image of an episode
    episodes = [
        Episode(name, 1, seed, np.array([positive]), np.array([negative]))
        for name, seeds in (("always", (up, up)), ("by luck", (up, down)), ("never", (down, down)))
        for seed, (positive, negative) in enumerate(seeds)
    ]
    task = Task(
        held_out="val",
        images=np.zeros((6, 8, 8), np.uint8),
        image_ids=np.arange(6).astype(str),
        patients=np.arange(6).astype(str),
        labels=labels,
        findings=("always", "by luck", "never"),
        shots=((1,),) * 3,
        seeds=(0, 1),
        episodes=tuple(episodes),
        evaluated=(np.arange(2, 6),) * 3,
        reference=np.arange(2),
        skipped=(),
    )
    # Cells: 0.75, (0.75 + 0.25) / 2 and 0.25; above chance: 0.25, 0 and not -0.25 but 0.
    probe = ProbeConfig(normalise="standardise", kind="prototype")
    found = shortcut_score(task, features, probe)
    assert found["val_shortcut"] == pytest.approx(0.25 / 3)
    # Without the first seed the second finding is at 0.25, without the second one at 0.75: scores 0.25/3 and 0.5/3.
    assert found["val_shortcut_se"] == pytest.approx(0.25 / 3 / 2)


def test_the_box_is_black_in_every_image_and_the_rest_untouched():
    images = np.random.default_rng(0).integers(1, 256, (3, 40, 40), dtype=np.uint8)
    before, hidden = images.copy(), without_thorax(images)
    assert np.array_equal(images, before)
    assert hidden.dtype == np.uint8
    box = thorax_box(40)
    assert not hidden[:, box].any()
    assert np.array_equal(hidden[:, ~box], images[:, ~box])


def test_a_marker_survives_without_the_thorax_and_a_finding_does_not(tmp_path: Path):
    protocol = ProtocolConfig(shots=(10, 50), search_seeds=4, findings=(FINDING,))

    def task_of(strength: float) -> Task:
        confounding = Confounding(FINDING, "marker", strength)
        config = PhantomConfig("b", patients=300, size=32, prevalence=0.4, confounding=confounding)
        write_phantom(config, tmp_path / str(strength))
        return build_task(open_dataset(tmp_path / str(strength)), protocol, held_out="val")

    def score(task: Task, images: np.ndarray) -> float:
        return shortcut_score(task, pixels_16(images), ProbeConfig(C=100, kind="ridge"))["val_shortcut"]

    with_marker, without = task_of(1.0), task_of(0.0)
    assert score(with_marker, without_thorax(with_marker.images)) > 0.25
    assert score(without, without_thorax(without.images)) < 0.1
    assert score(without, without.images) > 0.2
