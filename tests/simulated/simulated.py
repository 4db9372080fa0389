"""A cluster of several Ray nodes on this machine, in processes of its own: a driver joins it by its address.

Each node has a home folder of its own, as machines have; the trials' folder is shared by all, as a mounted disk is.
Run as a script this file starts the nodes and obeys lines on its stdin: no Ray begins in the process of the tests.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "SCARCE_TEST_CLUSTER"  # in the environment of every process of a cluster, which may hide its command line
PATIENCE = 240  # seconds for what takes a few


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` comes to once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)
    return value


def processes_of(mark: str, home: Path | None = None) -> dict[int, str]:
    """Live processes of a cluster, or of the node with this home folder, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            command = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0")
        except OSError:  # it has ended since, or is another user's
            continue
        if f"{MARK}={mark}" in environment and (home is None or f"HOME={home}" in environment):
            found[int(process.name)] = command
    return found


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    address: str
    environment: dict[str, str]  # for a driver
    mark: str

    def busy(self) -> list[str]:
        """What its worker processes do, but for what stays: idle ones, the nodes' agents, Ray Data's actors."""
        titles = [command for command in processes_of(self.mark).values() if command.startswith("ray::")]
        stay = ("ray::IDLE", "ray::_")
        return [title for title in titles if not title.startswith(stay) and not title.endswith("Agent")]

    def nodes(self) -> int:
        """How many nodes it has, the head included."""
        return sum("/raylet/raylet\0" in command for command in processes_of(self.mark).values())


@dataclass(frozen=True)
class SimulatedCluster(Cluster):
    """A cluster whose nodes the tests start and kill."""

    folder: Path
    host: subprocess.Popen[str]

    def tell(self, *command: Any) -> dict[str, Any]:
        """Have the host do something."""
        return tell(self.host, *command)

    def trials(self, node: int) -> int:
        """How many trials hold their share of a node; 0 is the head."""
        return sum("ImplicitFunc" in command for command in processes_of(self.mark, self.home(node)).values())

    def home(self, node: int) -> Path:
        """A node's home folder; 0 is the head's, and the driver's. The file `notice` there says that the node goes."""
        return self.folder / f"home{node}"


def tell(host: subprocess.Popen[str], *command: Any) -> dict[str, Any]:
    """A command to the process that started the nodes, and its answer."""
    assert host.stdin is not None
    assert host.stdout is not None
    host.stdin.write(json.dumps(command) + "\n")
    host.stdin.flush()
    answer: dict[str, Any] = json.loads(host.stdout.readline())
    return answer


@contextmanager
def surroundings(folder: Path, **more: str) -> Iterator[tuple[dict[str, str], str]]:
    """The environment of a cluster's processes, which end with the block, and the mark that they are known by."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory(prefix="scarce-sim-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        token = folder / "home0" / ".ray" / "auth_token"  # the same on every machine, as it has to be
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("simulated-" * 4)
        Path(sockets, "ray").mkdir()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        try:
            yield (
                (
                    inherited
                    | {
                        MARK: mark,
                        "SPT_NOENV": "1",  # processes that give themselves a title keep their environment readable
                        "HOME": str(folder / "home0"),
                        "OMP_NUM_THREADS": "1",
                        "RAY_AUTH_MODE": "token",
                        "RAY_AUTH_TOKEN_PATH": str(token),
                        "RAY_USAGE_STATS_ENABLED": "0",
                        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes 127.0.0.1 for the outer address
                        "RAY_TMPDIR": sockets,  # `address="auto"` of others on this machine should not find it
                    }
                    | more
                ),
                mark,
            )
        finally:
            while pids := processes_of(mark):
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.1)


@contextmanager
def simulated_cluster(folder: Path, *nodes: dict[str, float], **more: str) -> Iterator[SimulatedCluster]:
    """A cluster of nodes, the head first, each with its num_cpus and num_gpus. `more` is for the environment."""
    with surroundings(folder, **more) as (environment, mark):
        host = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"nodes": nodes, "folder": str(folder)})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        with host:
            try:
                yield SimulatedCluster(tell(host, "address")["address"], environment, mark, folder, host)
            finally:
                host.kill()


@contextmanager
def autoscaling_cluster(folder: Path, worker: dict[str, float], most: int, idle_s: float) -> Iterator[Cluster]:
    """A head without CPUs whose autoscaler starts and ends nodes, as Ray's launcher and KubeRay have it do.

    Args:
        folder: for the home folder of all nodes.
        worker: CPU and GPU of a node.
        most: how many there may be.
        idle_s: seconds after which one without work goes.
    """
    head_id = "f" * 51 + "00000"  # as the provider of fake nodes counts on from
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "cluster_name": "simulated",
        "max_workers": most,
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",  # as Ray's wheel lacks the defaults of its "fake_multinode"
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": head_id,
            "gcs_address": address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": worker | {"object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        **{f"{which}setup_commands": [] for which in ("", "head_", "worker_")},
        **{f"{which}_start_ray_commands": [] for which in ("head", "worker")},
        "initialization_commands": [],
        "cluster_synced_files": [],
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "docker": {},
    }
    fake = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": head_id,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head_id,
    }
    with surroundings(folder, **fake) as (environment, mark):
        path = folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        host, port = address.split(":")
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--node-ip-address={host}"]
        ports = [f"--port={port}", "--dashboard-port=0", "--dashboard-host=127.0.0.1"]
        size = ["--num-cpus=0", "--num-gpus=0", "--object-store-memory=100000000"]
        with open(folder / "head.log", "w") as log:
            start = [*ray, *ports, *size, f"--autoscaling-config={path}"]
            subprocess.run(start, env=environment, stdout=log, stderr=log, check=True)
        drivers = {key: value for key, value in environment.items() if key not in fake}
        yield Cluster(address, drivers, mark)


def serve(nodes: Sequence[dict[str, float]], folder: str) -> None:
    """Start the nodes, then do what lines on stdin say until they end."""
    from ray.cluster_utils import Cluster as Nodes

    def home(node: int) -> dict[str, str]:
        path = Path(folder, f"home{node}")
        path.mkdir(parents=True, exist_ok=True)
        return {"HOME": str(path), "SCARCE_NOTICE": str(path / "notice")}

    head = {"temp_dir": os.environ["RAY_TMPDIR"] + "/ray", "dashboard_host": "127.0.0.1", "dashboard_port": None}

    def add(resources: dict[str, float], number: int) -> Any:
        return cluster.add_node(
            **resources,
            **(head if number == 0 else {}),
            node_ip_address="127.0.0.1",
            object_store_memory=100_000_000,
            env_vars=home(number),
        )

    cluster = Nodes()
    started = [add(resources, number) for number, resources in enumerate(nodes)]
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        answer: dict[str, Any] = {}
        if command == "address":
            answer = {"address": cluster.address}
        elif command == "lose":  # kill -9; the node's other processes find out by themselves
            started[arguments[0]].kill_raylet()
        elif command == "add":
            started.append(add(arguments[0], len(started)))
            answer = {"node": len(started) - 1}
        elif command == "node_ids":
            answer = {"ids": [node.node_id for node in started]}
        elif command == "kill_gcs":
            cluster.head_node.kill_gcs_server()
        elif command == "start_gcs":
            cluster.head_node.start_gcs_server()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
