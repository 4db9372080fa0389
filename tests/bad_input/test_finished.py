"""Converted datasets, checkpoints, weights and runs that are not what they were taken for."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from refusals import Bad, put, refuse, table
from safetensors.torch import save_file

from scarce.backbones import create_backbone, export_backbone


def changed(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Do something to the content of a JSON file."""

    def spoil(world: Path) -> None:
        content = json.loads((world / name).read_text())
        change(content)
        put(world / name, json.dumps(content))

    return spoil


def cut(name: str, length: int) -> Callable[[Path], None]:
    """Keep the first bytes of a file."""
    return lambda world: put(world / name, (world / name).read_bytes()[:length])


def with_content(name: str, content: bytes | str) -> Callable[[Path], None]:
    """Write a file."""
    return lambda world: put(world / name, content)


def rewritten(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Write the only shard of `b` with other rows."""

    def spoil(world: Path) -> None:
        shard = world / "b" / "shard-00000.parquet"
        rows = change(pq.read_table(shard))
        shard.unlink()
        pq.write_table(rows, shard)

    return spoil


def without(name: str) -> Callable[[Path], None]:
    """Remove a file."""
    return lambda world: (world / name).unlink()


@table(
    Bad("none", "ssl_aug", "--pretrain nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
    Bad("none", "methods", "--target nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
    Bad("none", "probe", "--target nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
    Bad("none", "first_failure", "--target nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
    Bad("none", "tune-packing", "--pretrain nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
    Bad("none", "describe", "nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
    Bad("a hospital's folder that nobody converted", "describe", "nih", ("no converted dataset in", "scarce convert")),
    Bad("a file", "describe", "a/dataset.json", ("no converted dataset in", "a/dataset.json", "scarce convert")),
    Bad("an empty name", "describe", [""], ("no converted dataset in", "scarce convert")),
    Bad("a name with a line end", "describe", ["no\nwhere"], ("no converted dataset in", "no where")),
    Bad("an escape sequence", "describe", ["\x1b[2Jx"], ("no converted dataset in", r"\x1b[2Jx")),
    Bad(
        "an older schema",
        "describe",
        "b",
        ("schema version 1, expected", "again"),
        changed("b/dataset.json", lambda m: m.update(schema_version=1)),
    ),
    Bad(
        "a newer schema",
        "ssl_aug",
        "",
        ("schema version 99, expected", "again"),
        changed("b/dataset.json", lambda m: m.update(schema_version=99)),
    ),
    Bad(
        "no schema version",
        "audit",
        "run",
        ("schema version None", "again"),
        changed("b/dataset.json", lambda m: m.pop("schema_version")),
    ),
    Bad(
        "a manifest cut short",
        "describe",
        "b",
        ("b/dataset.json is not a dataset manifest", "convert"),
        cut("b/dataset.json", 40),
    ),
    Bad(
        "an empty manifest",
        "describe",
        "b",
        ("b/dataset.json is not a dataset manifest", "convert"),
        with_content("b/dataset.json", ""),
    ),
    Bad(
        "a manifest that is no text",
        "describe",
        "b",
        ("not a dataset manifest", "convert"),
        with_content("b/dataset.json", b"\xff\xfe\0"),
    ),
    Bad(
        "a manifest that is a list",
        "describe",
        "b",
        ("not a dataset manifest", "convert"),
        with_content("b/dataset.json", "[1]"),
    ),
    Bad(
        "a manifest without shards",
        "describe",
        "b",
        ("not a dataset manifest", "convert"),
        changed("b/dataset.json", lambda m: m.pop("shards")),
    ),
    Bad(
        "a manifest of no images",
        "describe",
        "b",
        ("at least one", "convert"),
        changed("b/dataset.json", lambda m: m.update(shards=[], images=0, patients=0)),
    ),
    Bad(
        "a size that is a word",
        "describe",
        "b",
        ("a size in pixels, found 'big'", "convert"),
        changed("b/dataset.json", lambda m: m.update(size="big")),
    ),
    Bad(
        "a shard outside the folder",
        "describe",
        "b",
        ("named shard-00000.parquet", "convert"),
        changed("b/dataset.json", lambda m: m["shards"][0].update(name="../a/shard-00000.parquet")),
    ),
    Bad(
        "fewer rows than the manifest says",
        "describe",
        "b",
        ("holds", "expected", "run the conversion again"),
        changed("b/dataset.json", lambda m: (m["shards"][0].update(rows=7), m.update(images=7))),
    ),
    Bad(
        "a shard that is gone",
        "describe",
        "b",
        ("shard-00000.parquet is missing or damaged", "conversion again"),
        without("b/shard-00000.parquet"),
    ),
    Bad(
        "a shard cut short",
        "ssl_aug",
        "",
        ("shard-00000.parquet is missing or damaged", "conversion again"),
        cut("b/shard-00000.parquet", 5000),
    ),
    Bad(
        "a shard of another table",
        "describe",
        "b",
        ("shard-00000.parquet", "columns", "again"),
        rewritten(lambda t: t.drop_columns(["pixels"])),
    ),
    Bad(
        "a shard of other pictures",
        "describe",
        "b",
        ("shard-00000.parquet", "columns", "again"),
        changed("b/dataset.json", lambda m: m.update(size=64)),
    ),
)
def test_a_dataset(bad: Bad, world: Path) -> None:
    refuse(bad, world)


def relabelled(**columns: Any) -> Callable[[Path], None]:
    """Give all films of `b` the same value of some columns."""

    def change(rows: pa.Table) -> pa.Table:
        for name, value in columns.items():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(
                place, rows.schema.field(name), pa.array([value] * len(rows), rows.schema.types[place])
            )
        return rows

    return rewritten(change)


@table(
    Bad(
        "nobody has anything",
        "ssl_aug",
        "",
        ("no image of the target dataset has a finding", "expected labels"),
        relabelled(labels=[]),
    ),
    Bad(
        "nobody was looked at",
        "methods",
        "",
        ("no image of the target dataset has a finding",),
        relabelled(labels=None),
    ),
    Bad(
        "everyone has it",
        "ssl_aug",
        "",
        ("no finding has enough positive and negative patients", "lower --min-pool"),
        relabelled(labels=["Mass"]),
    ),
    Bad(
        "everyone has it",
        "first_failure",
        "--finding Mass",
        ("0 images of 0 patients without", "another --finding"),
        relabelled(labels=["Mass"]),
    ),
    Bad(
        "one patient",
        "ssl_aug",
        "",
        ("no finding has enough positive and negative patients", "lower"),
        relabelled(patient_id="only"),
    ),
    Bad(
        "one patient",
        "probe",
        "",
        ("no finding has enough positive and negative patients", "lower"),
        relabelled(patient_id="only"),
    ),
    Bad("one patient", "first_failure", "", ("can't be drawn", "a larger dataset"), relabelled(patient_id="only")),
    Bad(
        "one patient, who is held out",
        "ssl_aug",
        "--pretrain b --fractions 0.001 0.001 0.998",
        ("0 of 0 pretraining images", "another --pretrain"),
        relabelled(patient_id="only"),
    ),
    Bad(
        "a label that is no finding",
        "finetune",
        "",
        ("no image of the target dataset has a finding",),
        relabelled(labels=["normal"]),
    ),
)
def test_a_hospital(bad: Bad, world: Path) -> None:
    refuse(bad, world)


class Bomb:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def pickled(name: str) -> Callable[[Path], None]:
    """A torch file, and a plain one, whose pickle runs code."""
    return lambda world: torch.save({"weight": Bomb()}, world / name)


def other_network(world: Path) -> None:
    """Another backbone's weights beside the card."""
    export_backbone(create_backbone("resnet18", 0), "resnet18", world / "other", {})
    put(world / "run/best/backbone.safetensors", (world / "other/backbone.safetensors").read_bytes())
    shutil.rmtree(world / "other")


WEIGHTS = "run/best/backbone.safetensors"
CARD = "run/best/card.json"


@table(
    Bad("none", "probe", "--checkpoint nowhere", ("nowhere holds no exported backbone", "backbone.safetensors")),
    Bad("a file", "finetune", "--checkpoint a/dataset.json", ("a/dataset.json holds no exported backbone",)),
    Bad("a folder of something else", "probe", "--checkpoint a", ("world/a holds no exported backbone",)),
    Bad("weights cut short", "probe", "", ("best holds no exported backbone",), cut(WEIGHTS, 1000)),
    Bad("no weights", "finetune", "", ("best holds no exported backbone", "No such file"), without(WEIGHTS)),
    Bad("empty weights", "audit", "run", ("best holds no exported backbone",), with_content(WEIGHTS, b"")),
    Bad(
        "a header of 2**60 bytes",
        "probe",
        "",
        ("best holds no exported backbone",),
        with_content(WEIGHTS, struct.pack("<Q", 2**60) + b"{}"),
    ),
    Bad("a pickle", "probe", "", ("best holds no exported backbone",), with_content(WEIGHTS, pickle.dumps(Bomb()))),
    Bad(
        "another network's weights",
        "probe",
        "",
        ("best holds no exported backbone", "of another network"),
        other_network,
    ),
    Bad("a card cut short", "finetune", "", ("best holds no exported backbone",), cut(CARD, 20)),
    Bad("a card that is a list", "probe", "", ("best holds no exported backbone",), with_content(CARD, "[1]")),
    Bad(
        "an unknown backbone",
        "probe",
        "",
        ("'resnet19'", "expected one of"),
        changed(CARD, lambda c: c.update(backbone="resnet19")),
    ),
    Bad(
        "a card that knows no size",
        "probe",
        "",
        ("card.json does not say what size",),
        changed(CARD, lambda c: c.pop("settings")),
    ),
    Bad(
        "a card of a negative size",
        "probe",
        "",
        ("card.json does not say what size",),
        changed(CARD, lambda c: c["settings"]["recipe"]["pretrain"].update(image_size=-5)),
    ),
    Bad(
        "a card of another schema",
        "probe",
        "",
        ("card.json", "sweep again"),
        changed(CARD, lambda c: c.update(data=["nih"])),
    ),
    Bad(
        "no file of ImageNet weights",
        "ssl_aug",
        "--imagenet gone.pth",
        ("--imagenet gone.pth: no such file", "expected a state_dict"),
    ),
    Bad("a folder", "ssl_aug", "--imagenet a", ("--imagenet a: no such file", "expected a state_dict")),
    Bad(
        "no weights",
        "ssl_aug",
        "--imagenet a/dataset.json",
        ("--imagenet a/dataset.json can't be read", "expected a state_dict"),
    ),
    Bad(
        "a pickle that runs code",
        "ssl_aug",
        "--imagenet w.pth",
        ("--imagenet w.pth can't be read", "expected a state_dict"),
        pickled("w.pth"),
    ),
    Bad(
        "a plain pickle that runs code",
        "ssl_aug",
        "--imagenet w.pth",
        ("--imagenet w.pth can't be read",),
        with_content("w.pth", pickle.dumps(Bomb(), 2)),
    ),
    Bad(
        "another architecture",
        "ssl_aug",
        "--imagenet w.pth",
        ("holds the weights of something else", "expected a state_dict"),
        lambda w: torch.save({"x": torch.zeros(3)}, w / "w.pth"),
    ),
    Bad(
        "a tensor alone",
        "ssl_aug",
        "--imagenet w.pth",
        ("holds no state_dict", "expected a state_dict"),
        lambda w: torch.save(torch.zeros(3), w / "w.pth"),
    ),
    Bad(
        "safetensors of nothing",
        "ssl_aug",
        "--imagenet w.safetensors",
        ("weights of something else", "expected a state_dict"),
        lambda w: save_file({}, w / "w.safetensors"),
    ),
)
def test_weights(bad: Bad, world: Path) -> None:
    refuse(bad, world)
    assert not (world / "pwned").exists()


CONFIG = "run/config.json"


@table(
    Bad("none", "audit", "nowhere", ("nowhere is not a finished run", "expected config.json")),
    Bad("a dataset", "audit", "a", ("world/a is not a finished run", "expected config.json")),
    Bad("a file", "audit", "a/dataset.json", ("a/dataset.json is not a finished run", "expected config.json")),
    Bad("a config cut short", "audit", "run", ("config.json is damaged", "as a sweep wrote it"), cut(CONFIG, 30)),
    Bad("a config that is a list", "audit", "run", ("config.json", "run the sweep again"), with_content(CONFIG, "[]")),
    Bad(
        "a config of another schema",
        "audit",
        "run",
        ("config.json", "run the sweep again"),
        changed(CONFIG, lambda c: c["config"].update(data=5)),
    ),
    Bad(
        "a config without datasets",
        "audit",
        "run",
        ("'datasets'", "run the sweep again"),
        changed(CONFIG, lambda c: c.pop("datasets")),
    ),
    Bad(
        "a protocol of the future",
        "audit",
        "run",
        ("'zeal'", "run the sweep again"),
        changed(CONFIG, lambda c: c["config"]["protocol"].update(zeal=1)),
    ),
    Bad(
        "a probe of the future",
        "audit",
        "run",
        ("card.json does not say how",),
        changed(CARD, lambda c: c["settings"]["probe"].update(zeal=1)),
    ),
    Bad("a run that has not ended", "audit", "run", ("has no chosen model", "finished run"), without(CARD)),
    Bad(
        "a dataset that has changed",
        "audit",
        "run",
        ("content has changed since",),
        changed("b/dataset.json", lambda m: m.update(digest="x")),
    ),
    Bad("another hospital that is not there", "audit", "run --other nowhere", ("no converted dataset in", "nowhere")),
    Bad(
        "a warm start from nothing",
        "ssl_aug",
        "--warm-start nowhere",
        ("--warm-start nowhere", "folder of a finished run"),
    ),
    Bad(
        "a warm start from no table",
        "ssl_aug",
        "--warm-start a/dataset.json",
        ("--warm-start", "cannot be read as Parquet"),
    ),
    Bad(
        "a warm start from another table",
        "ssl_aug",
        "--warm-start a/shard-00000.parquet",
        ("--warm-start", "has no trial, status, val_auc"),
    ),
)
def test_a_run(bad: Bad, world: Path) -> None:
    refuse(bad, world)
