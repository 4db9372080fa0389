"""A simulated cluster for each file here but the autoscaler's, and two small hospitals on the disk that nodes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from phantom_hospitals import write_hospitals
from simulated import SimulatedCluster, simulated_cluster


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared disk."""
    folder = tmp_path_factory.mktemp("shared")
    write_hospitals(folder)
    return folder


@pytest.fixture(scope="module")
def cluster(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedCluster]:
    """A head without GPUs and two nodes with one each. The head's GCS keeps its tables on a disk."""
    storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path_factory.mktemp("gcs"))}
    worker = {"num_cpus": 4, "num_gpus": 1}
    with simulated_cluster(shared, {"num_cpus": 2, "num_gpus": 0}, worker, worker, **storage) as running:
        yield running
