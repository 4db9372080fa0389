"""Who may use a Ray cluster: whoever reaches it may run any code on it, unless it asks for a token.

Ray's token authentication (from 2.52 on) is turned on by RAY_AUTH_MODE=token in the environment of every process of the
cluster and of its drivers; the token itself is in RAY_AUTH_TOKEN, in the file RAY_AUTH_TOKEN_PATH or in
~/.ray/auth_token. Nothing here reads or shows it.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from ray import _raylet
from ray._private import ray_constants, services
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc

from scarce.cluster.environment import environment
from scarce.errors import UserError

CLIENT = "ray://"
_PATIENCE_S = 5.0  # for one answer
_MEND = (
    "run `ray get-auth-token --generate`, copy ~/.ray/auth_token to every node, and set RAY_AUTH_MODE=token wherever "
    "`ray start` and this command run"
)


def place_of(address: str) -> tuple[str, int]:
    """Host and port of a cluster's address: "auto", "host:port" or "ray://host:port".

    Raises:
        ValueError: "auto" finds none, or it is no address.
    """
    found = services.canonicalize_bootstrap_address("auto") if address == "auto" else address.removeprefix(CLIENT)
    match = re.fullmatch(r"\[?([^\[\]]+)\]?:(\d+)", found or "")
    if not match:
        raise ValueError("no cluster runs on this machine" if address == "auto" else "it is no host:port")
    return match[1], int(match[2])


def on_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine only; not, if its name is unknown."""
    try:
        found = {str(information[4][0]) for information in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(ip.partition("%")[0]).is_loopback for ip in found)


def require_own_token(address: str) -> None:
    """`UserError` where this process would join a cluster of other machines without a token."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise UserError(
            f"the Ray cluster at {address!r} can be reached from other machines, and RAY_AUTH_MODE is not token: "
            f"without it, who reaches the cluster can run anything on it; {_MEND}"
        )
    raylet: Any = _raylet
    if not raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise UserError(
            f"the Ray cluster at {address!r} can be reached from other machines, and there is no token to join it "
            f"with: {_MEND}"
        )


def require_that_it_asks(address: str, host: str, port: int) -> None:
    """`UserError` where the cluster answers a caller without a token, as it then answers everybody."""
    gcs: Any = gcs_service_pb2  # what is in them is made when they are imported
    client: Any = ray_client_pb2
    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") as channel:
        try:
            if address.startswith(CLIENT):
                asked = client.ClusterInfoRequest(type=client.ClusterInfoType.PING)
                ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(asked, timeout=_PATIENCE_S)
            else:
                stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
                stub.CheckAlive(gcs.CheckAliveRequest(), timeout=_PATIENCE_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return
            raise ConnectionError(f"{error.code().name}, it may be no Ray cluster") from error
    raise UserError(
        f"the Ray cluster at {address!r} can be reached from other machines and asks nobody for a token: stop it, "
        f"{_MEND}"
    )


@contextmanager
def listening_on_loopback() -> Iterator[None]:
    """A cluster started within the block, its workers too, listens on loopback and nowhere else.

    Ray replaces 127.0.0.1 by the machine's address and listens on all of them, unless clusters of several machines are
    off, as they are by default on Windows and macOS. The variable is for Ray's other processes; this one has read it.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with environment(**{ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
