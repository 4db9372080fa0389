from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scarce import pretrain as module
from scarce.checkpoint import BEST_NAME, HISTORY_NAME, KEPT, list_checkpoints, load_last_checkpoint
from scarce.config import PretrainConfig
from scarce.data.pixels import Pixels
from scarce.errors import UserError
from scarce.methods import REGISTRY, OptimiserConfig
from scarce.pretrain import (
    Recipe,
    build_method,
    build_optimiser,
    count_held_out,
    count_steps,
    learning_rate,
    next_views,
    pretrain,
    train_step,
)
from scarce.views import ViewConfig

CPU = torch.device("cpu")


def images(count: int = 72, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    return Pixels([rng.integers(0, 256, (n, 32, 32), dtype=np.uint8) for n in (count // 2, count - count // 2)])


def recipe(method: str = "simclr", epochs: int = 3, report_epochs: float = 0.5, seed: int = 0) -> Recipe:
    config = PretrainConfig(
        method=method, image_size=32, epochs=epochs, batch_size=16, report_epochs=report_epochs, seed=seed
    )
    cls = REGISTRY[method]
    return Recipe(config, cls.default_config(72, count_steps(config, 72)), cls.OPTIMISER, ViewConfig())


class Stop(Exception):
    """Stands for a kill: leaves the loop between two steps."""


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_run_stopped_in_mid_epoch_goes_on_to_the_same_bits(name, tmp_path):
    torch.set_num_threads(1)
    undisturbed: list[dict[str, float]] = []
    whole = pretrain(recipe(name), images(), tmp_path / "whole", device=CPU, report=undisturbed.append)

    def stop_at_third(metrics: dict[str, float]) -> None:
        if metrics["step"] == 6:
            raise Stop

    with pytest.raises(Stop):
        pretrain(recipe(name), images(), tmp_path / "cut", device=CPU, report=stop_at_third)
    replayed: list[dict[str, float]] = []
    resumed = pretrain(recipe(name), images(), tmp_path / "cut", device=CPU, report=replayed.append)
    without_time = [{k: v for k, v in m.items() if k != "images_per_s"} for m in undisturbed]
    assert [{k: v for k, v in m.items() if k != "images_per_s"} for m in replayed] == without_time
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_seeds_decide_the_run(tmp_path):
    def losses(seed: int, folder: str) -> list[float]:
        history: list[dict[str, float]] = []
        pretrain(recipe(epochs=1, seed=seed), images(), tmp_path / folder, device=CPU, report=history.append)
        return [m["loss"] for m in history]

    assert losses(0, "a") == losses(0, "b") != losses(1, "c")


def test_checkpoints_are_bounded_and_the_best_is_kept(tmp_path):
    scores = iter([0.5, 0.9, 0.6, 0.7, 0.8, 0.4])
    pretrain(
        recipe(), images(), tmp_path, device=CPU, report=lambda m: None, evaluate=lambda b: {"val_auc": next(scores)}
    )
    assert len(list_checkpoints(tmp_path)) == KEPT
    best = torch.load(tmp_path / BEST_NAME, weights_only=True)
    assert best["step"] == 4
    assert (tmp_path / HISTORY_NAME).exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        BEST_NAME, HISTORY_NAME, "step-00000010.pt", "step-00000012.pt",
    }  # fmt: skip


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    pretrain(recipe(), images(), tmp_path, device=CPU, report=lambda m: None)
    last = list_checkpoints(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:1000])
    state = load_last_checkpoint(tmp_path, CPU)
    assert state is not None
    assert state["step"] == 10
    assert "damaged" in capsys.readouterr().out


def test_evaluation_sees_the_backbone_in_eval_mode(tmp_path):
    modes = []

    def evaluate(backbone: torch.nn.Module) -> dict[str, float]:
        modes.append(backbone.training)
        return {"val_auc": 0.5}

    pretrain(recipe(epochs=1), images(), tmp_path, device=CPU, report=lambda m: None, evaluate=evaluate)
    assert modes == [False, False]


def test_a_diverged_loss_stops_the_run(tmp_path):
    broken = replace(recipe(), optimiser=OptimiserConfig("sgd", lr=1e20))
    with pytest.raises(FloatingPointError, match="learning rate"):
        pretrain(broken, images(), tmp_path, device=CPU, report=lambda m: None)


def test_an_epoch_shows_every_image_once(monkeypatch):
    seen: list[np.ndarray] = []

    class Recorder(Pixels):
        def gather(self, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
            seen.append(index)
            return super().gather(index, out)

    source = Recorder(images(64).blocks)
    for step in range(8):
        next_views(source, recipe(), build_method(recipe()), step, CPU)
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    assert sorted(first) == sorted(second) == list(range(64))
    assert list(first) != list(second)


def test_workers_see_the_parts_of_one_workers_batch(monkeypatch):
    quiet = replace(recipe(), views=ViewConfig(noise=0))
    whole = next_views(images(), quiet, build_method(quiet), 3, CPU)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    parts = []
    for number in (0, 1):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        parts.append(next_views(images(), quiet, build_method(quiet), 3, CPU))
    for view in (0, 1):
        torch.testing.assert_close(torch.cat([part[view] for part in parts]), whole[view], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_step_never_asks_the_device_for_a_number(name, monkeypatch):
    """Tensors on the meta device have no values: whatever would wait for them (`item`, `nonzero`, `cpu`) raises.

    Pixel noise is left out: that device has no generator.
    """
    meta = torch.device("meta")
    real = module._generator
    monkeypatch.setattr(module, "_generator", lambda key, device: real(key, CPU))
    settings = recipe(name)
    settings = replace(settings, views=ViewConfig(blur=1, cutout=1, flip=0.5, noise=0))
    method = build_method(settings).to(meta).train()
    optimiser = build_optimiser(method, replace(settings.optimiser, clip_norm=1.0), 16, meta)
    for number in range(2):
        views = next_views(images(), settings, method, number, meta)
        loss = train_step(method, method, optimiser, settings, views, CPU)  # the device only names an autocast
        assert loss.device == views[0].device == meta
    for ask, words in ((Tensor.item, "meta tensors"), (Tensor.nonzero, "unimplemented"), (Tensor.cpu, "meta tensor")):
        with pytest.raises(RuntimeError, match=words):
            ask(loss)


def test_learning_rate_warms_up_and_follows_a_cosine():
    config = PretrainConfig(batch_size=512, epochs=100)
    optimiser = OptimiserConfig(lr=0.1, reference_batch=256, warmup_epochs=10)
    rates = [learning_rate(optimiser, config, step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(0.2, rel=1e-3)
    assert rates.index(max(rates)) == 100
    assert rates[0] < 0.003
    assert rates[:100] == sorted(rates[:100])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[550] == pytest.approx(0.1, rel=1e-6)
    assert rates[-1] < 1e-5


def test_constant_learning_rates_are_left_alone(tmp_path):
    settings = recipe("simsiam")
    method = build_method(settings)
    optimiser = build_optimiser(method, settings.optimiser, settings.pretrain.batch_size, CPU)
    constant = {id(p) for group in optimiser.param_groups if group["constant"] for p in group["params"]}
    assert constant == {id(p) for p in method.predictor.parameters()}
    everything = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    for group in optimiser.param_groups:
        assert group["lr"] == settings.optimiser.lr * 16 / settings.optimiser.reference_batch
        assert (group["weight_decay"] > 0) == all(p.dim() > 1 for p in group["params"])


@pytest.mark.parametrize(("count", "held_out"), [(10, 2), (70, 7), (100_000, 256)])
def test_a_few_images_are_held_out_to_be_watched(count, held_out):
    assert count_held_out(count) == held_out
    config = PretrainConfig(epochs=2, batch_size=4)
    assert count_steps(config, count) == 2 * ((count - held_out) // 4)


def test_what_does_not_fit_together_is_a_user_error():
    for method, backbone, size, words in (
        ("spark", "vit_small", 64, "vision transformer"),
        ("spark", "resnet18", 48, "multiple of 32"),
        ("simclr", "vit_small", 60, "multiple of 16, such as 64"),
    ):
        config = PretrainConfig(method=method, backbone=backbone, image_size=size)
        cls = REGISTRY[method]
        with pytest.raises(UserError, match=words):
            build_method(Recipe(config, cls.Config(), cls.OPTIMISER, ViewConfig()))


def test_pixels_without_some_are_numbered_anew():
    source = images(9)
    flat = np.concatenate(source.blocks)
    rest = source.without(np.array([0, 4]))
    assert len(rest) == 7
    assert np.array_equal(rest.gather(np.arange(7)), np.delete(flat, [0, 4], axis=0))
    assert np.array_equal(rest.without(np.array([6])).gather(np.array([0])), flat[[1]])
    assert len(source) == 9


def test_pixels_hold_nothing_but_pixels_and_gather_any_order():
    source = images(9)
    flat = np.concatenate(source.blocks)
    index = np.array([8, 0, 5, 5, 3])
    assert np.array_equal(source.gather(index), flat[index])
    assert len(source) == 9
    with pytest.raises(ValueError, match="at least one"):
        Pixels([])
    with pytest.raises(ValueError, match="uint8"):
        Pixels([np.zeros((2, 4, 4), np.float32)])


def test_pretraining_leaves_no_file_behind_it_did_not_name(tmp_path: Path):
    pretrain(recipe(epochs=1), images(), tmp_path, device=CPU, report=lambda m: None)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
