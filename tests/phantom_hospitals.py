"""Two small phantom hospitals, and sweeps over them that end in seconds."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from scarce.config import DataConfig, PretrainConfig, RunConfig, SearchConfig, SweepConfig
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.protocol import ProtocolConfig

SCRIPT = Path(__file__).parents[1] / "sweeps" / "ssl_aug.py"
FLAGS = [
    *("--image-size", "32", "--batch-size", "32", "--method", "simclr", "--report-epochs", "1", "--bootstrap", "100"),
    *("--shots", "1", "5", "--search-seeds", "2", "--test-seeds", "2", "--min-pool", "5", "--min-held-out", "2"),
    *("--scratch-seeds", "0"),
]


def write_hospitals(folder: Path, patients: int = 60) -> tuple[Path, Path]:
    """A small phantom-a and phantom-b, 32 pixels."""
    for hospital in ("a", "b"):
        config = PhantomConfig(hospital, patients=patients, size=32, prevalence=0.35)
        write_phantom(config, folder / hospital)
    return folder / "a", folder / "b"


def small_sweep(folder: Path, name: str, **search: object) -> SweepConfig:
    """A sweep over the hospitals that `write_hospitals` put in `folder`, without the baseline that takes longest."""
    return SweepConfig(
        data=DataConfig(str(folder / "a"), str(folder / "b")),
        pretrain=PretrainConfig(method="simclr", image_size=32, epochs=4, batch_size=32, report_epochs=1.0),
        search=replace(SearchConfig(trials=4), **search),  # type: ignore[arg-type]
        protocol=ProtocolConfig(shots=(1, 5), search_seeds=2, test_seeds=2, min_pool=5, min_held_out=2, bootstrap=100),
        baselines=BaselinesConfig(scratch_seeds=0),
        run=RunConfig(name=name, out=str(folder / "runs")),
    )


def start_script(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """`sweeps/ssl_aug.py` as a user starts it, in `folder`, with the hospitals in there."""
    data = ["--pretrain", str(folder / "a"), "--target", str(folder / "b"), "--out", str(folder / "runs")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *data, *FLAGS, *flags],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results_of(run: Path) -> pd.DataFrame:
    """What a run's trials came to, but for their speed."""
    table = pd.read_parquet(run / "trials.parquet").drop(columns="images_per_s")
    return table.sort_values("trial", ignore_index=True)
