"""What tests of several parts share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from scarce.cluster import local_cluster

# The same examples every time, so that a change is judged by what it changed; `--hypothesis-profile=search` looks for
# new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", derandomize=False, max_examples=500)
settings.load_profile("same")


# Tests that start Ray, directly or in a script of their own. They run one after the other, in one process of pytest's,
# while another goes through the rest.
RAY_FILES = ("test_cluster.py", "test_resume.py")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests that use Ray, and begin with them: they are the longest."""

    def uses_ray(item: pytest.Item) -> bool:
        return "ray_cluster" in getattr(item, "fixturenames", ()) or item.path.name in RAY_FILES

    for item in items:
        if uses_ray(item):
            item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: not uses_ray(item))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One local Ray cluster for all tests that ask for it; the URL of its dashboard."""
    with local_cluster(cpus=2, object_store_bytes=500_000_000) as url:
        yield url
