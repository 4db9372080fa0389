"""A batch in parts, where memory is short: the same step, but for what a method takes from its batch."""

from dataclasses import replace

import pytest
import torch
from pretraining import CPU, images, recipe, run
from torch import Tensor, nn

from scarce.methods import REGISTRY, Method
from scarce.pretrain import Recipe, build_optimiser, dtype_of, next_views, train_step
from scarce.pretrain import build_method as build

PARTS = 4
UNCOUPLED = ("byol", "simsiam", "moco_plain", "dino", "spark")  # no loss over a batch, batch norm apart
BUFFERS = {"moco": ("queue", "position"), "moco_plain": ("queue", "position"), "dino": ("centre",)}


def settings(name: str) -> Recipe:
    """In double precision."""
    chosen = recipe(name, precision="float64")
    return replace(chosen, optimiser=replace(chosen.optimiser, clip_norm=0.0))


def step(name: str, parts: int, fixed_norms: bool) -> tuple[Method, Tensor]:
    """A method after one step on the same views, and its loss."""
    chosen = settings(name)
    method = build(chosen).to(dtype_of(chosen.pretrain)).train()
    method.progress = 0.5
    if fixed_norms:
        for module in method.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eval()
    optimiser = build_optimiser(method, chosen.optimiser, 16, CPU)
    views = next_views(images(), chosen, method, 0, CPU)
    torch.manual_seed(0)
    return method, train_step(method, method, optimiser, chosen, views, CPU, parts)


@pytest.mark.parametrize("name", UNCOUPLED)
def test_parts_have_the_gradient_of_the_whole_batch(name: str):
    (whole, loss), (parts, other) = step(name, 1, fixed_norms=True), step(name, PARTS, fixed_norms=True)
    assert float(other) == pytest.approx(float(loss), rel=1e-9)
    gradients = dict(parts.named_parameters())
    compared = 0
    for key, parameter in whole.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[key].grad, parameter.grad, rtol=1e-5, atol=1e-9)
            compared += bool(parameter.grad.abs().max() > 0)
    assert compared > 10
    for key, value in parts.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[key], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", BUFFERS)
def test_queues_and_centres_are_of_the_whole_batch(name: str):
    (whole, _), (parts, _) = step(name, 1, fixed_norms=True), step(name, PARTS, fixed_norms=True)
    before = build(settings(name)).to(torch.float64)
    for key in BUFFERS[name]:
        torch.testing.assert_close(getattr(parts, key), getattr(whole, key), rtol=1e-9, atol=1e-12)
        assert not torch.equal(getattr(whole, key), getattr(before, key))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_method_steps_once_on_uneven_parts(name: str):
    method, loss = step(name, 3, fixed_norms=False)  # of 16 images: 6, 5 and 5
    assert torch.isfinite(loss)
    steps = {int(entry["step"]) for entry in _optimiser_states(name)}
    assert steps <= {1}
    norms = [module for module in method.modules() if isinstance(module, nn.BatchNorm2d)]
    assert max(int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None) >= 3


def _optimiser_states(name: str) -> list[dict]:
    chosen = settings(name)
    method = build(chosen).to(torch.float64).train()
    optimiser = build_optimiser(method, replace(chosen.optimiser, name="adamw"), 16, CPU)
    train_step(method, method, optimiser, chosen, next_views(images(), chosen, method, 0, CPU), CPU, 3)
    return list(optimiser.state.values())


def test_a_run_says_how_many_images_it_trained_on_at_a_time(tmp_path):
    assert {report["micro_batch"] for report in run(tmp_path / "whole")} == {16}
    reports = run(tmp_path / "parts", micro_batch=8)
    assert {report["micro_batch"] for report in reports} == {8}
    assert [report["step"] for report in reports] == [2, 4, 6, 8]
