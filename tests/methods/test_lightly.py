"""Losses against the `lightly` package's on random inputs: value and gradient, in float64. Then whole training steps.

VICReg: paper and its authors' code disagree (see `vicreg_loss`); lightly and this project both follow the code.
Barlow Twins: lightly standardises with a batch norm, so with its epsilon, as this project does; the paper has none.
DINO: lightly divides by the number of pairs of different views, as the authors' code and this project do; the paper's
equation 3 is a plain sum, which only scales the learning rate.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss, DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from lightly.models.modules import BarlowTwinsProjectionHead, MoCoProjectionHead
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from scarce.backbones import Backbone, create_backbone
from scarce.config import PretrainConfig
from scarce.data.pixels import Pixels
from scarce.methods import REGISTRY
from scarce.methods.barlow_twins import barlow_loss
from scarce.methods.dino import dino_loss
from scarce.methods.moco import MoCo, info_nce
from scarce.methods.simclr import nt_xent
from scarce.methods.simsiam import negative_cosine
from scarce.methods.vicreg import VICRegConfig, vicreg_loss
from scarce.pretrain import Recipe, build_method, build_optimiser, next_views, train_step
from scarce.views import ViewConfig

CPU = torch.device("cpu")
Loss = Callable[..., Tensor]


def inputs(count: int, rows: int = 12, dim: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, dim, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(count)]


def check(ours: Loss, theirs: Loss, tensors: list[Tensor]) -> None:
    results = []
    for loss in (ours, theirs):
        value = loss(*tensors)
        results.append((value.detach(), torch.autograd.grad(value, tensors, allow_unused=True)))
    (value, gradients), (expected, expected_gradients) = results
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    assert any(gradient is not None and bool(gradient.abs().max() > 0) for gradient in gradients)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_nt_xent(temperature):
    check(
        lambda a, b: nt_xent(F.normalize(a, dim=1), F.normalize(b, dim=1), temperature),
        NTXentLoss(temperature),
        inputs(2),
    )


def test_nt_xent_with_a_memory_bank_is_moco():
    bank = NTXentLoss(0.07, memory_bank_size=(64, 16)).double()
    filler = F.normalize(torch.randn(64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=1)
    bank.memory_bank.bank = filler.clone()
    bank.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    queries, keys = inputs(2)
    keys = keys.detach()
    check(
        lambda q: info_nce(F.normalize(q, dim=1), F.normalize(keys, dim=1), filler, 0.07),
        lambda q: bank(q, keys),
        [queries],
    )


@pytest.mark.parametrize("weight", [5e-3, 5e-2])
def test_barlow_twins(weight):
    check(lambda a, b: barlow_loss(a, b, weight), BarlowTwinsLoss(weight), inputs(2))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_vicreg(scale):
    config = VICRegConfig()
    theirs = VICRegLoss(config.invariance_weight, config.variance_weight, config.covariance_weight)
    check(lambda a, b: vicreg_loss(a * scale, b * scale, config), lambda a, b: theirs(a * scale, b * scale), inputs(2))


class Lightly(nn.Module):
    """A backbone of ours under lightly's head, as its examples put them together."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def same_steps(name: str, head: nn.Module, follow: Callable[[Lightly, Any], Loss], **settings: Any) -> None:
    """Six steps of our loop and of lightly's modules in a plain loop, in float64, from equal weights on equal views."""
    cls = REGISTRY[name]
    config = PretrainConfig(method=name, image_size=32, batch_size=12, precision="float64")
    recipe = Recipe(config, cls.Config(**settings), replace(cls.OPTIMISER, clip_norm=1.0), ViewConfig())
    method = build_method(recipe).double().to(memory_format=torch.channels_last)
    model = Lightly(create_backbone(config.backbone, 3), head).double()
    model.backbone.load_state_dict(method.backbone.state_dict())
    for theirs, ours in zip(head.parameters(), method.projector.parameters(), strict=True):
        theirs.data.copy_(ours)
    criterion = follow(model, method)
    ours = build_optimiser(method, recipe.optimiser, config.batch_size, CPU)
    options = recipe.optimiser
    groups = [
        {
            "params": [p for p in model.parameters() if (p.dim() > 1) == decays],
            "weight_decay": options.weight_decay * decays,
        }
        for decays in (True, False)
    ]
    rate = options.lr * config.batch_size / options.reference_batch
    if options.name == "sgd":
        theirs = torch.optim.SGD(groups, lr=rate, momentum=options.momentum, foreach=False)
    else:
        theirs = torch.optim.AdamW(groups, lr=rate, foreach=False)
    images = Pixels([np.random.default_rng(0).integers(0, 256, (72, 32, 32), dtype=np.uint8)])
    for step in range(6):
        views = next_views(images, recipe, method, step, CPU)
        loss = train_step(method, method, ours, recipe, views, CPU)
        expected = criterion(*(view.contiguous() for view in views))
        theirs.zero_grad()
        expected.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        theirs.step()
        torch.testing.assert_close(loss, expected.detach(), atol=1e-8, rtol=1e-8)
    before = create_backbone(config.backbone, config.seed).double()
    for (key, weight), other, start in zip(
        method.backbone.named_parameters(), model.backbone.parameters(), before.parameters(), strict=True
    ):
        assert not torch.equal(weight, start), key
        torch.testing.assert_close(weight, other, atol=1e-7, rtol=1e-6, msg=lambda m, key=key: f"{key}: {m}")


