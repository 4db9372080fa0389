"""What a local cluster listens on, whom it answers, and what a cluster that answers everybody is told."""

import os
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import ray

from scarce.cluster import auth, connect
from scarce.cluster.auth import on_loopback, require_that_it_asks
from scarce.cluster.processes import descendants
from scarce.errors import UserError


def listening(processes: set[int]) -> dict[str, str]:
    """Address and port of every TCP socket on which some processes listen, with one process's name."""
    owners = {}
    for pid in processes:
        try:
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                link = os.readlink(descriptor.path)
                if link.startswith("socket:["):
                    owners[link[8:-1]] = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")[:200]
        except OSError:  # it has ended since
            continue
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in owners:
                address, port = fields[1].split(":")
                words = struct.pack(
                    f"={len(address) // 8}I", *struct.unpack(f">{len(address) // 8}I", bytes.fromhex(address))
                )
                host = socket.inet_ntop(socket.AF_INET if table == "tcp" else socket.AF_INET6, words)
                found[f"{host.removeprefix('::ffff:')}:{int(port, 16)}"] = owners[fields[9]]
    return found


def test_a_local_cluster_listens_on_loopback_alone_and_asks_for_a_token(ray_cluster: str) -> None:
    ray.get(ray.remote(lambda: 1).remote())  # so that there is a worker
    sockets = listening(descendants(os.getpid()) | {os.getpid()})
    owners = " ".join(sockets.values())
    for part in ("gcs_server", "raylet", "dashboard", "DashboardAgent"):
        assert part in owners, sockets
    assert len(sockets) >= 6
    assert all(place.rpartition(":")[0] == "127.0.0.1" for place in sockets), sockets

    host, port = ray.get_runtime_context().gcs_address.split(":")
    assert on_loopback(host)
    require_that_it_asks("it", host, int(port))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{ray_cluster}/api/jobs/", timeout=30)


OPEN_CLUSTER = """
import ray
from scarce.cluster.connect import local_cluster
with local_cluster(cpus=1, object_store_bytes=100_000_000):
    print(ray.get_runtime_context().gcs_address, flush=True)
    input()
"""


def test_a_cluster_that_answers_everybody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"RAY_AUTH_MODE": "disabled"},
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        address = started.stdout.readline().strip()
        try:
            host, port = address.split(":")
            with pytest.raises(UserError, match="asks nobody for a token: stop it, run `ray get-auth-token"):
                require_that_it_asks(address, host, int(port))
            # As it would be if this machine's other addresses were asked for.
            monkeypatch.setattr(connect, "on_loopback", lambda host: False)
            monkeypatch.setattr(connect, "require_own_token", lambda address: None)
            with pytest.raises(UserError, match=f"{address!r} can be reached .* asks nobody"):
                connect._join(address, {})
        finally:
            started.stdin.write("\n")
            started.stdin.flush()
            started.wait(60)


def test_what_answers_but_is_no_cluster_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with pytest.raises(ConnectionError, match="no Ray cluster"):
            require_that_it_asks("it", host, port)
