import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from fewshot_cases import SIZE, make_metadata, write_dataset
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

from scarce.errors import UserError
from scarce.fewshot import original
from scarce.fewshot.original import evaluate_original, is_held_out


@pytest.fixture(scope="module")
def metadata():
    metadata = make_metadata(np.random.default_rng(0), patients=500, rates={"hernia": 0.3, "mass": 0.3})
    views = [None if row % 10 == 0 else "AP" for row in range(len(metadata))]
    metadata["view"] = pd.Series(views, dtype=object)
    return metadata


@pytest.fixture
def dataset(tmp_path, metadata):
    images = np.random.default_rng(1).integers(0, 200, size=(len(metadata), SIZE, SIZE), dtype=np.uint8)
    images[[row == ["hernia"] for row in metadata["labels"]], :4] += 50
    return write_dataset(tmp_path, metadata, images)


def flat(images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def test_cells_count_single_label_frontal_images_of_the_patients_by_md5(dataset, metadata, monkeypatch):
    monkeypatch.setattr(original, "TRIALS", 2)
    result = evaluate_original(dataset, flat)
    assert [(cell["finding"], cell["shots"]) for cell in result["cells"]] == [
        (finding, shots) for finding in ("hernia", "mass") for shots in (1, 5, 10, 20, 50)
    ]
    counts = {True: 0, False: 0}
    for patient, labels, view in zip(metadata["patient_id"], metadata["labels"], metadata["view"], strict=True):
        if labels == ["hernia"] and view:
            counts[int(hashlib.md5(patient.encode()).hexdigest(), 16) % 5 == 0] += 1
    assert result["cells"][0]["test_positives"] == counts[True]
    assert result["cells"][0]["train_positives"] == counts[False]
    by_cell = {(cell["finding"], cell["shots"]): cell["auc"] for cell in result["cells"]}
    assert by_cell["hernia", 50] > 0.9
    assert abs(by_cell["mass", 50] - 0.5) < 0.25
    assert result["auc"] == pytest.approx(np.mean(list(by_cell.values())))


def fit_by_scikit_learn(features, positive):
    """`fit_trials` as SCARCE-CXR writes it, to a tight tolerance."""
    tight, folds = {"tol": 1e-9, "max_iter": 100_000}, min(5, len(positive) // 2)
    fitted = []
    for x in features.numpy():
        probe = LogisticRegression(C=1.0, **tight)
        if folds > 1:
            probe = LogisticRegressionCV(Cs=[0.01, 0.1, 1, 10, 100], cv=folds, scoring="accuracy", **tight)
        probe.fit(x, positive)
        fitted.append((probe.coef_[0], probe.intercept_[0]))
    weights, intercepts = zip(*fitted, strict=True)
    return torch.tensor(np.array(weights)), torch.tensor(np.array(intercepts))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_auc_is_that_of_scikit_learns_probe(dataset, monkeypatch):
    monkeypatch.setattr(original, "TRIALS", 2)
    ours = evaluate_original(dataset, flat)
    monkeypatch.setattr(original, "fit_trials", fit_by_scikit_learn)
    peers = evaluate_original(dataset, flat)
    for one, other in zip(ours["cells"], peers["cells"], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_the_same_dataset_gives_the_same_numbers(dataset, monkeypatch):
    monkeypatch.setattr(original, "TRIALS", 2)
    monkeypatch.setattr(original, "SHOTS", (1, 5))
    assert evaluate_original(dataset, flat, ["mass"]) == evaluate_original(dataset, flat, ["mass"])


def test_too_few_images_is_one_clear_line(dataset):
    with pytest.raises(UserError, match="--protocol scarce"):
        evaluate_original(dataset, flat, ["measles"])


def test_one_patient_in_five_is_held_out():
    assert np.mean([is_held_out(str(number)) for number in range(10_000)]) == pytest.approx(0.2, abs=0.02)
