"""Every method's loss curve over one epoch, as recorded: see record_golden.py."""

import json

import pytest
from record_golden import GOLDEN, record, small_hospital

from scarce.data.pixels import Pixels
from scarce.methods import REGISTRY

RECORDED = json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    return small_hospital(tmp_path_factory.mktemp("golden") / "a")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_loss_curve_is_as_recorded(name, images):
    assert record(name, images) == pytest.approx(RECORDED[name], rel=1e-5, abs=1e-5)


def test_every_recorded_curve_has_a_method_and_several_steps():
    assert RECORDED.keys() == REGISTRY.keys()
    assert all(len(curve) >= 4 and len(set(curve)) == len(curve) for curve in RECORDED.values())
