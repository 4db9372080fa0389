from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import SIZE, pixel_backbone

from scarce.audit.saliency import ProbedNetwork, grad_cam, occlusion
from scarce.audit.subject import FrozenPipeline
from scarce.backbones import create_backbone
from scarce.fewshot.episodes import Episode
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import Kind, Normalisation, ProbeConfig
from scarce.fewshot.task import Task

SHOTS, HELD_OUT = 8, 20
READ = (slice(4, 12), slice(20, 28))  # where films with the finding are brighter


@pytest.fixture(scope="module")
def task() -> Task:
    """Two findings; the first is a bright square, in 8 positives, 8 negatives and half of 20 held-out films."""
    rng = np.random.default_rng(0)
    total = 2 * SHOTS + HELD_OUT
    images = rng.normal(110, 12, (total, SIZE, SIZE)).clip(0, 255).astype(np.uint8)
    labels = np.zeros((total, 2), dtype=bool)
    labels[:SHOTS, 0] = labels[2 * SHOTS :: 2, 0] = True
    labels[::3, 1] = True
    images[(labels[:, 0], *READ)] += 40
    pool = np.arange(2 * SHOTS)
    episodes = [Episode("first", SHOTS, seed, pool[:SHOTS], pool[SHOTS:]) for seed in (3, 4)]
    episodes += [Episode("second", 5, seed, np.arange(0, 15, 3), np.arange(1, 15, 3)) for seed in (3, 4)]
    return Task(
        held_out="test",
        images=images,
        image_ids=np.arange(total).astype(str),
        patients=np.arange(total).astype(str),
        labels=labels,
        findings=("first", "second"),
        shots=((SHOTS,), (5,)),
        seeds=(3, 4),
        episodes=tuple(episodes),
        evaluated=(np.arange(2 * SHOTS, total),) * 2,
        reference=pool,
        skipped=(),
    )


def pipeline(name: str = "resnet_small", **probe: object) -> FrozenPipeline:
    backbone = pixel_backbone() if name == "pixels" else create_backbone(name, 0).eval()
    return FrozenPipeline(backbone, SIZE, ProbeConfig(**probe), torch.device("cpu"))  # type: ignore[arg-type]


def flipped(task: Task) -> Task:
    """What was positive is negative: the same probe, with the other sign."""
    episodes = [replace(one, positives=one.negatives, negatives=one.positives) for one in task.episodes]
    return replace(task, episodes=tuple(episodes))


def scores_of(network: ProbedNetwork, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(network.input(images)).numpy()


@pytest.mark.parametrize("finding", [0, 1])
@pytest.mark.parametrize("normalise", get_args(Normalisation))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_network_scores_as_the_probe_of_the_first_episode(task: Task, kind, normalise, finding):
    frozen = pipeline(kind=kind, normalise=normalise, neighbours=5)
    features = frozen.features(task.images, frozen.probe.uses_positions)
    expected = score_task(task, features, frozen.probe).values[finding][0, 0]
    network = ProbedNetwork(frozen, task, finding)
    assert np.ptp(expected) > 0
    found = scores_of(network, task.images[task.evaluated[finding]])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("kind", ["logistic", "attention"])
def test_so_does_a_transformers(task: Task, kind):
    frozen = pipeline("vit_small", kind=kind)
    network = ProbedNetwork(frozen, task, 0)
    expected = score_task(task, frozen.features(task.images, frozen.probe.uses_positions), frozen.probe).values[0][0, 0]
    found = scores_of(network, task.images[task.evaluated[0]])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3 * np.ptp(expected))


