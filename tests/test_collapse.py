"""Collapse is measured right, caught when a method is driven into it, and not seen in what only starts slowly."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from scarce.backbones import small_resnet
from scarce.checkpoint import HISTORY_NAME, list_checkpoints
from scarce.collapse import LEAST, collapse_reason, effective_rank, measure
from scarce.config import PretrainConfig
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.pixels import Pixels
from scarce.data.store import open_dataset
from scarce.methods import REGISTRY, Method
from scarce.pretrain import pretrain
from scarce.settings import default_settings, override

CPU = torch.device("cpu")


class Fixed(Method):
    """Embeds an image as what its pixels say."""

    TARGET_STD = 2.0

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def embed_as(z: Tensor, other: Tensor) -> dict[str, float]:
    return measure(Fixed(), z[:, None, None], other[:, None, None])


def random(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_statistics_are_their_definitions():
    z, other = random(6, 4), random(6, 4, 1)
    numbers = embed_as(z, other)
    a, b = z.double().numpy(), other.double().numpy()
    spread = a.std(axis=0, ddof=1).mean()
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    assert numbers["std_reached"] == pytest.approx(spread / 2, rel=1e-5)
    assert numbers["embedding_std"] == pytest.approx(2 * a.std(axis=0, ddof=1).mean(), rel=1e-5)
    assert numbers["mean_cosine"] == pytest.approx(np.mean([a[i] @ a[j] for i, j in pairs]), abs=1e-6)
    assert numbers["alignment"] == pytest.approx(np.mean([((x - y) ** 2).sum() for x, y in zip(a, b, strict=True)]))
    potential = np.mean([math.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i, j in pairs])
    assert numbers["uniformity"] == pytest.approx(math.log(potential), rel=1e-5)
    singular = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
    share = singular / singular.sum()
    share = share[share > 1e-12]
    assert numbers["effective_rank"] == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_directions(rank):
    basis = torch.linalg.qr(random(40, rank + 1))[0]
    centred = basis[:, :rank] - basis[:, :rank].mean(dim=0)
    orthogonal = torch.linalg.qr(centred)[0]
    assert effective_rank(orthogonal) == pytest.approx(rank, rel=0.02)


def test_a_point_and_a_sphere():
    dead, alive = embed_as(torch.ones(50, 16), torch.ones(50, 16)), embed_as(random(300, 16), random(300, 16, 1))
    assert (dead["embedding_std"], dead["mean_cosine"], dead["alignment"]) == pytest.approx((0, 1, 0), abs=1e-6)
    assert math.isfinite(dead["effective_rank"])
    assert alive["embedding_std"] == pytest.approx(1, abs=0.05)
    assert abs(alive["mean_cosine"]) < 0.02
    assert 14 < alive["effective_rank"] <= 16
    assert alive["alignment"] == pytest.approx(2, abs=0.2)


class TestRule:
    HEALTHY: ClassVar = {"embedding_std": 0.5, "effective_rank": 20.0, "std_reached": 0.5}

    @pytest.mark.parametrize("name", sorted(LEAST))
    def test_two_reports_below_and_not_rising_are_dead(self, name):
        low = {**self.HEALTHY, name: LEAST[name] / 2}
        assert collapse_reason([low]) is None
        assert collapse_reason([self.HEALTHY, low]) is None
        reason = collapse_reason([self.HEALTHY, low, low])
        assert reason is not None
        assert name in reason
        assert f"{LEAST[name] / 2:.3g}" in reason

    def test_a_slow_start_is_not_a_death(self):
        rising = [{**self.HEALTHY, "embedding_std": value} for value in (0.01, 0.02, 0.04)]
        assert all(collapse_reason(rising[:end]) is None for end in (1, 2, 3))
        assert collapse_reason([rising[2], rising[1], rising[0]]) is not None


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    folder = tmp_path_factory.mktemp("collapse") / "a"
    write_phantom(PhantomConfig("a", patients=200, size=32), folder)
    return Pixels([open_dataset(folder).pixels()])


def run(images: Pixels, folder: Path, method: str, values: dict[str, Any], stop: bool = True) -> list[dict[str, float]]:
    torch.set_num_threads(1)
    config = PretrainConfig(method=method, image_size=32, epochs=6, batch_size=32, report_epochs=0.5)
    recipe = override(default_settings(config, len(images)), values).recipe
    history: list[dict[str, float]] = []
    pretrain(recipe, images, folder, device=CPU, report=history.append, stop_on_collapse=stop)
    return history


# What is broken, what sees it, and how. High learning rates make short runs of it.
DRIVEN = [
    ("vicreg", {"method.variance_weight": 0.0, "optimiser.lr": 0.03}, "std_reached"),
    ("simclr", {"method.temperature": 100.0, "optimiser.lr": 0.05}, "effective_rank"),
    (
        "dino",
        {
            "method.centre_momentum": 1.0,
            "method.head_batch_norm": False,
            "method.local_views": 0,
            "method.prototypes": 256,
            "optimiser.lr": 4e-3,
        },
        "embedding_std",
    ),
]


@pytest.mark.parametrize(("method", "values", "sign"), DRIVEN, ids=["no variance", "temperature", "no centring"])
def test_a_run_driven_into_collapse_is_stopped_with_the_number_that_said_so(method, values, sign, images, tmp_path):
    history = run(images, tmp_path / "run", method, values)
    assert history[-1]["epoch"] < 6
    assert history[-1]["collapsed"] == 1
    reason = collapse_reason(history)
    assert reason is not None
    assert sign in reason
    assert [m["collapsed"] for m in history[:-1]] == [0] * (len(history) - 1)
    # Started again it stays ended, and reports what it reported.
    assert run(images, tmp_path / "run", method, values) == history
    assert list_checkpoints(tmp_path / "run")[-1].name == f"step-{int(history[-1]['step']):08d}.pt"
    assert (tmp_path / "run" / HISTORY_NAME).exists()


def test_the_same_rates_without_the_fault_are_healthy(images, tmp_path):
    for method, values, _ in DRIVEN[:2]:
        sound = {key: value for key, value in values.items() if key in ("optimiser.lr",)}
        history = run(images, tmp_path / method, method, sound)
        assert history[-1]["epoch"] == 6
        assert not any(m["collapsed"] for m in history)


def test_without_the_rule_a_dead_run_goes_on(images, tmp_path):
    method, values, _ = DRIVEN[1]
    history = run(images, tmp_path, method, values, stop=False)
    assert history[-1]["epoch"] == 6
    assert any(m["collapsed"] for m in history)


def test_a_reconstruction_has_no_collapse_to_stop():
    assert not REGISTRY["spark"].CAN_COLLAPSE
    assert all(cls.CAN_COLLAPSE for name, cls in REGISTRY.items() if name != "spark")


def test_watched_images_are_not_trained_on(images, monkeypatch, tmp_path):
    asked: list[np.ndarray] = []
    gather = Pixels.gather

    def remember(self: Pixels, index: np.ndarray) -> np.ndarray:
        got = gather(self, index)
        asked.append(got)
        return got

    monkeypatch.setattr(Pixels, "gather", remember)
    run(images, tmp_path, "simclr", {})
    watched, *trained = asked
    seen = {image.tobytes() for image in np.concatenate(trained)}
    assert len(watched) == len(images) // 10
    assert not any(image.tobytes() in seen for image in watched)


def test_small_resnet_embeds_in_eval_mode_and_leaves_statistics_alone():
    method = REGISTRY["simclr"](small_resnet((8, 8, 16, 16)), REGISTRY["simclr"].Config())
    before = {key: value.clone() for key, value in method.state_dict().items()}
    measure(method, torch.randn(4, 1, 32, 32), torch.randn(4, 1, 32, 32))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
