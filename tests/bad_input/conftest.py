"""The folder of good input that the tables of bad input spoil."""

from pathlib import Path

import pytest
from hospital_folders import nih_row, png, write_csv, write_nih
from phantom_hospitals import write_hospitals, write_run
from refusals import world  # noqa: F401, a fixture


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `a` and `b`, a finished run `run`, and sources of each kind: `nih`, `padchest`, `folder`."""
    world = tmp_path_factory.mktemp("good")
    write_hospitals(world)
    write_run(world / "run", Path("a"), Path("b"))
    return world
