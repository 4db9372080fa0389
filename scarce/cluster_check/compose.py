"""compose.yaml and its Dockerfile."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from scarce.cluster_check.common import (
    Check,
    ClusterFile,
    Fault,
    Pins,
    Shape,
    Skip,
    as_list,
    as_map,
    matches,
    python_minor,
    shape,
)

# The Compose specification's fields that a sweep on one machine may need.
_TOP: Shape = {"name": str, "services": dict, "secrets": dict, "volumes": dict, "networks": dict, "configs": dict}
_SERVICE: Shape = {
    "image": str,
    "build": (str, dict),
    "command": (str, list),
    "entrypoint": (str, list),
    "init": bool,
    "stop_grace_period": str,
    "shm_size": (str, int),
    "environment": (dict, list),
    "env_file": (str, list),
    "secrets": list,
    "volumes": list,
    "cap_drop": list,
    "security_opt": list,
    "profiles": list,
    "deploy": dict,
    "ports": list,
    "user": str,
    "working_dir": str,
    "restart": str,
    "healthcheck": dict,
    "networks": (dict, list),
    "network_mode": str,
    "mem_limit": (str, int),
    "cpus": (str, int, float),
    "read_only": bool,
    "tmpfs": (str, list),
    "labels": (dict, list),
    "depends_on": (dict, list),
    "container_name": str,
}
_UNITS = {"b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}


def services(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Fields and types, shared memory, token, ports, GPU, root."""
    compose = file.documents[0]
    yield from shape(file, compose, _TOP, "a compose file")
    for name, service in as_map(compose.get("services")).items():

        def at(key: str = "", name: str = name) -> int:
            return file.line("services", name, key)

        yield from shape(file, service, _SERVICE, name, "services", name)
        service = as_map(service)
        if not service.get("image") and not service.get("build"):
            yield Fault(at(), f"{name}: neither image nor build")
        shm = re.fullmatch(r"(\d+)\s*([a-z]*)", str(service.get("shm_size", "64mb")).lower())
        if not shm or int(shm[1]) * _UNITS.get(shm[2] or "b", 0) < 2**30:
            yield Fault(at("shm_size"), f"{name}: shm_size {service.get('shm_size')}: Ray wants 1gb or more")
        environment = _environment(service.get("environment"))
        if environment.get("RAY_AUTH_MODE") != "token" or not str(
            environment.get("RAY_AUTH_TOKEN_PATH", "")
        ).startswith("/run/secrets/"):
            yield Fault(
                at("environment"),
                f"{name}: no token: set RAY_AUTH_MODE: token and RAY_AUTH_TOKEN_PATH: /run/secrets/ray_auth_token",
            )
        for secret in as_list(service.get("secrets")):
            if str(secret) not in as_map(compose.get("secrets")):
                yield Fault(at("secrets"), f"{name}: the secret {secret} is not among the file's secrets")
        if not service.get("secrets"):
            yield Fault(at(), f"{name}: no secrets, so no token: give it ray_auth_token")
        for port in as_list(service.get("ports")):
            host = as_map(port).get("host_ip", "") if isinstance(port, dict) else str(port)
            if not str(host).startswith(("127.0.0.1", "[::1]")):
                yield Fault(at("ports"), f"{name}: port {port} is open to the network: write 127.0.0.1:{port}")
        if service.get("network_mode") == "host":
            yield Fault(at("network_mode"), f"{name}: network_mode host opens Ray's ports on the machine")
        if str(service.get("user", "scarce")).split(":")[0] in ("0", "root"):
            yield Fault(at("user"), f"{name}: runs as root: leave user to the Dockerfile")
        reservations = as_map(as_map(as_map(service.get("deploy")).get("resources")).get("reservations"))
        if reservations.get("devices") and not service.get("profiles"):
            yield Fault(at("deploy"), f"{name}: needs a GPU by default: give it profiles: [gpu]")
        for device in map(as_map, as_list(reservations.get("devices"))):
            if device.get("driver") != "nvidia" or "gpu" not in as_list(device.get("capabilities")):
                yield Fault(at("deploy"), f"{name}: a GPU is driver: nvidia with capabilities: [gpu]")
        build = as_map(service.get("build"))
        if build:
            dockerfile = file.path.parent / str(build.get("context", ".")) / str(build.get("dockerfile", "Dockerfile"))
            if not dockerfile.exists():
                yield Fault(at("build"), f"{name}: there is no {dockerfile}")
        if not _saves(service):
            yield Fault(at("volumes"), f"{name}: runs/ is not mounted, so results would go with the container")


def _environment(value: Any) -> dict[str, Any]:
    pairs = [str(item).partition("=") for item in as_list(value)]
    return as_map(value) or {name: text for name, _, text in pairs}


def _saves(service: dict[str, Any]) -> bool:
    return any(re.search(r"/runs\b", str(volume)) for volume in as_list(service.get("volumes")))


def docker_compose_config(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """What Docker Compose itself says, where it is installed; it needs no daemon for that."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        raise Skip("docker compose is not installed")
    ended = subprocess.run(
        [docker, "compose", "--file", str(file.path), "config", "--quiet"], capture_output=True, text=True
    )
    if ended.returncode:
        yield Fault(0, " ".join(ended.stderr.split())[-300:])


def dockerfile(file: ClusterFile, pins: Pins) -> Iterator[Fault]:
    """The locked packages, the lock's Python, no root, no data in the image."""
    text = "\n".join(file.code)
    if not re.search(r"pip install .*requirements\.lock", text):
        yield Fault(0, "does not install requirements.lock: RUN pip install --requirement requirements.lock")
    users = list(matches(file, r"^USER\s+(\S+)"))
    if not users or users[-1][1][1].split(":")[0] in ("root", "0"):
        yield Fault(users[-1][0] if users else 0, "runs as root: end with a USER of its own")
    for number, _ in matches(file, r"^(?:COPY|ADD)\s+(?:--\S+\s+)*\.\s"):
        yield Fault(number, "copies everything, data and runs among it: name what the image needs")
    for number, match in matches(file, r"^EXPOSE\s+(.*)"):
        yield Fault(number, f"EXPOSE {match[1]}: nothing of a sweep is for the network")
    yield from python_minor(file, pins)


CHECKS = (
    Check("services", services, "structure only"),
    Check("docker compose config", docker_compose_config),
)
DOCKERFILE_CHECKS = (Check("lock, Python, user", dockerfile, "structure only"),)
