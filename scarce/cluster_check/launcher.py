"""Files of Ray's cluster launcher: Ray's own validator, and what it lets pass."""

import contextlib
import copy
import io
import logging
import re
from collections.abc import Iterator
from typing import Any

from scarce.cluster_check.common import (
    Check,
    ClusterFile,
    Fault,
    Pins,
    Shape,
    as_list,
    as_map,
    fits_a_trial,
    is_variable,
    python_minor,
    shape,
    shell_syntax,
)

# Fields of an instance in Google's API (compute v1, instances.insert) that a node_config may have; Ray adds the rest.
_NODE: Shape = {
    "machineType": str,
    "disks": list,
    "guestAccelerators": list,
    "scheduling": (dict, list),
    "serviceAccounts": list,
    "networkInterfaces": list,
    "metadata": dict,
    "labels": dict,
    "tags": dict,
    "minCpuPlatform": str,
    "sourceInstanceTemplate": str,
    "shieldedInstanceConfig": dict,
    "reservationAffinity": dict,
}
_DISK: Shape = {"boot": bool, "autoDelete": bool, "type": str, "mode": str, "interface": str, "initializeParams": dict}
_NEW_DISK: Shape = {"diskSizeGb": int, "diskType": str, "sourceImage": str, "provisionedIops": int, "labels": dict}
_SCHEDULING: Shape = {
    "provisioningModel": str,
    "preemptible": bool,
    "instanceTerminationAction": str,
    "onHostMaintenance": str,
    "automaticRestart": bool,
    "maxRunDuration": dict,
}
_LEAST_DISK_GB = 50  # the wheels of requirements.lock unpack to 10
_IMAGE_PYTHON = {"ubuntu-2204": (3, 10), "ubuntu-2404": (3, 12), "debian-12": (3, 11), "debian-13": (3, 13)}
_COMMANDS = (
    "initialization_commands",
    "head_setup_commands",  # prepared, these two begin with setup_commands
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def _prepared(file: ClusterFile) -> dict[str, Any]:
    """The configuration with Ray's defaults filled in; whatever Ray raises."""
    from ray.autoscaler._private.util import prepare_config

    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)  # what it fills in
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepared: dict[str, Any] = prepare_config(copy.deepcopy(file.documents[0]))
    return prepared


