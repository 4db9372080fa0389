import numpy as np
import pytest
import torch
from torch import nn

from scarce.backbones import create_backbone
from scarce.fewshot.features import extract_features
from scarce.views import to_input


def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(5))


def test_features_do_not_depend_on_the_batch_and_the_backbone_is_left_as_it_was():
    images = np.random.default_rng(0).integers(0, 256, size=(11, 12, 12), dtype=np.uint8)
    network = backbone().train()
    once = extract_features(network, images, 12, "cpu")
    state = {name: value.clone() for name, value in network.state_dict().items()}
    in_parts = extract_features(network, images, 12, "cpu", batch_size=3)
    assert once.shape == (11, 5)
    assert once.dtype == np.float32
    np.testing.assert_allclose(in_parts, once, atol=1e-5)
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_images_are_resized_with_an_anti_aliased_filter_and_normalised():
    stripes = np.zeros((1, 64, 64), dtype=np.uint8)
    stripes[:, :, ::2] = 255  # plain bilinear sampling would see only some of the stripes
    seen = extract_features(nn.Flatten(), stripes, 16, "cpu").reshape(16, 16)
    np.testing.assert_allclose(seen[:, 2:-2], 0, atol=0.05)  # mid-grey is 0 after normalisation
    white = extract_features(nn.Flatten(), np.full((1, 8, 8), 255, dtype=np.uint8), 8, "cpu")
    np.testing.assert_allclose(white, 2.0, atol=1e-6)


@pytest.mark.parametrize(("name", "count"), [("resnet_small", 4), ("vit_small", 4)])
def test_positions_are_the_backbones_whatever_the_batch(name, count):
    images = np.random.default_rng(0).integers(0, 256, size=(5, 32, 32), dtype=np.uint8)
    network = create_backbone(name, 0)
    positions = extract_features(network, images, 32, "cpu", batch_size=2, positions=True)
    assert positions.shape == (5, count, network.feature_dim)
    assert positions.dtype == np.float32
    with torch.inference_mode():
        expected = network.eval().positions(to_input(torch.from_numpy(images)))
    np.testing.assert_allclose(positions, expected, rtol=1e-4, atol=1e-4)
    if network.convolutional:
        pooled = extract_features(network, images, 32, "cpu")
        np.testing.assert_allclose(positions.mean(axis=1), pooled, rtol=1e-4, atol=1e-5)


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        extract_features(nn.Flatten(), np.zeros((0, 8, 8), dtype=np.uint8), 8, "cpu")
