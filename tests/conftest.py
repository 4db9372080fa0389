"""What tests of several parts share."""

from collections.abc import Iterator

import pytest

from scarce.cluster import local_cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One local Ray cluster for all tests that ask for it; the URL of its dashboard."""
    with local_cluster(cpus=2, object_store_bytes=500_000_000) as url:
        yield url
