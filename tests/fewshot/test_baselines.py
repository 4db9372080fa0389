import numpy as np
import pytest
import torch
from fewshot_cases import make_task
from torchvision.models import resnet18

from scarce.backbones import small_resnet
from scarce.errors import UserError
from scarce.fewshot import baselines, imagenet
from scarce.fewshot.auc import auc
from scarce.fewshot.baselines import (
    evaluate_baselines,
    from_scratch,
    imagenet_network,
    pixel_statistics,
    pixels_16,
    small_pixels,
)
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.evaluate import validation
from scarce.fewshot.forest import random_forest


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


def evaluate(rng, config: BaselinesConfig, split_positives: int = 12):
    val, test = (make_task(rng, findings=1, split=split, positives=split_positives) for split in ("val", "test"))
    backbone = small_resnet((4, 4, 8, 8)).eval()
    return evaluate_baselines(val, test, backbone, "resnet_small", 16, "cpu", config)


def test_every_baseline_reports_or_says_why_not(rng):
    rows = evaluate(rng, BaselinesConfig(scratch_seeds=0))
    assert set(rows) == {
        "pixel_statistics",
        "pixels_16",
        "random_forest",
        "random_weights",
        "from_scratch",
        "imagenet",
    }
    for name, scores in rows.items():
        if name in ("from_scratch", "imagenet"):
            assert isinstance(scores, str)
            assert "--" in scores
        else:
            assert scores.values[0].shape == (2, 4, 52)
            assert np.isfinite(scores.values[0]).all()


def test_from_scratch_is_trained_on_as_many_seeds_as_asked(rng):
    for asked, done in ((2, 2), (9, 4)):
        scores = evaluate(rng, BaselinesConfig(scratch_seeds=asked))["from_scratch"]
        assert scores.values[0].shape == (2, done, 52)
        assert np.isfinite(scores.values[0]).all()


def test_from_scratch_learns_what_a_few_images_can_teach(rng):
    val, test = (make_task(rng, findings=1, shots=(1, 20), positives=20, split=split) for split in ("val", "test"))
    for task in (val, test):
        task.images[:] = task.images // 8 + 60
        task.images[task.labels[:, 0], 4:12, 4:12] += 60
    backbone = small_resnet((4, 4, 8, 8)).eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    scores = from_scratch(val, test, backbone, 16, "cpu", seeds=2)
    assert auc(scores.values[0], test.truth(0))[1].mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_training_that_diverges_costs_its_own_row_only(rng, monkeypatch):
    monkeypatch.setattr(baselines, "SCRATCH_RATES", (1e30, 1e31))
    assert "diverged" in evaluate(rng, BaselinesConfig(scratch_seeds=2))["from_scratch"]
    monkeypatch.setattr(baselines, "SCRATCH_RATES", (1e30, 1e-3))  # the rate that does not diverge is taken
    assert np.isfinite(evaluate(rng, BaselinesConfig(scratch_seeds=2))["from_scratch"].values[0]).all()


def test_imagenet_weights_are_taken_from_a_file(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "SIDE", 32)  # 224 pixels take ten seconds
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "weights.pth")
    scores = evaluate(rng, BaselinesConfig(imagenet=str(tmp_path / "weights.pth"), scratch_seeds=0))["imagenet"]
    assert scores.values[0].shape == (2, 4, 52)


def test_weights_that_do_not_arrive_are_a_reason_and_no_error(monkeypatch):
    for kind in (OSError, UserError):

        def fail(name: str, kind: type[Exception] = kind) -> None:
            raise kind(f"no weights of {name}")

        monkeypatch.setattr(baselines, "download_imagenet", fail)
        assert imagenet_network("download", "resnet18") == "not available: no weights of resnet18"
    with pytest.raises(UserError, match="no such file"):
        imagenet_network("nowhere.pth", "resnet18")