def rays_validator(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """What `ray up` itself would say before it starts anything."""
    from jsonschema.exceptions import ValidationError
    from ray.autoscaler._private.util import validate_config

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            validate_config(_prepared(file))
    except ValidationError as error:
        where = list(error.absolute_path)
        misspelt = re.findall(r"'(\w+)'(?:, | (?:was|were))", error.message) if "Additional" in error.message else []
        yield Fault(
            file.line(*where, *misspelt[:1]), f"{'.'.join(map(str, where)) or 'the file'}: {_one_line(error.message)}"
        )
    except Exception as error:  # Ray raises whatever its defaults stumble on, KeyError and AssertionError among them
        yield Fault(1, f"Ray cannot read it: {type(error).__name__}: {_one_line(str(error))}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def machines(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Project, place and every node type."""
    config = file.documents[0]
    provider = as_map(config.get("provider"))
    if provider.get("type") != "gcp":
        yield Fault(file.line("provider", "type"), f"provider {provider.get('type')!r}: only gcp is known here")
    if not provider.get("project_id"):
        yield Fault(file.line("provider", "project_id"), "no provider.project_id: write ${GOOGLE_CLOUD_PROJECT}")
    region, zone = provider.get("region", ""), provider.get("availability_zone", "")
    if not zone or not str(zone).startswith(f"{region}-"):
        yield Fault(file.line("provider", "availability_zone"), f"zone {zone!r} is not in region {region!r}")
    if not as_map(config.get("auth")).get("ssh_user"):
        yield Fault(file.line("auth"), "no auth.ssh_user: the image's user, such as ubuntu")
    for name, node in as_map(config.get("available_node_types")).items():
        where = ("available_node_types", name)
        low, high = as_map(node).get("min_workers", 0), as_map(node).get("max_workers", 0)
        if isinstance(low, int) and isinstance(high, int) and low > high:
            yield Fault(file.line(*where, "min_workers"), f"{name}: min_workers {low} is more than max_workers {high}")
        yield from _node_type(file, where, as_map(node), str(zone))


def _node_type(file: ClusterFile, where: tuple[str, ...], node: dict[str, Any], zone: str) -> Iterator[Fault]:
    name, resources, config = where[-1], as_map(node.get("resources")), as_map(node.get("node_config"))
    place = (*where, "node_config")
    yield from shape(file, config, _NODE, f"{name}.node_config", *place)
    machine = config.get("machineType")
    if not isinstance(machine, str):
        if machine is None:
            yield Fault(file.line(*place), f"{name}: no machineType, such as g2-standard-8")
        machine = ""
    vcpus = re.fullmatch(r"\w+-\w+-(\d+)", machine)
    if machine and not vcpus:
        yield Fault(file.line(*place, "machineType"), f"{name}: {machine!r} is no machine type such as g2-standard-8")
    if vcpus and isinstance(resources.get("CPU"), int) and resources["CPU"] > int(vcpus[1]):
        yield Fault(file.line(*where, "resources"), f"{name}: {resources['CPU']} CPUs, but a {machine} has {vcpus[1]}")

    disks = as_list(config.get("disks"))
    if not any(as_map(disk).get("boot") for disk in disks):
        yield Fault(file.line(*place, "disks"), f"{name}: no disk with boot: true")
    for index, disk in enumerate(disks):
        at: tuple[str | int, ...] = (*place, "disks", index)
        yield from shape(file, disk, _DISK, f"{name}: a disk", *at)
        new = as_map(as_map(disk).get("initializeParams"))
        at = (*at, "initializeParams")
        yield from shape(file, new, _NEW_DISK, f"{name}: a disk", *at)
        if not new.get("sourceImage"):
            yield Fault(file.line(*at), f"{name}: a disk without sourceImage")
        size = new.get("diskSizeGb", 0)
        if isinstance(size, int) and size < _LEAST_DISK_GB:
            yield Fault(file.line(*at, "diskSizeGb"), f"{name}: a disk of {size} GB, expected {_LEAST_DISK_GB} or more")
        kind = re.match(r"zones/([^/]+)/", str(new.get("diskType", "")))
        if kind and kind[1] != zone:
            yield Fault(file.line(*at, "diskType"), f"{name}: a disk of zone {kind[1]} in zone {zone}")

    found = [as_map(accelerator) for accelerator in as_list(config.get("guestAccelerators"))]
    counts = [accelerator.get("acceleratorCount") for accelerator in found]
    devices = sum(count for count in counts if isinstance(count, int))
    if any(not isinstance(accelerator.get("acceleratorType"), str) for accelerator in found) or None in counts:
        yield Fault(
            file.line(*place, "guestAccelerators"), f"{name}: accelerators need acceleratorType and acceleratorCount"
        )
    gpus = resources.get("GPU", 0)
    if gpus != devices:
        yield Fault(
            file.line(*where, "resources"),
            f"{name}: resources say {gpus} GPU(s), guestAccelerators {devices}: make them equal",
        )
    yield from _scheduling(file, (*place, "scheduling"), name, config.get("scheduling"), devices)


def _scheduling(file: ClusterFile, where: tuple[str, ...], name: str, scheduling: Any, devices: int) -> Iterator[Fault]:
    line = file.line(*where)
    if isinstance(scheduling, list):
        yield Fault(line, f"{name}: scheduling is a list, Google's API describes a mapping: drop the dash")
        return
    scheduling = as_map(scheduling)
    yield from shape(file, scheduling, _SCHEDULING, f"{name}.scheduling", *where)
    model = scheduling.get("provisioningModel", "STANDARD")
    if model not in ("STANDARD", "SPOT"):
        yield Fault(line, f"{name}: provisioningModel {model!r}, expected STANDARD or SPOT")
    if scheduling.get("preemptible"):
        yield Fault(line, f"{name}: preemptible machines end after 24 hours: write provisioningModel: SPOT")
    if devices and scheduling.get("onHostMaintenance") != "TERMINATE":
        yield Fault(line, f"{name}: a machine with a GPU needs onHostMaintenance: TERMINATE")
    if model == "SPOT" and scheduling.get("instanceTerminationAction") != "DELETE":
        yield Fault(line, f"{name}: a spot machine that is only stopped goes on costing its disk: "
                          "write instanceTerminationAction: DELETE")  # fmt: skip
    if model == "SPOT" and scheduling.get("automaticRestart") is not False:
        yield Fault(line, f"{name}: Google restarts no spot machine: write automaticRestart: false")


def spot(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Where there are workers: that they come and go, that losing one costs little, and that the head is not lost."""
    config = file.documents[0]
    types = as_map(config.get("available_node_types"))
    head = str(config.get("head_node_type"))
    workers = {name: as_map(node) for name, node in types.items() if name != head}
    if not workers:
        return
    node = as_map(types.get(head))
    if _is_spot(node):
        yield Fault(file.line("available_node_types", head), "the head is a spot machine: the sweep would go with it")
    resources = as_map(node.get("resources"))
    if "GPU" not in resources or fits_a_trial(resources.get("CPU", 0), resources["GPU"]):
        yield Fault(
            file.line("available_node_types", head, "resources"),
            'trials of --preset l4 fit on the head, which runs the driver: write resources {"CPU": 1, "GPU": 0}',
        )
    timeout = config.get("idle_timeout_minutes")
    if not isinstance(timeout, int | float) or not 1 <= timeout <= 60:
        yield Fault(
            file.line("idle_timeout_minutes"),
            f"idle_timeout_minutes is {timeout}, expected 1 to 60: idle workers cost as much as busy ones",
        )
    for name, worker in workers.items():
        size = as_map(worker.get("resources"))
        if not fits_a_trial(size.get("CPU", 0), size.get("GPU", 0)):
            yield Fault(
                file.line("available_node_types", name, "resources"), f"{name}: no trial of --preset l4 fits on it"
            )
        if not worker.get("max_workers"):
            yield Fault(file.line("available_node_types", name), f"{name}: max_workers is 0, so there will be none")
    if not any(re.search(r"\bgcsfuse\b", str(command)) for command in as_list(config.get("setup_commands"))):
        yield Fault(file.line("setup_commands"), "no bucket is mounted (gcsfuse): where would all nodes find the data?")
    if "~/.ray/auth_token" not in as_map(config.get("file_mounts")):
        yield Fault(file.line("file_mounts"), "workers get no token: mount ~/.ray/auth_token")
    starts = [str(command) for command in as_list(config.get("worker_start_ray_commands"))]
    start = " ".join(starts)
    line = file.line("worker_start_ray_commands")
    if not re.search(r"--address=\S*\$\{?RAY_HEAD_IP", start):
        yield Fault(line, "workers do not start Ray with --address=$RAY_HEAD_IP:6379")
    if any(map(_is_spot, workers.values())):
        for part, why in (
            ("scarce.cluster.node_notice", "nobody tells the trials of a preempted worker to save"),
            ("systemd-run", "Ray would be a child of the SSH session, which must return"),
            ("KillMode=mixed", "systemd would send SIGTERM to Ray as well as to the wrapper"),
        ):
            if part not in start:
                yield Fault(line, f"spot workers start Ray without {part}: {why}")


def _is_spot(node: dict[str, Any]) -> bool:
    scheduling = as_map(as_map(node.get("node_config")).get("scheduling"))
    return scheduling.get("provisioningModel") == "SPOT" or bool(scheduling.get("preemptible"))


def commands(file: ClusterFile, pins: Pins) -> Iterator[Fault]:
    """What runs on the nodes, Ray's defaults included: the locked packages, the image's Python, Ray with a token."""
    try:
        prepared = _prepared(file)
    except Exception:  # told by Ray's validator
        return
    own = as_list(file.documents[0].get("setup_commands"))
    if not any(re.search(r"\bmake install\b|requirements\.lock", str(command)) for command in own):
        yield Fault(file.line("setup_commands"), "nothing installs requirements.lock: run `make install`")
    for part in _COMMANDS:
        for command in map(str, as_list(prepared.get(part))):
            if "pip install" in command and part not in file.documents[0] and command not in own:
                yield Fault(0, f"no {part}, so Ray runs its default, {_one_line(command)!r}: write [] or your own")
            if problem := shell_syntax(command):
                yield Fault(file.line(part if part in file.documents[0] else "setup_commands"), f"bash: {problem}")
            if re.search(r"\bray[\"']? start\b", command) and "RAY_AUTH_MODE=token" not in command:
                yield Fault(file.line(part), f"{part} start Ray without RAY_AUTH_MODE=token: anyone could run code")
    heads = [
        command for command in map(str, as_list(prepared.get("head_start_ray_commands"))) if "ray start" in command
    ]
    for needed in ("--head", "--autoscaling-config=~/ray_bootstrap_config.yaml", "--dashboard-host=127.0.0.1"):
        if not any(needed in command for command in heads):
            yield Fault(file.line("head_start_ray_commands"), f"the head does not start Ray with {needed}")
    images = set(re.findall(r"/images/(?:family/)?((?:ubuntu|debian)-\d+)", file.text))
    pythons = {_IMAGE_PYTHON[image] for image in images if image in _IMAGE_PYTHON}
    if len(pythons) > 1:
        yield Fault(0, f"its images have different Pythons, which Ray refuses: {', '.join(sorted(images))}")
    elif pythons:
        yield from python_minor(file, pins, pythons.pop())


def project(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """The project's name is somebody's."""
    value = as_map(file.documents[0].get("provider")).get("project_id")
    if value and not is_variable(value):
        line = file.line("provider", "project_id")
        yield Fault(line, f"project {value} is a value: write ${{GOOGLE_CLOUD_PROJECT}}")


CHECKS = (
    Check("Ray's launcher validator", rays_validator),
    Check("machines as Google's API describes them", machines, "structure only"),
    Check("head without trials, workers that come and go", spot, "structure only"),
    Check("commands: lock, Python, token", commands, "structure only"),
)
