import subprocess
import sys

import pytest

from scarce.errors import UserError
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.protocol import ProtocolConfig


def test_the_search_and_the_final_evaluation_share_no_seed():
    config = ProtocolConfig(search_seeds=1000, test_seeds=50)
    assert not set(config.seeds("val")) & set(config.seeds("test"))


@pytest.mark.parametrize(
    "bad",
    [
        {"shots": ()},
        {"shots": (0, 5)},
        {"shots": (5, 5)},
        {"fractions": (0.5, 0.2, 0.2)},
        {"fractions": (1.2, -0.4, 0.2)},
        {"search_seeds": 1},
        {"search_seeds": 1001},
        {"test_seeds": 1},
        {"min_pool": 0},
        {"bootstrap": 10},
        {"confidence": 95.0},
        {"target_auc": 75.0},
    ],
)
def test_senseless_settings_name_their_flag(bad):
    with pytest.raises(UserError, match="--" + next(iter(bad)).replace("_", "-")):
        ProtocolConfig(**bad)


def test_the_settings_load_without_heavy_libraries():
    code = "import sys, scarce.fewshot.protocol; print({'torch', 'pandas', 'sklearn', 'ray'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize("seeds", [-1, 1])
def test_a_number_of_scratch_seeds_that_gives_no_interval_is_refused(seeds):
    with pytest.raises(UserError, match="--scratch-seeds"):
        BaselinesConfig(scratch_seeds=seeds)
