"""What the encoder makes of visible cells: the same as dense layers with masks, and nothing of what is hidden."""

import pytest
import torch
from torch import Tensor, nn

from scarce.backbones import Backbone, create_backbone
from scarce.methods.sparse import Visible, make_sparse

CONVOLUTIONAL = ["resnet_small", "resnet18", "resnet50", "convnext_tiny"]


def half_hidden(batch: int, side: int, seed: int = 0) -> Tensor:
    """Numbers of the visible cells [B, side² / 2]."""
    return torch.rand(batch, side**2, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)[:, : side**2 // 2]


def mask(numbers: Tensor, side: int, height: int) -> Tensor:
    """The pixels of visible cells, bool [B, 1, height, height]."""
    cells = torch.zeros(len(numbers), side**2, dtype=torch.bool).scatter(1, numbers, True)
    r = height // side
    return cells.view(-1, 1, side, side).repeat_interleave(r, 2).repeat_interleave(r, 3)


def image(batch: int, side: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(seed))


def sparse_maps(backbone: Backbone, x: Tensor, numbers: Tensor, side: int) -> list[Tensor]:
    """All stages' maps [B, C, H, W], hidden positions zero; `backbone` becomes sparse."""
    visible = Visible()
    make_sparse(backbone, visible)
    with visible.only(numbers, side):
        return [visible.put(cells) for cells in backbone.maps(visible.take(x))]


def masked_maps(backbone: Backbone, x: Tensor, numbers: Tensor, side: int) -> list[Tensor]:
    """The definition: a dense network whose every layer is followed by a mask, batch norm counting visible ones."""

    def hide(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        channels_last = type(module) in (nn.Linear, nn.LayerNorm)  # ConvNeXt's; its LayerNorm2d has them first
        here = mask(numbers, side, y.shape[1] if channels_last else y.shape[2])
        if isinstance(module, nn.BatchNorm2d) and module.training:
            kept = inputs[0].permute(0, 2, 3, 1)[here[:, 0]]
            y = torch.zeros_like(y.permute(0, 2, 3, 1)).masked_scatter(
                here.permute(0, 2, 3, 1),
                nn.functional.batch_norm(kept, None, None, module.weight, module.bias, True, 0.1, module.eps),
            )
            return y.permute(0, 3, 1, 2)
        return y * (here.permute(0, 2, 3, 1) if channels_last else here)

    for module in backbone.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.LayerNorm, nn.Linear)):
            module.register_forward_hook(hide)
    return backbone.maps(x * mask(numbers, side, x.shape[2]))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_visible_cells_are_what_a_masked_dense_network_makes_of_them(name, training):
    results = []
    for maps_of in (sparse_maps, masked_maps):
        backbone = create_backbone(name, 0).double().train(training)
        numbers, side = half_hidden(2, 4), 4 * backbone.stride
        x = image(2, side).double().requires_grad_()
        torch.manual_seed(0)  # of stochastic depth
        maps = maps_of(backbone, x, numbers, 4)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, x.grad, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    for m in results[0][:4]:
        assert (m.masked_select(~mask(numbers, 4, m.shape[2])) == 0).all()


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_what_is_hidden_changes_nothing_that_is_visible(name):
    side = 4 * create_backbone(name, 0).stride
    numbers = half_hidden(2, 4)
    pixels = mask(numbers, 4, side)
    with torch.no_grad():
        one, other = (
            sparse_maps(create_backbone(name, 0).eval(), x, numbers, 4)
            for x in (image(2, side), torch.where(pixels, image(2, side), image(2, side, 1)))
        )
        dense = create_backbone(name, 0).eval().maps(image(2, side) * pixels)
    for ours, again, theirs in zip(one, other, dense, strict=True):
        assert torch.equal(ours, again)
        hidden = ~mask(numbers, 4, theirs.shape[2])
        assert (theirs.masked_select(hidden) != 0).any()  # a dense network leaks into hidden patches


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name != "convnext_tiny"])
def test_three_by_three_filters_do_not_reach_across_a_hidden_patch(name):
    """ConvNeXt's 7 × 7 filters do, at the last stage, without any leak on the way."""
    side = 4 * create_backbone(name, 0).stride
    corner, with_another = torch.tensor([[0]]), torch.tensor([[0, 2]])
    with torch.no_grad():
        maps = [
            sparse_maps(create_backbone(name, 0).double().eval(), image(1, side).double(), numbers, 4)[-1][0, :, 0, 0]
            for numbers in (corner, with_another)
        ]
        dense = [
            create_backbone(name, 0)
            .double()
            .eval()
            .maps(image(1, side).double() * mask(numbers, 4, side))[-1][0, :, 0, 0]
            for numbers in (corner, with_another)
        ]
    assert (maps[0] - maps[1]).abs().max() < 1e-9
    assert (dense[0] - dense[1]).abs().max() > 1e-6


def test_cells_go_back_to_where_they_were_taken_from():
    visible, numbers = Visible(), half_hidden(3, 4)
    x = torch.randn(3, 5, 8, 8, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(5, dtype=torch.float64, requires_grad=True)
    with visible.only(numbers, 4):
        cells = visible.take(x)
        assert cells.shape == (24, 5, 2, 2)
        assert torch.equal(cells[8], x[1, :, 2 * (numbers[1, 0] // 4) :, 2 * (numbers[1, 0] % 4) :][:, :2, :2])
        here = mask(numbers, 4, 8)
        assert torch.equal(visible.put(cells), x * here)
        assert torch.equal(visible.put(cells, hidden), torch.where(here, x, hidden.view(1, 5, 1, 1)))
        assert torch.autograd.gradcheck(lambda x, hidden: visible.put(visible.take(x).square(), hidden), (x, hidden))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_without_a_mask_it_is_the_dense_network(name):
    backbone, plain = create_backbone(name, 0).eval(), create_backbone(name, 0).eval()
    make_sparse(backbone, Visible())
    x = image(2, 64)
    with torch.no_grad():
        assert torch.equal(backbone(x), plain(x))
    assert backbone.state_dict().keys() == plain.state_dict().keys()
