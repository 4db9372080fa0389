"""docs/tutorial.md and docs/finished_run.ipynb, carried out on 1,000 real films: all but the download."""

import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from blocks import DOCS, blocks, commands
from hospital_folders import shared_data
from phantom_hospitals import FLAGS

from scarce.cli import main

FILMS = {"/data/ChestXray-NIHCC": "nih-sample", "/data/new-films": "spain-covid-sample"}
NOT_RUN = ("setup", "download")
# What makes a command end in seconds. The sample's rarest finding with enough patients stands for the tutorial's.
SMALL = {
    "convert": ["--size", "32"],
    "tune-packing": ["--trials-at-once", "1", "--batch-sizes", "32", "--image-size", "32", "--seconds", "0.2"],
    "audit": ["--permutations", "39", "--resamples", "100"],
    "sweeps/ssl_aug.py": [*FLAGS, "--trials", "2", "--epochs", "2", "--backbone", "resnet18"],
}
FINDINGS = {"Hernia": "Effusion", "Fibrosis": "Atelectasis"}


def carried_out(command: str) -> None:
    """Run a command of the page in this process, made small."""
    stand_ins = FINDINGS | {path: str(shared_data(name).resolve()) for path, name in FILMS.items()}
    words = [stand_ins.get(word, word) for word in shlex.split(command)]
    if "l4" in words:
        del words[words.index("--preset") : words.index("l4") + 1]
    name = words[1]
    place = 3 if name == "convert" else 2  # before the page's own flags, which win
    words[place:place] = SMALL.get(name, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words if words[0] == "scarce" else words[1:])
        try:
            if words[0] == "scarce":
                main()
            else:
                runpy.run_path(str(DOCS.parent / name), run_name="__main__")
        except SystemExit as end:
            pytest.fail(f"{command} ended with {end.code}")


@pytest.mark.long
@pytest.mark.usefixtures("ray_cluster")
def test_every_command_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    carried_out("scarce convert folder --source /data/new-films --out data/mine")
    ran = [command for block in blocks("tutorial.md") if block.title not in NOT_RUN for command in commands(block.text)]
    assert len(ran) > 12
    for command in ran:
        carried_out(command)
    run = Path("runs/hernia")
    assert {"report.html", "summary.json", "audit"} <= {path.name for path in run.iterdir()}
    for written in ("nih.png", "views", "gap", "hernia-timm", "features.parquet", "scores.csv"):
        assert Path(written).exists()

    cells = json.loads((DOCS / "finished_run.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"]).replace("ssl_aug-phantom-a-phantom-b", "hernia").replace("phantom-b", "nih")
            exec(code, names)
    assert len(names["trials"]) == 2  # type: ignore[arg-type]
