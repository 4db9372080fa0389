"""Hidden patches stay hidden through every layer, and count for nothing."""

import pytest
import torch
from torch import nn

from scarce.backbones import create_backbone
from scarce.methods.sparse import MaskedBatchNorm2d, Visible, enlarge, make_sparse

CONVOLUTIONAL = ["resnet_small", "resnet18", "resnet50", "convnext_tiny"]


def half_hidden(batch: int, side: int, seed: int = 0) -> torch.Tensor:
    noise = torch.rand(batch, side**2, generator=torch.Generator().manual_seed(seed))
    return (noise.argsort(dim=1).argsort(dim=1) < side**2 // 2).view(batch, 1, side, side)


def image(batch: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_what_is_hidden_changes_nothing_that_is_visible(name):
    backbone = create_backbone(name, 0).eval()
    side = 4 * backbone.stride
    visible, cells = Visible(), half_hidden(2, 4)
    make_sparse(backbone, visible)
    pixels = enlarge(cells, side, side)
    with visible.only(cells), torch.no_grad():
        one = backbone.maps(image(2, side) * pixels)
        other = backbone.maps(torch.where(pixels, image(2, side), 0 * image(2, side, 1)))
    leaking = create_backbone(name, 0).eval()
    with torch.no_grad():
        dense = leaking.maps(image(2, side) * pixels)
    for ours, again, theirs in zip(one, other, dense, strict=True):
        hidden = ~enlarge(cells, *ours.shape[2:])
        assert (ours.masked_select(hidden) == 0).all()
        torch.testing.assert_close(ours, again)
        assert (theirs.masked_select(hidden) != 0).any()  # a dense network leaks into every hidden patch


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name != "convnext_tiny"])
def test_three_by_three_filters_do_not_reach_across_a_hidden_patch(name):
    """ConvNeXt's 7 × 7 filters do, at the last stage, without any leak on the way."""
    backbone = create_backbone(name, 0).eval()
    side = 4 * backbone.stride
    visible = Visible()
    make_sparse(backbone, visible)
    alone = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    alone[0, 0, 0, 0] = True
    with_another = alone.clone()
    with_another[0, 0, 0, 2] = True
    maps = []
    for cells in (alone, with_another):
        with visible.only(cells), torch.no_grad():
            maps.append(backbone.maps(image(1, side) * enlarge(cells, side, side))[-1][0, :, 0, 0])
    assert (maps[0] - maps[1]).abs().max() < 1e-7
    with torch.no_grad():
        dense = [backbone.maps(image(1, side) * enlarge(c, side, side))[-1][0, :, 0, 0] for c in (alone, with_another)]
    assert (dense[0] - dense[1]).abs().max() > 1e-6


def test_batch_norm_counts_visible_positions_only():
    norm, visible, cells = MaskedBatchNorm2d(3), Visible(), half_hidden(4, 2)
    norm.visible = visible
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)) + 2
    mask = enlarge(cells, 6, 6)
    with visible.only(cells):
        y = norm(x * mask)
    inside = mask.expand_as(x)
    chosen = x.transpose(0, 1)[inside.transpose(0, 1)].view(3, -1)  # visible values of each channel
    peer = nn.BatchNorm1d(3)
    peer.load_state_dict({"weight": norm.weight, "bias": norm.bias}, strict=False)
    expected = peer(chosen.T)
    torch.testing.assert_close(y.transpose(0, 1)[inside.transpose(0, 1)].view(3, -1).T, expected)
    torch.testing.assert_close(norm.running_mean, peer.running_mean)
    torch.testing.assert_close(norm.running_var, peer.running_var)
    assert (y[~inside] == 0).all()


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_without_a_mask_it_is_the_dense_network(name):
    backbone, plain = create_backbone(name, 0).eval(), create_backbone(name, 0).eval()
    make_sparse(backbone, Visible())
    x = image(2, 64)
    with torch.no_grad():
        assert torch.equal(backbone(x), plain(x))
    assert backbone.state_dict().keys() == plain.state_dict().keys()
