"""Cluster files against Ray's own validator, and against what it lets pass."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILES = sorted((Path(__file__).parents[1] / "cluster").glob("*.yaml"))


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
class TestLauncherFile:
    def test_rays_validator_accepts_it(self, path):
        validate_config(prepare_config(load(path)))

    def test_rays_validator_would_object_to_a_wrong_key(self, path):
        config = load(path)
        config["setup_comands"] = config.pop("setup_commands")
        with pytest.raises(Exception, match="setup_comands"):
            validate_config(prepare_config(copy.deepcopy(config)))

    def test_what_the_validator_does_not_look_at(self, path):
        config = load(path)
        assert config["provider"]["project_id"] == "${GOOGLE_CLOUD_PROJECT}"  # a variable, never somebody's project
        head = config["available_node_types"][config["head_node_type"]]
        assert isinstance(head["node_config"]["machineType"], str)
        accelerators = head["node_config"].get("guestAccelerators", [])
        assert head["resources"].get("GPU", 0) == sum(a["acceleratorCount"] for a in accelerators)

    def test_token_authentication_and_loopback(self, path):
        (start,) = [command for command in load(path)["head_start_ray_commands"] if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start
        assert "--dashboard-host=127.0.0.1" in start


def test_there_is_one_for_the_usual_machine():
    assert "l4.yaml" in [path.name for path in FILES]
