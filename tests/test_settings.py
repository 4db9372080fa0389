import pytest

from scarce.config import PretrainConfig
from scarce.errors import UserError
from scarce.fewshot.protocol import ProtocolConfig
from scarce.methods import REGISTRY
from scarce.settings import Settings, default_settings, override, parse_fixed, search_space, values_of


def settings(method: str = "moco", seed: int = 0) -> Settings:
    return default_settings(PretrainConfig(method=method, seed=seed), images=2000)


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_every_dimension_can_be_overridden_by_its_default(method):
    space = search_space(PretrainConfig(method=method))
    assert {key.split(".")[0] for key in space} == {"views", "method"}
    assert override(settings(method), values_of(settings(method), space)) == settings(method)


def test_override_changes_one_value_and_nothing_else():
    changed = override(settings(), {"method.temperature": 0.2, "views.flip": 0.5, "probe.C": 3.0})
    assert changed.recipe.method.temperature == 0.2
    assert changed.recipe.views.flip == 0.5
    assert {probe.C for probe in changed.probes} == {3.0}
    assert {probe.kind for probe in changed.probes} == {probe.kind for probe in settings().probes}
    assert len(set(changed.probes)) == len(changed.probes) < len(settings().probes)
    back = override(changed, values_of(settings(), ["method.temperature", "views.flip"]))
    assert back.recipe == settings().recipe


def test_fixed_values_have_the_settings_type():
    fixed = parse_fixed(settings(), ["method.queue=512", "optimiser.lr=3e-2", "probe.normalise=l2"])
    assert fixed == {"method.queue": 512, "optimiser.lr": 0.03, "probe.normalise": "l2"}


@pytest.mark.parametrize(
    "assignment", ["views.blurr=1", "method.queue", "method.queue=many", "pretrain.epochs=3", "=3", ""]
)
def test_bad_fix_is_one_clear_line(assignment):
    with pytest.raises(UserError) as caught:
        parse_fixed(settings(), [assignment])
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_out_of_range_is_a_user_error():
    with pytest.raises(UserError, match=r"views\.crop_min"):
        override(settings(), {"views.crop_min": 3.0})


def test_identity_is_of_everything():
    protocol = ProtocolConfig()
    name = settings().identity(["a", "b"], protocol)
    assert name == settings().identity(["b", "a"], protocol)
    others = [
        settings(seed=1).identity(["a", "b"], protocol),
        settings("simclr").identity(["a", "b"], protocol),
        override(settings(), {"views.noise": 0.05}).identity(["a", "b"], protocol),
        override(settings(), {"probe.C": 2.0}).identity(["a", "b"], protocol),
        settings().identity(["a", "c"], protocol),
        settings().identity(["a", "b"], ProtocolConfig(search_seeds=6)),
    ]
    assert len({name, *others}) == 7
