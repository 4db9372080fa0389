"""docs/extending.md: its files are made, its changes applied to a copy of the source, its commands run, in order."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from blocks import blocks, commands
from phantom_hospitals import FLAGS
from PIL import Image

from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.store import open_dataset

ROOT = Path(__file__).parents[2]
FILMS = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, and the films of St Mary's."""
    place = tmp_path_factory.mktemp("extending")
    for part in ("scarce", "sweeps"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    write_phantom(
        PhantomConfig("a", patients=FILMS, size=32, prevalence=0.35, images_a_patient=(1.0,)), place / "phantom"
    )
    drawn = open_dataset(place / "phantom")
    films = place / "st-marys" / "films"
    films.mkdir(parents=True)
    for row, film in zip(drawn.metadata().itertuples(), drawn.pixels(), strict=True):
        Image.fromarray(film).save(films / f"{row.image_id}.png")
        note = {"patient": row.patient_id, "projection": row.view, "findings": list(row.labels)}
        (films / f"{row.image_id}.json").write_text(json.dumps(note))
    (films / f"{row.image_id}.json").write_text("{")
    return place


def run(place: Path, *command: str) -> str:
    paths = {"PYTHONPATH": str(place), "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | paths
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, f"{shlex.join(command)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.long
def test_the_worked_examples_work(place: Path) -> None:
    said: dict[str, str] = {}
    for block in blocks("extending.md"):
        if block.title:
            assert not (place / block.title).exists()
            (place / block.title).write_text(block.text)
        elif block.language == "diff":
            subprocess.run(["git", "apply", "-"], input=block.text, text=True, cwd=place, check=True)
        elif block.language == "python":
            run(place, sys.executable, "-c", block.text)
        for command in commands(block.text) if block.language == "bash" else ():
            words = shlex.split(command)
            start = [sys.executable, "-c", "from scarce.cli import main; main()"] if words[0] == "scarce" else words[:1]
            small = [*FLAGS, "--batch-size", "16", "--epochs", "2"] if words[1].startswith("sweeps/") else []
            said[" ".join(words[:2])] = run(place, *start, words[1], *small, *words[2:])
    assert f"{FILMS - 1} images of {FILMS - 1} patients, 1 rejected" in said["scarce convert"]
    assert "pulmonary mass" in said["scarce describe"]
    trials = pd.read_parquet(next(place.glob("runs/*/trials.parquet")))
    assert [name for name in trials if name.startswith(("method.", "views."))] == ["method.temperature"]
    config = json.loads(next(place.glob("runs/*/trials/*/trial.json")).read_text())["settings"]["recipe"]
    assert (config["pretrain"]["method"], config["views"]["collimation"]) == ("dcl", 0.1)
