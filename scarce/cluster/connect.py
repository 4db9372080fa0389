"""A Ray cluster for the length of one command: a local one that leaves nothing behind, or a running one to join."""

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from scarce.cluster import watcher as watcher_script
from scarce.cluster.auth import listening_on_loopback, on_loopback, place_of, require_own_token, require_that_it_asks
from scarce.cluster.environment import environment
from scarce.cluster.processes import descendants, is_running
from scarce.errors import UserError

# Sockets lie in this directory and their paths may have 107 bytes at most, so not in a $TMPDIR of any length.
_TEMPORARY = Path("/tmp")


@contextmanager
def local_cluster(
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    address: str | None = None,
    object_store_bytes: int | None = None,
    log_to_driver: bool = False,
) -> Iterator[str]:
    """Start a local Ray cluster (or join one) and yield the URL of its dashboard, "" if it has none.

    A cluster started here listens on loopback only, with Ray's token authentication on (Ray's default; Ray keeps the
    token in ~/.ray/auth_token and its own clients send it, a browser is asked for it). It ends with the block, and
    within seconds after kill -9. In a process that is in a cluster already, that one is used and left alone.

    Args:
        cpus: CPUs it offers; all of the machine's by default.
        gpus: GPUs it offers; all of the machine's by default.
        address: a running cluster ("auto", "host:port", "ray://..."), by default what the environment variable
            RAY_ADDRESS says. It is joined and left, never ended.
        object_store_bytes: size of the shared-memory object store; Ray's own choice (30% of memory) by default.
        log_to_driver: whether what workers print appears here.

    Raises:
        UserError: there is no cluster at `address`, or it can be reached from other machines and asks for no token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")  # its plans and notices; read when ray.data is imported,
    logging.getLogger("ray.data").setLevel(os.environ["RAY_DATA_LOG_LEVEL"])  # which may have happened already
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    common: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": logging.ERROR}
    if ray.is_initialized():
        yield dashboard_url()
    elif address != "local":
        with _shut_down_after():
            yield _url(_join(address, common))
    else:
        with (
            listening_on_loopback(),
            _cleaned_directory() as (directory, remember_processes),
            _shut_down_after(),
        ):
            with _known_to_its_processes():
                context = ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    object_store_memory=object_store_bytes,
                    include_dashboard=True,  # without it Tune never gets back what ended Ray Train runs held
                    dashboard_host="127.0.0.1",
                    _temp_dir=str(directory),
                    **common,
                )
            remember_processes()
            yield _url(context)


def dashboard_url() -> str:
    """The URL of the dashboard of the cluster that this process is in, "" if it has none."""
    return _url(ray.init(ignore_reinit_error=True, logging_level=logging.ERROR))


def cluster_nodes(autoscale: tuple[int, float, float] | None) -> list[dict[str, float]]:
    """The Ray resources of every node that trials may be planned for.

    Ray does not tell drivers which nodes its autoscaler may start, so the user does.

    Args:
        autoscale: how many worker nodes the cluster may grow to, CPUs and GPUs of each; those of them that are up count
            once. None: the nodes that are up are all.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if autoscale is None:
        return nodes
    most, *kind = autoscale
    others = [
        node for node in nodes if "node:__internal_head__" in node or [node.get("CPU", 0), node.get("GPU", 0)] != kind
    ]
    return [*others, *({"CPU": kind[0], "GPU": kind[1]} for _ in range(most))]


@contextmanager
def _shut_down_after() -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _known_to_its_processes() -> Iterator[None]:
    """The processes of a cluster started within the block know its address from their environment.

    Else those that ask Ray's state API look for a cluster on this machine, and fail where there are two. Ray Train's
    cleaner is one: what the workers of a killed trial held would be held for ever.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with environment(RAY_GCS_SERVER_PORT=str(port), RAY_ADDRESS=f"127.0.0.1:{port}"):
        yield


def _join(address: str, common: dict[str, Any]) -> Any:
    try:
        host, port = place_of(address)
        private = on_loopback(host)
        if not private:
            require_own_token(address)
        socket.create_connection((host, port), timeout=10).close()  # Ray itself would go on trying for minutes
        if not private:
            require_that_it_asks(address, host, port)
        context = ray.init(address=address, **common)
        if private and not all(on_loopback(node["NodeManagerAddress"]) for node in ray.nodes()):
            require_own_token(address)
            require_that_it_asks(address, host, port)
        return context
    except AuthenticationError as error:
        raise UserError(
            f"the Ray cluster at {address!r} asks for a token: set RAY_AUTH_MODE=token, and copy its ~/.ray/auth_token "
            "to this machine"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # a ConnectionError is an OSError
        raise UserError(
            f"expected a Ray cluster at {address!r}, found none ({error}): start one with `ray start --head`"
        ) from error


def _url(context: Any) -> str:
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


@contextmanager
def _cleaned_directory() -> Iterator[tuple[Path, Callable[[], None]]]:
    """A directory for one cluster, and a function to call once the cluster's own processes run.

    When the block or this process ends, those processes end and the directory goes.
    """
    _remove_leftovers()
    not_ours = descendants(os.getpid())
    directory = Path(tempfile.mkdtemp(prefix=f"scarce-ray-{os.getpid()}-", dir=_TEMPORARY))
    with subprocess.Popen(
        [sys.executable, "-I", watcher_script.__file__, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # else a reader of this command's output would wait for the watcher as well
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C and a closed terminal are for the driver, which the watcher must outlive
        text=True,
    ) as watcher:  # leaving closes the watcher's stdin and waits until it has cleaned up

        def remember_processes() -> None:
            for pid in descendants(os.getpid()) - not_ours - {watcher.pid}:
                print(pid, watcher_script.start_time(pid), file=watcher.stdin, flush=True)

        yield directory, remember_processes


def _remove_leftovers() -> None:
    """Remove the directories of drivers that were killed together with their watchers."""
    for path in _TEMPORARY.glob("scarce-ray-*"):
        match = re.fullmatch(r"scarce-ray-(\d+)-\w+", path.name)
        if match and path.stat().st_uid == os.getuid() and not is_running(int(match[1])):
            watcher_script.remove_tree(path)
