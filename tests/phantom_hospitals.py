"""Two small phantom hospitals, and sweeps over them that end in seconds."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from scarce.audit_config import SweepAuditConfig
from scarce.backbones import create_backbone, export_backbone
from scarce.config import DataConfig, PretrainConfig, RunConfig, SearchConfig, SweepConfig
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.schema import REJECTED_SCHEMA, Shard, image_schema
from scarce.data.store import (
    Dataset,
    content_digest,
    lung_column,
    open_dataset,
    pixel_column,
    shard_name,
    write_dataset_files,
    write_shard,
)
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.files import write_json

SCRIPT = Path(__file__).parents[1] / "sweeps" / "ssl_aug.py"
FLAGS = [
    *("--image-size", "32", "--batch-size", "32", "--method", "simclr", "--report-epochs", "1", "--bootstrap", "100"),
    *("--shots", "1", "5", "--search-seeds", "2", "--test-seeds", "2", "--min-pool", "5", "--min-held-out", "2"),
    *("--scratch-seeds", "0", "--no-audit"),
]
PROTOCOL = ProtocolConfig(shots=(1, 5), search_seeds=2, test_seeds=2, min_pool=5, min_held_out=2, bootstrap=100)
QUICK_AUDITS = SweepAuditConfig(permutations=39, resamples=100)


def write_hospitals(folder: Path, patients: int = 60) -> tuple[Path, Path]:
    """A small phantom-a and phantom-b, 32 pixels."""
    for hospital in ("a", "b"):
        config = PhantomConfig(hospital, patients=patients, size=32, prevalence=0.35)
        write_phantom(config, folder / hospital)
    return folder / "a", folder / "b"


def write_films(
    folder: Path,
    hospital: str,
    table: pd.DataFrame,
    images: np.ndarray,
    lungs: np.ndarray | None = None,
    shards: int = 1,
) -> Dataset:
    """A converted dataset of films uint8 [N, S, S] with what a table says of them, as `Dataset.metadata` has it."""
    size = images.shape[1]
    files = {"raw_bits": 8, "stretch_low": 0.0, "stretch_high": 255.0, "raw_width": size, "raw_height": size}
    table = table.assign(hospital=hospital, **{name: value for name, value in files.items() if name not in table})
    schema, rows = image_schema(size), len(table)
    pictures = {"pixels": pixel_column(images)} | ({} if lungs is None else {"lungs": lung_column(lungs)})
    columns = [
        pictures[field.name]
        if field.name in pictures
        else pa.array(
            table[field.name].tolist() if field.name in table else [None] * rows, field.type, from_pandas=True
        )
        for field in schema
    ]
    films, written = pa.Table.from_arrays(columns, schema=schema), []
    for index, (start, end) in enumerate(pairwise(rows * part // shards for part in range(shards + 1))):
        part = films.slice(start, end - start)
        write_shard(folder / shard_name(index), part)
        written.append(Shard(shard_name(index), part.num_rows, content_digest(part)))
    write_dataset_files(
        folder,
        hospital=hospital,
        size=size,
        source="made up",
        settings={},
        shards=written,
        rejected=REJECTED_SCHEMA.empty_table(),
    )
    return open_dataset(folder)


def write_run(run: Path, pretraining: Path, target: Path, **protocol: object) -> Path:
    """What the audits need of a finished sweep in the folder `run`: config.json, and an untrained network as best/."""
    settings = {"recipe": {"pretrain": {"image_size": 32, "backbone": "resnet_small"}}, "probe": asdict(ProbeConfig())}
    export_backbone(create_backbone("resnet_small", 0), "resnet_small", run / "best", {"settings": settings})
    config = {
        "data": {"pretrain": str(pretraining), "target": str(target)},
        "protocol": asdict(replace(PROTOCOL, **protocol)),  # type: ignore[arg-type]
    }
    digests = [open_dataset(folder).manifest.digest for folder in (pretraining, target)]
    write_json(run / "config.json", {"config": config, "datasets": digests})
    return run


def small_sweep(folder: Path, name: str, **search: object) -> SweepConfig:
    """A sweep over the hospitals that `write_hospitals` put in `folder`, without the baseline that takes longest and
    without audits.
    """
    return SweepConfig(
        data=DataConfig(str(folder / "a"), str(folder / "b")),
        pretrain=PretrainConfig(method="simclr", image_size=32, epochs=4, batch_size=32, report_epochs=1.0),
        search=replace(SearchConfig(trials=4), **search),  # type: ignore[arg-type]
        protocol=PROTOCOL,
        baselines=BaselinesConfig(scratch_seeds=0),
        audits=SweepAuditConfig(audit=False),
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
    """What a run's trials came to, but for their speed, their cost and where they ran."""
    apart = ["images_per_s", "device_hours", "usd", "node", "gpu", "attempts"]
    table = pd.read_parquet(run / "trials.parquet").drop(columns=apart)
    return table.sort_values("trial", ignore_index=True)
