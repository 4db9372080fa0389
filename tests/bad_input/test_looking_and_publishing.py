"""What the commands for looking, publishing and fetching can't use: a line, exit code 2, nothing written."""

import json
from pathlib import Path

import pytest
from refusals import Bad, put, refuse, table


def emptied(world: Path) -> None:
    """A dataset `b` that says it has no images."""
    manifest = json.loads((world / "b" / "dataset.json").read_text())
    put(world / "b" / "dataset.json", json.dumps(manifest | {"shards": [], "images": 0, "patients": 0}))


DATASET = {
    "show": "{dataset} --out new.png",
    "views": "{dataset} --out new",
    "gap": "a {dataset} --out new",
    "features": "{dataset} --backbone run",
}


@pytest.mark.parametrize("command", DATASET)
@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("nowhere", ("no converted dataset in", "nowhere", "scarce convert")),
        ("run", ("no converted dataset in", "world/run")),
        ("a/dataset.json", ("no converted dataset in", "a/dataset.json")),
        ("s3://user:password@bucket/x", ("s3://",)),
    ],
)
def test_no_dataset(command: str, dataset: str, words: tuple[str, ...], world: Path) -> None:
    refuse(Bad("", command, DATASET[command].format(dataset=dataset), words), world)


@pytest.mark.parametrize("command", DATASET)
def test_an_empty_dataset(command: str, world: Path) -> None:
    words = ("b/dataset.json is not a dataset manifest", "at least one", "convert the dataset again")
    refuse(Bad("", command, DATASET[command].format(dataset="b"), words, emptied), world)


@table(
    Bad("nothing", "export", "nowhere --format onnx", ("nowhere holds no backbone", "folder of a finished run")),
    Bad("a dataset", "export", "a --format timm", ("world/a holds no backbone", "backbone.safetensors")),
    Bad("a file", "export", "a/dataset.json --format timm", ("a/dataset.json holds no backbone",)),
    Bad("a dataset", "features", "b --backbone a", ("a holds no backbone", "folder of a finished run")),
    Bad("a dataset", "gap", "a b --out new --backbone a", ("a holds no backbone", "folder of a finished run")),
    Bad("a dataset", "apply", "a --source folder", ("world/a is not a finished run", "expected config.json")),
    Bad("best/ alone", "apply", "run/best --source folder", ("run/best is not a finished run", "config.json")),
    Bad(
        "weights cut short",
        "export",
        "run --format onnx",
        ("run/best holds no exported backbone",),
        lambda w: put(w / "run/best/backbone.safetensors", b"cut"),
    ),
    Bad(
        "a card of nothing",
        "features",
        "b --backbone run",
        ("run/best holds no exported backbone",),
        lambda w: put(w / "run/best/card.json", "{}"),
    ),
    Bad(
        "a summary cut short",
        "export",
        "run --format onnx",
        ("run/summary.json is damaged",),
        lambda w: put(w / "run/summary.json", '{"chosen": '),
    ),
    Bad(
        "a summary of another version",
        "export",
        "run --format onnx",
        ("summary.json or audits", "run the sweep again"),
        lambda w: put(w / "run/summary.json", '{"chosen": 5}'),
    ),
    Bad(
        "a config of another version",
        "apply",
        "run --source folder",
        ("config.json is not what", "run the sweep again"),
        lambda w: put(w / "run/config.json", '{"config": {"data": 5}}'),
    ),
)
def test_no_run(bad: Bad, world: Path) -> None:
    refuse(bad, world)


@table(
    Bad("a network that torchvision lacks", "export", "run --format torchvision", ("no resnet_small", "--format onnx")),
    Bad("a network that timm lacks", "export", "run --format timm", ("timm has no resnet_small", "--format onnx")),
    Bad("an unknown format", "export", "run --format keras", ("keras", "torchvision")),
    Bad("no format", "export", "run", ("--format",)),
    Bad("an unknown finding", "show", "b --findings scurvy", ("'scurvy'", "expected --findings among")),
    Bad("no films", "show", "b --per-finding 0", ("--per-finding", "[1, 20]", "got 0")),
    Bad("a negative seed", "show", "b --seed -1", ("--seed", "at least 0, got -1")),
    Bad("a film that is not there", "views", "b --index 99999", ("--index", "got 99999")),
    Bad("a negative film", "views", "b --index -1", ("--index", "got -1")),
    Bad("views of 8 pixels", "views", "b --size 8", ("--size", "[16, 2048]", "got 8")),
    Bad("a word for a film", "views", "b --index first", ("--index", "first")),
    Bad("one hospital", "gap", "a", ("B",)),
    Bad("a hospital and itself", "gap", "a a", ("a and a hold the same films", "two hospitals")),
    Bad("few patients", "gap", "a b --patients 5", ("--patients", "at least 20, got 5")),
    Bad("few draws", "gap", "a b --draws 3", ("--draws", "at least 100, got 3")),
    Bad("no backbone", "features", "b", ("--backbone",)),
    Bad("a misspelt flag", "features", "b --backbone run --with-patient", ("--with-patient", "--with-patients")),
    Bad("no films", "apply", "run --source run", ("no image in", "expected .png")),
    Bad("no folder", "apply", "run --source nowhere", ("--source", "nowhere")),
    Bad("the run's own hospital", "apply", "run --source b", ("learned from", "summary.md")),
    Bad(
        "films that are none",
        "apply",
        "run --source bad",
        ("none of the 1 films in bad", "expected PNG"),
        lambda w: put(w / "bad/x.png", b"no image"),
    ),
    Bad("an unknown hospital", "fetch", "mars", ("mars",)),
    Bad("a misspelt flag", "fetch", "nih --yess", ("--yess", "--yes")),
    Bad("a file", "fetch", "nih --yes --out a/dataset.json", ("a/dataset.json is a file", "expected a folder")),
)
def test_a_flag(bad: Bad, world: Path) -> None:
    refuse(bad, world)


OUT = {
    "show": ("b", ".png"),
    "views": ("b", ""),
    "gap": ("a b", ""),
    "export": ("run --format onnx", ""),
    "features": ("b --backbone run", ".parquet"),
    "apply": ("run --source folder", ".csv"),
}


@pytest.mark.parametrize("command", OUT)
def test_where_to_write(command: str, world: Path) -> None:
    flags, suffix = OUT[command]
    refuse(Bad("", command, f"{flags} --out a/dataset.json/new{suffix}", ("--out", "another place")), world)
    if suffix:
        refuse(Bad("", command, f"{flags} --out new.doc", ("--out new.doc", f"name of a {suffix} file")), world)
        refuse(Bad("", command, f"{flags} --out a", ("--out a", f"name of a {suffix} file")), world)
    else:
        refuse(Bad("", command, f"{flags} --out a", ("--out a is there already", "does not exist")), world)
