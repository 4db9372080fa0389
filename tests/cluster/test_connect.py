"""A local cluster leaves no process and no directory behind, however its driver ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DRIVER = """
import ray
from scarce.cluster.connect import local_cluster

@ray.remote(num_cpus=0)
def directory():
    return ray._private.worker.global_worker.node.get_session_dir_path()

with local_cluster(cpus=1, object_store_bytes=100_000_000) as url:
    assert url.startswith("http://127.0.0.1:"), url
    print(ray.get(directory.remote()), flush=True)
    input()
assert not ray.is_initialized()
"""


def processes_naming(text: str) -> list[str]:
    """Command lines and environments of live processes that hold `text`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in content:
            found.append(content[:100].decode(errors="replace"))
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@pytest.mark.parametrize("ending", ["normal", "kill"])
def test_nothing_remains(ending: str) -> None:
    # Ray's agents hide their command line, so every process of the cluster carries this mark in its environment.
    mark = f"scarce-test-{os.getpid()}-{ending}"
    environment = os.environ | {"SCARCE_TEST_MARK": mark, "SPT_NOENV": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    session = Path(driver.stdout.readline().strip())
    assert session.is_dir()
    assert session.parent.name.startswith(f"scarce-ray-{driver.pid}-")
    assert len(processes_naming(mark)) > 5

    if ending == "kill":
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    else:
        driver.stdin.write("\n")
        driver.stdin.flush()
        assert driver.wait(timeout=60) == 0

    assert wait_until(lambda: not processes_naming(mark), 15), processes_naming(mark)
    assert wait_until(lambda: not session.parent.exists(), 5)


ASKER = """
import os
import ray
from ray.util.state import list_nodes
from scarce.cluster.connect import local_cluster

@ray.remote(num_cpus=0)
def nodes():
    return [node.node_id for node in list_nodes()]

with local_cluster(cpus=1, object_store_bytes=100_000_000):
    assert ray.get(nodes.remote()) == [node["NodeID"] for node in ray.nodes()]
assert "RAY_ADDRESS" not in os.environ
"""


def test_its_workers_know_it_from_another_on_this_machine(ray_cluster: str) -> None:
    """Ray Train frees what the workers of a killed trial held by what Ray's state API says."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    asked = subprocess.run([sys.executable, "-c", ASKER], capture_output=True, text=True, env=environment)
    assert asked.returncode == 0, asked.stderr


def test_a_killed_drivers_directory_is_removed_by_the_next() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leftover = Path(f"/tmp/scarce-ray-{ended.pid}-leftover")
    foreign = Path(f"/tmp/scarce-ray-of-{os.getpid()}")
    leftover.mkdir()
    foreign.mkdir()
    try:
        code = (
            "from scarce.cluster.connect import _cleaned_directory\nwith _cleaned_directory() as (path, _): print(path)"
        )
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        assert made
        assert not Path(made).exists()
        assert not leftover.exists()
        assert foreign.exists()
    finally:
        foreign.rmdir()


def test_no_cluster_at_the_address() -> None:
    # In a process of its own: this one may be in the tests' cluster already.
    code = "from scarce.cluster.connect import local_cluster\nwith local_cluster(address='127.0.0.1:9'): pass"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "UserError: expected a Ray cluster at '127.0.0.1:9', found none" in ended.stderr
