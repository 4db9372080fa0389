"""A cluster of several Ray nodes on this machine, in processes of its own: a driver joins it by its address.

Each node has a home folder of its own, as machines have; the trials' folder is shared by all, as a mounted disk is.
Run as a script this file starts the nodes and obeys lines on its stdin: no Ray begins in the process of the tests.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


def processes_of(mark: str) -> dict[int, str]:
    """Live processes of a cluster, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"{MARK}={mark}".encode() in (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0")
        except OSError:  # it has ended since, or is another user's
            continue
        if ours:
            found[int(process.name)] = command
    return found


class SimulatedCluster:
    """A running cluster."""

    def __init__(self, folder: Path, host: subprocess.Popen[str], mark: str, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment  # for a driver
        self._host = host
        self._mark = mark
        self._answer()
        self.address: str = self.tell("address")["address"]

    def tell(self, *command: Any) -> dict[str, Any]:
        """Have the host do something."""
        assert self._host.stdin is not None
        self._host.stdin.write(json.dumps(command) + "\n")
        self._host.stdin.flush()
        return self._answer()

    def busy(self) -> list[str]:
        """What its worker processes do; the nodes' own agents and those without work apart."""
        titles = [command for command in processes_of(self._mark).values() if command.startswith("ray::")]
        return [title for title in titles if not title.startswith("ray::IDLE") and not title.endswith("Agent")]

    def home(self, node: int) -> Path:
        """A node's home folder; 0 is the head's, and the driver's."""
        return self.folder / f"home{node}"

    def _answer(self) -> dict[str, Any]:
        assert self._host.stdout is not None
        answer: dict[str, Any] = json.loads(self._host.stdout.readline())
        return answer


@contextmanager
def simulated_cluster(folder: Path, *nodes: dict[str, float], **environment: str) -> Iterator[SimulatedCluster]:
    """A cluster of nodes, the head first, each with its num_cpus and num_gpus; its processes end with the block."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryDirectory(prefix="scarce-sim-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment = inherited | {
            MARK: mark,
            "SPT_NOENV": "1",  # processes that give themselves a title keep their environment readable
            "HOME": str(folder / "home0"),
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes 127.0.0.1 for this machine's outer address
            "RAY_TMPDIR": sockets,  # `address="auto"` of others on this machine should not find it
            **environment,
        }
        token = Path(environment["HOME"], ".ray", "auth_token")  # the same on every machine, as it has to be
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("simulated-" * 4)
        environment["RAY_AUTH_TOKEN_PATH"] = str(token)
        host = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"nodes": nodes, "folder": str(folder), "sockets": sockets})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            yield SimulatedCluster(folder, host, mark, environment)
        finally:
            while pids := processes_of(mark):
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                host.poll()
                time.sleep(0.1)
            host.communicate()


def serve(nodes: Sequence[dict[str, float]], folder: str, sockets: str) -> None:
    """Start the nodes, then do what lines on stdin say until they end."""
    from ray.cluster_utils import Cluster

    def home(node: int) -> dict[str, str]:
        path = Path(folder, f"home{node}")
        path.mkdir(parents=True, exist_ok=True)
        return {"HOME": str(path)}

    head = {"temp_dir": f"{sockets}/ray", "dashboard_host": "127.0.0.1", "dashboard_port": None}

    def add(resources: dict[str, float], number: int) -> Any:
        return cluster.add_node(
            **resources,
            **(head if number == 0 else {}),
            node_ip_address="127.0.0.1",
            object_store_memory=100_000_000,
            env_vars=home(number),
        )

    Path(sockets, "ray").mkdir()
    cluster = Cluster()
    started = [add(resources, number) for number, resources in enumerate(nodes)]
    print(json.dumps({}), flush=True)
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
