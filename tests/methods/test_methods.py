from typing import Any

import pytest
import torch
from torch import nn

from scarce.backbones import create_backbone, small_resnet
from scarce.errors import UserError
from scarce.methods import REGISTRY, Method, find_method
from scarce.methods.dino import DINO, DINOConfig
from scarce.methods.moco import MoCo, MoCoConfig
from scarce.methods.momentum import rising_momentum
from scarce.methods.simsiam import negative_cosine
from scarce.methods.spark import SparK, SparKConfig, patches
from scarce.space import Choice
from scarce.study.optuna_space import to_distributions
from scarce.views import ViewConfig


def views(method: Method, batch: int = 8, seed: int = 0, image_size: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [size for size, _ in method.views(image_size, ViewConfig())]
    return [torch.randn(batch, 1, size, size, generator=generator) for size in sizes]


def step(method: Method, *inputs: torch.Tensor) -> torch.Tensor:
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    loss = method(*inputs)
    loss.backward()
    optimiser.step()
    method.after_step()
    return loss


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_step_changes_the_backbone_and_declared_settings_exist(name):
    cls = find_method(name)
    torch.manual_seed(0)
    method = cls(small_resnet((8, 8, 16, 16)), cls.default_config(images=64, steps=100))
    method.progress = 0.5
    before = {key: value.clone() for key, value in method.backbone.named_parameters()}
    loss = step(method, *views(method))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    moved = [key for key, value in method.backbone.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) == len(before)
    for setting, distribution in to_distributions(cls.SEARCH_SPACE).items():
        assert distribution._contains(distribution.to_internal_repr(getattr(cls.Config(), setting))), setting
        assert not isinstance(cls.SEARCH_SPACE[setting], Choice) or cls.SEARCH_SPACE[setting].values
    assert set(ViewConfig.__dataclass_fields__) >= cls.UNUSED_VIEWS
    assert all(any(key.startswith(p) for key, _ in method.named_parameters()) for p in cls.CONSTANT_LR)
    method.eval()
    assert method.embed(views(method)[0]).shape[0] == 8


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "vit_small"])
@pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"moco_plain"}))
def test_methods_take_every_backbone_they_allow(name, backbone):
    cls = find_method(name)
    network = create_backbone(backbone, 0)
    if name == "spark" and backbone == "vit_small":
        with pytest.raises(UserError, match="vision transformer"):
            cls(network, cls.Config())
        return
    method = cls(network, cls.default_config(images=64, steps=100))
    loss = method(*views(method, batch=2, image_size=64))
    loss.backward()
    assert torch.isfinite(loss)
    trained = [p for p in method.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


def test_unknown_method_is_a_user_error():
    with pytest.raises(UserError, match="moco"):
        find_method("mocco")


class TestMoCo:
    def method(self, **settings: float) -> MoCo:
        torch.manual_seed(0)
        return MoCo(small_resnet((8, 8, 16, 16)), MoCoConfig(**{"dim": 8, "queue": 20, **settings}))

    def test_queue_replaces_the_oldest_keys_and_wraps(self):
        method = self.method()
        old = method.queue.clone()
        keys = []
        for number in range(3):
            method(*views(method, 8, number))
            keys.append(torch.cat(method.new_keys))
            method.after_step()
        assert not torch.equal(method.queue, old)
        torch.testing.assert_close(method.queue[4:16], torch.cat([keys[0][4:], keys[1]]))
        torch.testing.assert_close(method.queue[16:], keys[2][:4])
        torch.testing.assert_close(method.queue[:4], keys[2][4:])
        assert int(method.position) == 4

    def test_without_variance_weight_it_is_plain_moco(self):
        plain, with_term = self.method(variance_weight=0.0), self.method(variance_weight=1.0)
        assert plain(*views(plain)) < with_term(*views(plain))
        assert find_method("moco_plain").Config().variance_weight == 0

    def test_short_runs_get_a_shorter_queue_and_a_quicker_encoder(self):
        short, whole = MoCo.default_config(1000, 100), MoCo.default_config(10**6, 10**6)
        assert (short.queue, short.momentum) == (500, 0.8)
        assert whole == MoCoConfig()


MOMENTUM = {
    "moco": lambda m: (m.key_encoder, [m.backbone, m.projector]),
    "moco_v3": lambda m: (m.key_encoder, [m.backbone, m.projector]),
    "byol": lambda m: (m.target, [m.backbone, m.projector]),
    "dino": lambda m: (nn.Sequential(m.backbone, *m.teacher_head), [m.student]),
}


@pytest.mark.parametrize("name", sorted(MOMENTUM))
def test_momentum_networks_are_exponential_averages_without_gradient(name):
    torch.manual_seed(0)
    cls = REGISTRY[name]
    method = cls(small_resnet((8, 8, 16, 16)), cls.default_config(images=64, steps=100))
    slow, online = MOMENTUM[name](method)
    method.progress = 0.5
    method(*views(method)).backward()
    assert all(p.grad is None for p in slow.parameters())
    with torch.no_grad():
        for part in online:
            for parameter in part.parameters():
                parameter.add_(1.0)
    before = [p.clone() for p in slow.parameters()]
    method.after_step()
    start = method.config.momentum
    momentum = start if name == "moco" else 1 - (1 - start) * 0.5  # half-way along the cosine
    moving = [p for part in online for p in part.parameters()]
    for after, old, new in zip(slow.parameters(), before, moving, strict=True):
        torch.testing.assert_close(after, momentum * old + (1 - momentum) * new)


def test_momentum_rises_to_one():
    values = [rising_momentum(0.9, progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (pytest.approx(0.9), pytest.approx(1.0))


class TestStopGradient:
    """Where a method's definition has a stop-gradient, the other branch gets none."""

    @pytest.mark.parametrize("name", ["byol", "simsiam"])
    def test_the_target_branch_is_a_constant(self, name):
        torch.manual_seed(0)
        cls = REGISTRY[name]
        method = cls(small_resnet((8, 8, 16, 16)), cls.Config())
        if name == "byol":
            assert not any(p.requires_grad for p in method.target.parameters())
            return
        first, second = views(method)
        with torch.no_grad():
            z2 = method.embed(second)
        method.zero_grad()
        p1 = method.predictor(method.embed(first))
        negative_cosine(p1, z2).backward()
        one_sided = [p.grad.clone() for p in method.backbone.parameters()]
        method.zero_grad()
        negative_cosine(method.predictor(method.embed(first)), method.embed(second).detach()).backward()
        for a, b in zip(one_sided, (p.grad for p in method.backbone.parameters()), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


class TestDINO:
    def method(self, **settings: Any) -> DINO:
        torch.manual_seed(0)
        small = {"prototypes": 16, "bottleneck": 4, "local_views": 2}
        return DINO(small_resnet((4, 4, 8, 8)), DINOConfig(**{**small, **settings}))

    def test_views_are_two_global_and_smaller_local_ones_of_smaller_crops(self):
        (size, whole), again, *local = self.method().views(224, ViewConfig(crop_min=0.4))
        assert (size, whole) == again == (224, ViewConfig(crop_min=0.4))
        assert [side for side, _ in local] == [96, 96]
        assert {(config.crop_min, config.crop_max) for _, config in local} == {(0.05, 0.4)}

    def test_teacher_temperature_rises_and_stays(self):
        method = self.method(teacher_temperature_start=0.04, teacher_temperature=0.08, teacher_warmup=0.5)
        seen = []
        for progress in (0.0, 0.25, 0.5, 0.9):
            method.progress = progress
            seen.append(method.teacher_temperature)
        assert seen == pytest.approx([0.04, 0.06, 0.08, 0.08])

    def test_prototypes_are_held_at_the_start(self):
        for progress, moves in ((0.0, False), (0.5, True)):
            method = self.method()
            before = method.student[1].prototypes.clone()
            method.progress = progress
            step(method, *views(method))
            assert torch.equal(method.student[1].prototypes, before) != moves

    def test_centring_can_be_switched_off(self):
        method = self.method(centre_momentum=1.0)
        step(method, *views(method))
        assert torch.equal(method.centre, torch.zeros(16))


class TestSparK:
    def method(self, **settings: Any) -> SparK:
        torch.manual_seed(0)
        return SparK(small_resnet((8, 8, 16, 16)), SparKConfig(**{"decoder_width": 32, **settings}))

    def test_every_image_hides_equally_many_patches(self):
        visible, hidden = self.method(mask=0.6).draw_cells(torch.zeros(50, 1, 128, 128))
        assert (visible.shape, hidden.shape) == ((50, 26), (50, 38))
        assert torch.equal(torch.cat([visible, hidden], 1).sort(dim=1).values, torch.arange(64).expand(50, 64))
        often = visible.flatten().bincount(minlength=64) / 50
        assert 0.2 < often.min() < often.max() < 0.65

    def test_the_loss_does_not_read_what_it_hides(self):
        """The encoder sees visible patches only: what lies in hidden ones changes its maps by nothing."""
        method = self.method().eval()
        (view,) = views(method, image_size=64)
        visible, hidden = method.draw_cells(view)
        other = patches(view, 16).scatter(1, hidden[:, :, None].expand(-1, -1, 256), 9.0)
        other = other.view(-1, 4, 4, 16, 16).transpose(2, 3).reshape(view.shape)
        assert not torch.equal(other, view)
        with torch.no_grad():
            assert torch.equal(method.reconstruct(view, visible), method.reconstruct(other, visible))

    def test_geometry_is_the_only_augmentation(self):
        ((size, view),) = self.method().views(64, ViewConfig(flip=0.5, cutout=0.5))
        assert size == 64
        assert (view.flip, view.crop_min) == (0.5, ViewConfig().crop_min)
        assert view.intensity_p == view.blur == view.noise == view.cutout == 0

    @pytest.mark.parametrize("image_size", [16, 40])
    def test_views_of_part_patches_are_a_user_error(self, image_size):
        with pytest.raises(UserError, match="multiple of 16"):
            self.method().views(image_size, ViewConfig())


def test_moco_v3_freezes_the_patch_projection_of_a_transformer():
    method = REGISTRY["moco_v3"](create_backbone("vit_small", 0), REGISTRY["moco_v3"].Config())
    assert not any(p.requires_grad for p in method.backbone.stem.patch_embed.parameters())
    assert method.backbone.stem.pos_embed.requires_grad


def test_backbone_is_the_very_module_given():
    backbone = small_resnet((8, 8, 16, 16))
    cls = REGISTRY["simclr"]
    assert cls(backbone, cls.Config()).backbone is backbone
