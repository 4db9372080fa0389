import pytest
import torch
from torch import nn

from scarce.backbones import SmallResNet
from scarce.errors import UserError
from scarce.methods import REGISTRY, find_method
from scarce.methods.moco import MoCo, MoCoConfig
from scarce.searcher import to_distributions
from scarce.space import Choice


def views(batch: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 1, 32, 32, generator=generator), torch.randn(batch, 1, 32, 32, generator=generator)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_step_changes_the_backbone_and_declared_settings_exist(name):
    cls = find_method(name)
    method = cls(SmallResNet((8, 8, 16, 16)), 16, cls.default_config(images=64, steps=100))
    before = {key: value.clone() for key, value in method.backbone.named_parameters()}
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    loss = method(*views())
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    optimiser.step()
    method.after_step()
    moved = [key for key, value in method.backbone.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) == len(before)
    for setting, distribution in to_distributions(cls.SEARCH_SPACE).items():
        assert distribution._contains(distribution.to_internal_repr(getattr(cls.Config(), setting))), setting
        assert not isinstance(cls.SEARCH_SPACE[setting], Choice) or cls.SEARCH_SPACE[setting].values


def test_unknown_method_is_a_user_error():
    with pytest.raises(UserError, match="moco"):
        find_method("mocco")


class TestMoCo:
    def method(self, **settings: float) -> MoCo:
        torch.manual_seed(0)
        return MoCo(SmallResNet((8, 8, 16, 16)), 16, MoCoConfig(**{"dim": 8, "queue": 20, **settings}))

    def test_queue_replaces_the_oldest_keys_and_wraps(self):
        method = self.method()
        old = method.queue.clone()
        keys = []
        for step in range(3):
            method(*views(8, step))
            keys.append(method.new_keys.clone())
            method.after_step()
        assert not torch.equal(method.queue, old)
        torch.testing.assert_close(method.queue[4:16], torch.cat([keys[0][4:], keys[1]]))
        torch.testing.assert_close(method.queue[16:], keys[2][:4])
        torch.testing.assert_close(method.queue[:4], keys[2][4:])
        assert int(method.position) == 4

    def test_key_encoder_is_an_exponential_average_without_gradient(self):
        method = self.method(momentum=0.9)
        with torch.no_grad():
            for parameter in method.backbone.parameters():
                parameter.add_(1.0)
        before = [p.clone() for p in method.key_encoder[0].parameters()]
        method(*views()).backward()
        assert all(p.grad is None for p in method.key_encoder.parameters())
        method.after_step()
        pairs = zip(method.key_encoder[0].parameters(), before, method.backbone.parameters(), strict=True)
        for moved, old, online in pairs:
            torch.testing.assert_close(moved, 0.9 * old + 0.1 * online)

    def test_without_variance_weight_it_is_plain_moco(self):
        plain, with_term = self.method(variance_weight=0.0), self.method(variance_weight=1.0)
        assert plain(*views()) < with_term(*views())

    def test_short_runs_get_a_shorter_queue_and_a_quicker_encoder(self):
        short, whole = MoCo.default_config(1000, 100), MoCo.default_config(10**6, 10**6)
        assert (short.queue, short.momentum) == (500, 0.8)
        assert whole == MoCoConfig()


def test_backbone_is_the_very_module_given():
    backbone: nn.Module = SmallResNet((8, 8, 16, 16))
    cls = REGISTRY["simclr"]
    assert cls(backbone, 16, cls.Config()).backbone is backbone
