"""`import scarce`: the names are there, typed and late. A whole `scarce.sweep` is the first run of test_sweep.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hospital_folders import write_nih
from phantom_hospitals import write_hospitals, write_run

import scarce
from scarce.files import write_json
from scarce.views import to_input


def test_it_is_imported_in_no_time() -> None:
    code = "import scarce, sys; print([name for name in ('numpy', 'ray', 'torch', 'pandas') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_what_it_does_not_offer_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = scarce.sweeep


def test_types_are_known_to_a_type_checker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import scarce\nreveal_type(scarce.open_run('x').trials)\nscarce.sweep(space=3)\n")
    ended = subprocess.run([sys.executable, "-m", "mypy", script], capture_output=True, text=True)
    assert 'Revealed type is "pandas.' in ended.stdout
    assert 'Argument "space" to "sweep" has incompatible type "int"' in ended.stdout


def test_a_finished_run_is_opened(tmp_path: Path) -> None:
    run_folder = write_run(tmp_path / "run", *write_hospitals(tmp_path, patients=20))
    with pytest.raises(scarce.UserError, match=r"no finished run in .*: expected summary\.json"):
        scarce.open_run(run_folder)
    write_json(run_folder / "summary.json", {"chosen": {"auc": 0.6}})
    pd.DataFrame({"trial": ["a"], "val_auc": [0.6]}).to_parquet(run_folder / "trials.parquet")
    run = scarce.open_run(run_folder)
    assert run.summary["chosen"]["auc"] == 0.6
    assert run.trials["val_auc"].tolist() == [0.6]
    assert run.config["config"]["data"]["target"].endswith("b")
    images = scarce.open_hospital(tmp_path / "b").pixels(np.arange(2))
    with torch.no_grad():
        features = run.backbone()(to_input(torch.from_numpy(images)))
    assert features.shape[0] == 2
    assert features.isfinite().all()


def test_a_hospital_of_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(scarce.UserError, match="no hospital 'mars': expected one of nih, padchest, folder"):
        scarce.convert("mars", tmp_path, tmp_path / "out")  # type: ignore[arg-type]


@pytest.mark.usefixtures("ray_cluster")
def test_a_hospital_is_converted(tmp_path: Path) -> None:
    converted = scarce.convert("nih", write_nih(tmp_path / "source", images=4), tmp_path / "out", size=32)
    assert converted.pixels().shape == (4, 32, 32)
