import pickle

import numpy as np
import pytest
from fewshot_cases import SIZE, make_metadata, write_dataset

from scarce.data.splits import image_splits
from scarce.errors import UserError
from scarce.fewshot.episodes import label_matrix
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import build_task

CONFIG = ProtocolConfig(shots=(1, 5, 200), min_pool=5, min_held_out=2, max_negatives=30, search_seeds=3, test_seeds=2)


@pytest.fixture(scope="module")
def metadata():
    return make_metadata(np.random.default_rng(0))


@pytest.fixture(scope="module")
def images(metadata):
    return np.random.default_rng(1).integers(0, 256, size=(len(metadata), SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, metadata, images):
    return write_dataset(tmp_path_factory.mktemp("hospital"), metadata, images)


def rows_of(task, metadata):
    return metadata.reset_index().set_index("image_id").loc[task.image_ids, "index"].to_numpy()


def test_a_val_task_holds_no_test_image_and_a_test_task_no_val_image(dataset, metadata):
    split = dict(zip(metadata["image_id"], image_splits(metadata, CONFIG.fractions), strict=True))
    for held_out in ("val", "test"):
        task = build_task(dataset, CONFIG, held_out=held_out, seeds=CONFIG.seeds(held_out))
        assert {split[name] for name in task.image_ids} == {"pool", held_out}
        assert {split[name] for rows in task.evaluated for name in task.image_ids[rows]} == {held_out}
        trained = [rows for e in task.episodes for rows in (e.positives, e.negatives)]
        assert {split[name] for rows in [*trained, task.reference] for name in task.image_ids[rows]} == {"pool"}


def test_pixels_labels_and_patients_belong_to_their_image(dataset, metadata, images):
    task = build_task(dataset, CONFIG, held_out="val", seeds=(0, 1))
    rows = rows_of(task, metadata)
    assert (task.images == images[rows]).all()
    assert (task.labels == label_matrix(metadata, task.findings)[rows]).all()
    assert (task.patients == metadata["patient_id"].to_numpy(dtype=str)[rows]).all()


def test_all_positives_and_the_capped_negatives_are_evaluated(dataset, metadata):
    task = build_task(dataset, CONFIG, held_out="test", seeds=(1000, 1001))
    held_out = image_splits(metadata, CONFIG.fractions) == "test"
    labels = label_matrix(metadata, task.findings)
    for finding in range(len(task.findings)):
        truth = task.truth(finding)
        assert truth.sum() == (labels[:, finding] & held_out).sum()
        assert (~truth).sum() == CONFIG.max_negatives
        ill = set(metadata["patient_id"][labels[:, finding]])
        assert not ill & set(task.patients[task.evaluated[finding][~truth]])


def test_unlabelled_images_are_never_evaluated_or_trained_on(dataset, metadata):
    task = build_task(dataset, CONFIG, held_out="val", seeds=(0, 1))
    labelled = metadata["labels"].notna().to_numpy()[rows_of(task, metadata)]
    assert labelled[np.concatenate(task.evaluated)].all()
    assert all(labelled[e.positives].all() and labelled[e.negatives].all() for e in task.episodes)


def test_episodes_are_labelled_right_ordered_and_the_impossible_named(dataset):
    task = build_task(dataset, CONFIG, held_out="val", seeds=(0, 1))
    assert [(e.finding, e.shots, e.seed) for e in task.episodes] == [
        (finding, shots, seed) for finding in ("hernia", "mass") for shots in (1, 5) for seed in (0, 1)
    ]
    for episode in task.episodes:
        column = task.findings.index(episode.finding)
        assert task.labels[episode.positives, column].all()
        assert not task.labels[episode.negatives, column].any()
    assert task.shots == ((1, 5), (1, 5))
    assert task.skipped == (("hernia", 200), ("mass", 200))


def test_evaluating_fewer_findings_changes_nothing_for_the_rest(dataset):
    both = build_task(dataset, CONFIG, held_out="val", seeds=(0, 1))
    one = build_task(dataset, ProtocolConfig(**{**vars(CONFIG), "findings": ("mass",)}), held_out="val", seeds=(0, 1))
    mass = [e for e in both.episodes if e.finding == "mass"]
    for a, b in zip(mass, one.episodes, strict=True):
        assert (both.image_ids[a.positives] == one.image_ids[b.positives]).all()
        assert (both.image_ids[a.negatives] == one.image_ids[b.negatives]).all()
    assert (both.image_ids[both.evaluated[1]] == one.image_ids[one.evaluated[0]]).all()
    assert (both.image_ids[both.reference] == one.image_ids[one.reference]).all()


def test_a_task_survives_pickling(dataset):
    task = build_task(dataset, CONFIG, held_out="val", seeds=(0, 1))
    copy = pickle.loads(pickle.dumps(task))
    assert (copy.images == task.images).all()
    assert copy.findings == task.findings


def test_more_shots_than_any_pool_is_one_clear_line(dataset):
    config = ProtocolConfig(shots=(5000,), min_pool=5, min_held_out=2)
    with pytest.raises(UserError, match="--shots"):
        build_task(dataset, config, held_out="val", seeds=(0, 1))
