import numpy as np
import pytest
from fewshot_cases import make_task
from torch import nn

from scarce.fewshot.baselines import evaluate_baselines, pixel_statistics, pixels_16, small_pixels, tune_probe
from scarce.fewshot.evaluate import score_task, validation
from scarce.fewshot.forest import random_forest
from scarce.fewshot.probe import ProbeConfig


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_pixel_statistics_are_those_of_numpy(rng):
    images = rng.integers(0, 256, size=(3, 20, 20), dtype=np.uint8)
    features = pixel_statistics(images)
    flat = images.reshape(3, -1)
    assert features.shape == (3, 41)
    np.testing.assert_allclose(features[:, 0], flat.mean(axis=1) / 255, rtol=1e-6)
    np.testing.assert_allclose(features[:, 1], flat.std(axis=1) / 255, rtol=1e-6)
    shares = (1, 5, 25, 50, 75, 95, 99)
    expected = np.percentile(flat, shares, axis=1, method="inverted_cdf").T / 255
    np.testing.assert_allclose(features[:, 2:9], expected, rtol=1e-6)
    histogram = [np.histogram(image, bins=32, range=(0, 256))[0] / 400 for image in flat]
    np.testing.assert_allclose(features[:, 9:], histogram, rtol=1e-6)


def test_pixels_16_are_means_of_blocks(rng):
    images = rng.integers(0, 256, size=(2, 64, 64), dtype=np.uint8)
    expected = images.reshape(2, 16, 4, 16, 4).mean(axis=(2, 4)).reshape(2, 256) / 255
    np.testing.assert_allclose(pixels_16(images), expected, rtol=1e-5)
    assert pixels_16(images[:, :50, :50]).shape == (2, 256)


def test_a_forest_sees_a_dark_corner_and_repeats_exactly(rng):
    task = make_task(rng, findings=1, shots=(8,), seeds=2)
    task.images[task.labels[:, 0], :8, :8] //= 2
    pixels = small_pixels(task.images)
    one, two = random_forest(task, pixels), random_forest(task, pixels)
    np.testing.assert_array_equal(one.values[0], two.values[0])
    assert validation(task, one)["val_auc"] > 0.8


def test_the_probe_is_chosen_by_val_and_never_by_test(rng):
    val, test = make_task(rng, split="val"), make_task(rng, split="test")
    features = rng.normal(size=(len(val.images), 4)).astype(np.float32)
    features[:, :3] += val.labels
    features[:, 3] *= 1000  # drowns the others unless every feature is scaled
    grid = (ProbeConfig(1.0, "l2"), ProbeConfig(1.0, "standardise"))
    aucs = [validation(val, score_task(val, features, probe))["val_auc"] for probe in grid]
    assert aucs[1] > aucs[0]
    assert tune_probe(features, val, grid) == grid[1]
    with pytest.raises(ValueError, match="val task"):
        tune_probe(features, test, grid)


def test_every_baseline_reports_or_says_why_not(rng):
    val, test = make_task(rng, findings=1, split="val"), make_task(rng, findings=1)
    baselines = evaluate_baselines(val, test, nn.Flatten(), 16, "cpu")
    assert set(baselines) == {
        "pixel_statistics",
        "pixels_16",
        "random_forest",
        "random_weights",
        "from_scratch",
        "imagenet",
    }
    for name, scores in baselines.items():
        if name in ("from_scratch", "imagenet"):
            assert isinstance(scores, str)
        else:
            assert scores.values[0].shape == (2, 4, 52)
            assert np.isfinite(scores.values[0]).all()
