"""A cluster that other machines can reach is joined with a token or not at all."""

from pathlib import Path

import pytest
import ray
from ray._private import services

from scarce.cluster import auth, connect
from scarce.cluster.auth import listening_on_loopback, on_loopback, place_of
from scarce.cluster.connect import local_cluster
from scarce.errors import UserError, one_line

REMOTE = "192.0.2.1:6379"  # of a block that no machine has (RFC 5737)


@pytest.fixture(autouse=True)
def nothing_connects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, no token, and no way out."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was joined"))
    monkeypatch.setattr(connect.socket, "create_connection", lambda *_, **__: pytest.fail("a socket was opened"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def refusal(address: str | None = None) -> str:
    with pytest.raises(UserError) as caught, local_cluster(address=address):
        pass
    assert one_line(caught.value) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("address", [REMOTE, f"ray://{REMOTE}", "[2001:db8::1]:6379", "no-such-host.invalid:6379"])
@pytest.mark.parametrize("mode", [None, "disabled", ""])
def test_a_remote_cluster_without_the_token_mode(
    address: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert "RAY_AUTH_MODE is not token" in refusal(address)
    assert f"{address!r}" in refusal(address)
    assert "set RAY_AUTH_MODE=token" in refusal(address)


def test_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", REMOTE)
    assert "RAY_AUTH_MODE is not token" in refusal()


def test_one_that_auto_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda _: REMOTE)
    assert "RAY_AUTH_MODE is not token" in refusal("auto")
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda _: None)
    assert "found none (no cluster runs on this machine)" in refusal("auto")


def test_the_token_mode_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoToken:
        @staticmethod
        def instance() -> "NoToken":
            return NoToken()

        def has_token(self, ignore_auth_mode: bool) -> bool:
            return False

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(auth._raylet, "AuthenticationTokenLoader", NoToken)
    assert "there is no token to join it with" in refusal(REMOTE)


@pytest.mark.parametrize("asks", [False, True])
def test_a_head_on_loopback_whose_workers_are_elsewhere(asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel's end is on loopback, and says nothing of the cluster."""
    monkeypatch.setattr(connect.socket, "create_connection", lambda *_, **__: open("/dev/null"))  # noqa: SIM115
    monkeypatch.setattr(ray, "init", lambda *_, **__: type("Context", (), {"dashboard_url": ""})())
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeManagerAddress": ip} for ip in ("127.0.0.1", "192.0.2.7")])
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if asks:
        monkeypatch.setattr(connect, "require_own_token", lambda address: None)
        monkeypatch.setattr(connect, "require_that_it_asks", lambda *_: None)
        with local_cluster(address="127.0.0.1:6379") as url:
            assert url == ""
    else:
        assert "can be reached from other machines" in refusal("127.0.0.1:6379")


def test_addresses() -> None:
    assert place_of("ray://head:10001") == ("head", 10001)
    assert place_of("[::1]:6379") == ("::1", 6379)
    for address in ("head", "head:", ":6379", "ray://head", "head:port"):
        with pytest.raises(ValueError, match="host:port"):
            place_of(address)
        assert "found none" in refusal(address)


def test_what_loopback_is() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert on_loopback(host)
    for host in ("0.0.0.0", "192.0.2.1", "10.0.0.1", "::", "no-such-host.invalid"):
        assert not on_loopback(host)


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from ray._private import ray_constants

    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    for value in (None, "1"):
        if value:
            monkeypatch.setenv(name, value)
        before = (os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER)
        with listening_on_loopback():
            assert (os.environ[name], ray_constants.ENABLE_RAY_CLUSTER) == ("0", False)
        assert (os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER) == before
