"""What tests of several parts share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

from scarce.cluster.connect import local_cluster

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "scarce-hypothesis")  # else it leaves a folder in this one

# The same examples every time, so that a change is judged by what it changed; `--hypothesis-profile=search` looks for
# new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", derandomize=False, max_examples=500)
settings.load_profile("same")


# Tests that start Ray in a process of their own, besides those that use the `ray_cluster` below.
RAY_FILES = ("test_connect.py", "test_resume.py", "test_sockets.py", "test_bucket_runs.py", "test_extending.py")
SEVERAL_NODES = "simulated"  # tests that start several nodes, which take minutes: `make test-long`


@pytest.hookimpl(tryfirst=True)  # before -m selects by them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use Ray, so that `make test` can run them in one process and all others beside it."""
    for item in items:
        if item.path.parent.name == SEVERAL_NODES:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.long)
        if "ray_cluster" in getattr(item, "fixturenames", ()) or item.path.name in RAY_FILES:
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One local Ray cluster for all tests that ask for it; the URL of its dashboard."""
    with local_cluster(cpus=2, object_store_bytes=500_000_000) as url:
        yield url