@pytest.mark.parametrize("normalise", get_args(Normalisation))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_grad_cam_as_its_equations_have_it(task: Task, kind, normalise):
    """Selvaraju et al. 2017: α is the gradient's mean over a map (1), the picture ReLU(Σ α A) (2)."""
    frozen = pipeline(kind=kind, normalise=normalise, neighbours=16)
    images = task.images[task.evaluated[0][:6]]
    highest = 0.0
    for network in (ProbedNetwork(frozen, task, 0), ProbedNetwork(frozen, flipped(task), 0)):
        with torch.no_grad():
            maps = network.backbone.maps(network.input(images))[-1]
        maps.requires_grad_(True)
        features = maps.flatten(2).transpose(1, 2) if kind == "attention" else maps.mean(dim=(2, 3))
        x = (features.double() - network.centre) / network.deviation
        if normalise == "l2":
            pooled = x.mean(1, keepdim=True) if kind == "attention" else x
            x = x / pooled.norm(dim=-1, keepdim=True)
        (gradient,) = torch.autograd.grad(network.scorer(x).sum(), maps)
        alpha = gradient.mean(dim=(2, 3), keepdim=True)
        cells = F.relu((alpha * maps).sum(dim=1, keepdim=True)).detach()
        expected = F.interpolate(cells, size=images.shape[1:], mode="bilinear").squeeze(1).numpy()
        found = grad_cam(network, images)
        assert (found.shape, found.dtype) == (images.shape, np.float32)
        assert (found >= 0).all()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.max())
        highest = max(highest, found.max())
    assert highest > 0  # of one of the two at least


def test_grad_cam_of_many_films_is_that_of_each(task: Task):
    network = ProbedNetwork(pipeline(), task, 0)
    images = np.tile(task.images[:10], (7, 1, 1))  # more than a forward pass takes
    maps = grad_cam(network, images)
    alone = np.concatenate([grad_cam(network, image[None]) for image in images[:10]])
    np.testing.assert_allclose(maps, np.tile(alone, (7, 1, 1)), rtol=1e-3, atol=1e-5 * maps.max())


@pytest.mark.parametrize("name", ["pixels", "resnet_small", "vit_small"])
def test_occlusion_is_at_least_zero_and_of_the_films_size(task: Task, name):
    network = ProbedNetwork(pipeline(name), task, 0)
    images = task.images[task.evaluated[0][:2]]
    maps = occlusion(network, images)
    assert (maps.shape, maps.dtype) == (images.shape, np.float32)
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    assert (maps.max(axis=(1, 2)) > 0).all()


def test_occlusion_of_a_linear_reader_of_pixels_is_highest_where_it_reads(task: Task):
    network = ProbedNetwork(pipeline("pixels", normalise="standardise"), task, 0)
    weights = np.zeros((SIZE, SIZE))
    weights[READ] = 1
    cells = torch.from_numpy(weights[::4, ::4].ravel())
    network.scorer = lambda x: x @ cells
    with_it = task.images[task.evaluated[0][task.truth(0)]]
    for heat in occlusion(network, with_it):
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert weights[row, column]
        assert heat[READ].min() > 0
        assert heat[:, :15].max() < 1e-6  # no square that reaches the place covers any pixel here
        assert heat[17:].max() < 1e-6


def test_what_counts_against_the_finding_is_not_shown(task: Task):
    """Covering a bright place that lowers the score raises it: no fall."""
    network = ProbedNetwork(pipeline("pixels", normalise="standardise"), task, 0)
    weights = np.zeros((SIZE, SIZE))
    weights[READ] = -1
    cells = torch.from_numpy(weights[::4, ::4].ravel())
    network.scorer = lambda x: x @ cells
    film = np.full((1, SIZE, SIZE), 60, np.uint8)
    film[(0, *READ)] = 250
    assert occlusion(network, film)[(0, slice(6, 10), slice(22, 26))].max() < 1e-6


def test_larger_films_have_maps_of_their_own_size(task: Task):
    large = replace(task, images=np.kron(task.images, np.ones((1, 2, 2), np.uint8)))
    network = ProbedNetwork(pipeline(), large, 0)
    for explain in (grad_cam, occlusion):
        assert explain(network, large.images[:2]).shape == (2, 2 * SIZE, 2 * SIZE)