def test_moco_steps_are_those_of_lightlys_loop():
    def follow(model: Lightly, method: MoCo) -> Loss:
        slow = copy.deepcopy(model).requires_grad_(False)
        bank = NTXentLoss(0.07, memory_bank_size=(36, 16)).double()  # three batches: the queue wraps
        bank.memory_bank.bank = method.queue.clone()
        steps = 0

        def loss(first: Tensor, second: Tensor) -> Tensor:
            nonlocal steps
            if steps:
                update_momentum(model, slow, m=0.9)
            steps += 1
            return bank(model(first), slow(second))

        return loss

    head = MoCoProjectionHead(192, 192, 16)
    same_steps("moco_plain", head, follow, dim=16, queue=36, momentum=0.9)


def test_barlow_twins_steps_are_those_of_lightlys_loop():
    head = BarlowTwinsProjectionHead(192, 192, 192)
    same_steps(
        "barlow_twins",
        head,
        lambda model, method: lambda a, b: BarlowTwinsLoss(5e-3)(model(a), model(b)),
        expansion=1.0,
    )


def test_negative_cosine():
    check(negative_cosine, NegativeCosineSimilarity(), inputs(2))


@pytest.mark.parametrize("local_views", [0, 3])
def test_dino(local_views):
    views = 2 + local_views
    teacher = [t.detach() for t in inputs(2)]
    centre = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def theirs(*student: Tensor) -> Tensor:
        loss = DINOLoss(16, warmup_teacher_temp_epochs=1, teacher_temp=0.05, student_temp=0.1)
        loss.center = centre.view(1, 1, -1).clone()
        value: Tensor = loss(teacher, list(student))
        return value

    check(lambda *student: dino_loss(teacher, student, centre, 0.05, 0.1), theirs, inputs(views)[-views:])


def test_dino_centre_moves_as_lightly_does():
    from scarce.backbones import small_resnet
    from scarce.methods.dino import DINO, DINOConfig

    torch.manual_seed(0)
    method = DINO(small_resnet((4, 4, 8, 8)), DINOConfig(prototypes=16, bottleneck=4, local_views=0)).double()
    teacher = inputs(1, rows=24)[0].detach()
    theirs = DINOLoss(16, center_momentum=method.config.centre_momentum).double()
    for _ in range(3):
        method.teacher_outputs = [teacher]
        method.after_step()
        theirs.update_center(torch.stack(list(teacher.chunk(2))))
    torch.testing.assert_close(method.centre, theirs.center.flatten(), atol=1e-9, rtol=1e-9)
