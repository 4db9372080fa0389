"""Flags that do not exist, do not fit, or lie out of range."""

from pathlib import Path

import pytest
from refusals import Bad, put, refuse, table

LONG = "n" * 300


@table(
    # Flags that are none, or that are no flags.
    Bad("a misspelt flag", "ssl_aug", "--trails 3", ("--trails", "perhaps you meant --trials", "--help")),
    Bad("a stray word", "methods", "stray", ("stray", "--help")),
    Bad("a flag of another script", "probe", "--pretrain a", ("--pretrain", "--help")),
    Bad("a flag without its value", "finetune", "--target", ("--target", "--help")),
    Bad("an unknown flag", "first_failure", "--shots 1", ("--shots", "--help")),
    Bad("a misspelt flag", "nih", "--sise 64", ("--sise", "--size")),
    Bad("two datasets", "describe", "a b", ("b", "--help")),
    Bad("no dataset", "describe", "", ("DATASET", "--help")),
    Bad("no run", "audit", "", ("RUN", "--help")),
    Bad("a misspelt flag", "tune-packing", "--epoch 3", ("--epoch,", "--epochs")),
    # Values of another type.
    Bad("a word for a number", "ssl_aug", "--trials many", ("--trials", "many")),
    Bad("half a seed", "ssl_aug", "--seed 0.5", ("--seed", "0.5")),
    Bad("two of three fractions", "ssl_aug", "--fractions 0.5 0.5", ("--fractions", "3 values")),
    Bad("an unknown precision", "ssl_aug", "--precision half", ("half", "--precision", "bfloat16")),
    Bad("a word for a number", "padchest", "--size big", ("--size", "big")),
    # Values out of range.
    Bad("an unknown preset", "ssl_aug", "--preset h100", ("--preset h100", "expected one of cpu, l4")),
    Bad("an unknown method", "ssl_aug", "--method mocco", ("'mocco'", "expected one of simclr")),
    Bad("an unknown method", "methods", "--methods simclr mocco", ("'mocco'", "expected one of simclr")),
    Bad("an unknown backbone", "ssl_aug", "--backbone resnet19", ("'resnet19'", "expected one of resnet_small")),
    Bad("an unknown finding", "ssl_aug", "--findings scurvy", ("'scurvy'", "expected --findings among")),
    Bad("an unknown finding", "first_failure", "--finding scurvy", ("'scurvy'", "expected --finding among")),
    Bad("an unknown finding", "audit", "run --findings scurvy", ("'scurvy'", "expected --findings among")),
    Bad("a spoken-for finding twice", "ssl_aug", "--shots 1 1", ("--shots", "different positive numbers")),
    Bad("no trials", "ssl_aug", "--trials 0", ("--trials is 0", "at least 1")),
    Bad("no trials", "methods", "--trials 0", ("--trials", "positive")),
    Bad("no trials", "probe", "--trials 0", ("--trials", "at least 1, got 0")),
    Bad("negative epochs", "ssl_aug", "--epochs -1", ("--epochs", "positive number, got -1")),
    Bad("epochs that are no number", "ssl_aug", "--epochs nan", ("--epochs", "positive number, got nan")),
    Bad("endless epochs", "ssl_aug", "--epochs inf", ("--epochs", "positive number, got inf")),
    Bad("no epochs between reports", "ssl_aug", "--report-epochs 0", ("--report-epochs", "positive number, got 0")),
    Bad("epochs that are no number", "tune-packing", "--epochs nan", ("--epochs", "positive number, got nan")),
    Bad("endless seconds", "tune-packing", "--seconds inf", ("--seconds", "positive number, got inf")),
    Bad("no time", "methods", "--device-seconds nan", ("--device-seconds", "positive, got")),
    Bad("a batch of one", "ssl_aug", "--batch-size 1", ("--batch-size", "at least 2 images, got 1")),
    Bad("a batch larger than the dataset", "ssl_aug", "--batch-size 5000", ("--batch-size 5000", "a smaller one")),
    Bad("a batch larger than the dataset", "methods", "--batch-size 5000", ("--batch-size 5000", "a smaller one")),
    Bad("a batch larger than the dataset", "tune-packing", "--batch-sizes 5000", ("batch size 5000", "--batch-sizes")),
    Bad("images of no size", "ssl_aug", "--image-size 0", ("--image-size", "[16, 2048] pixels, got 0")),
    Bad(
        "a size that does not fit the backbone",
        "ssl_aug",
        "--backbone vit_small --image-size 40",
        ("--image-size 40", "vit_small", "multiple of 16, such as"),
    ),
    Bad(
        "a size that does not fit the method",
        "ssl_aug",
        "--method spark --backbone resnet18 --image-size 48",
        ("--image-size 48", "multiple of 32"),
    ),
    Bad("no shots", "ssl_aug", "--shots 0", ("--shots", "positive numbers, got (0,)")),
    Bad("fractions beyond 1", "ssl_aug", "--fractions 0.5 0.5 0.5", ("--fractions", "sum to 1")),
    Bad("a fraction that is no number", "ssl_aug", "--fractions nan 0.5 0.5", ("--fractions", "sum to 1")),
    Bad("a negative seed", "ssl_aug", "--seed -1", ("--seed", "[0, 2**32), got -1")),
    Bad("a negative seed", "probe", "--seed -1", ("--seed", "[0, 2**32), got -1")),
    Bad("CPUs that are no number", "ssl_aug", "--cpus-per-trial nan", ("--cpus-per-trial is nan", "more than 0")),
    Bad("half a GPU more", "ssl_aug", "--gpus-per-trial 1.5", ("--gpus-per-trial is 1.5", "whole number")),
    Bad("a negative budget", "ssl_aug", "--budget-hours -1", ("--budget-hours is -1", "at least 0")),
    Bad("an endless budget", "ssl_aug", "--budget-hours inf", ("--budget-hours is inf", "expected")),
    Bad("a target below chance", "ssl_aug", "--target-auc 0.4", ("--target-auc", "between 0.5 and 1, got 0.4")),
    Bad("certainty", "ssl_aug", "--confidence 1", ("--confidence", "between 0 and 1")),
    Bad("too few shuffles", "audit", "run --permutations 3", ("--permutations", "at least 39", "got 3")),
    Bad("more findings than there are", "ssl_aug", "--min-pool 50000", ("50000 pool", "lower --min-pool")),
    Bad("one val seed", "finetune", "--val-seeds 1", ("--val-seeds", "[2, --search-seeds 5], got 1")),
    Bad("nothing held out", "first_failure", "--held-out 0", ("--held-out", "between 0 and 1, got 0")),
    Bad("more images than there are", "first_failure", "--images 6000", ("--images 6000", "a larger dataset")),
    Bad("images of 8 pixels", "nih", "--size 8", ("--size", "16 to 2048 pixels, found 8")),
    Bad("a GPU where there is none", "probe", "--device cuda", ("--device cuda", "use --device cpu")),
    # --fix.
    Bad("an unknown setting", "ssl_aug", "--fix views.blurr=1", ("--fix views.blurr=1", "one of", "views.blur,")),
    Bad("no value", "ssl_aug", "--fix views.blur", ("--fix views.blur", "expected KEY=VALUE")),
    Bad("a word for a number", "ssl_aug", "--fix method.dim=wide", ("--fix method.dim=wide", "a whole number")),
    Bad("no number", "ssl_aug", "--fix method.temperature=nan", ("temperature=nan", "a positive number")),
    Bad("an endless rate", "ssl_aug", "--fix optimiser.lr=inf", ("optimiser.lr=inf", "a positive number")),
    Bad("a negative temperature", "ssl_aug", "--fix method.temperature=-1", ("temperature=-1", "a positive number")),
    Bad("a probability of 3", "ssl_aug", "--fix views.flip=3", ("views.flip=3", "in [0, 1]")),
    Bad("a crop larger than the image", "ssl_aug", "--fix views.crop_min=3", ("views.crop_min=3", "at most 1")),
    Bad("an unknown optimiser", "ssl_aug", "--fix optimiser.name=lion", ("optimiser.name=lion", "sgd or adamw")),
    Bad("an unknown probe", "ssl_aug", "--fix probe.kind=tree", ("probe", "'tree'", "expected one of logistic")),
    Bad("a word for yes", "ssl_aug", "--method dino --fix method.head_batch_norm=ja", ("=ja", "true or false")),
)
def test_a_flag(bad: Bad, world: Path) -> None:
    refuse(bad, world)


@table(
    Bad("a path", "ssl_aug", "--name a/b", ("--name 'a/b'", "name of one folder")),
    Bad("the folder above", "methods", "--name ..", ("--name '..'", "name of one folder")),
    Bad("an absolute path", "probe", "--name /tmp/x", ("--name '/tmp/x'", "name of one folder")),
    Bad("a line end", "finetune", ["--name", "a\nb"], (r"--name 'a\nb'", "name of one folder")),
    Bad("a blank", "first_failure", ["--name", " "], ("--name ' '", "name of one folder")),
    Bad("a long name", "ssl_aug", ["--name", LONG], ("--name 'nnn", "at most 200 bytes")),
    Bad("an escape sequence", "ssl_aug", ["--name", "\x1b[2J"], ("--name", "name of one folder")),
    Bad("a file", "ssl_aug", "--out a/dataset.json", ("a/dataset.json is a file", "another --out")),
    Bad("a folder below a file", "probe", "--out a/dataset.json/x", ("a/dataset.json is a file", "another --out")),
    Bad("a file", "nih", "--out a/dataset.json", ("--out", "a/dataset.json", "expected a folder")),
    Bad("something else's folder", "nih", "--out run", ("--out", "found best in", "name another folder")),
)
def test_where_to_write(bad: Bad, world: Path) -> None:
    refuse(bad, world)


@table(
    Bad("nothing", "ssl_aug", "--resume", ("nothing to resume", "without --resume")),
    Bad("a run that is there", "ssl_aug", "--out . --name run", ("holds a run already", "--resume", "--name")),
    Bad("a run that is there", "methods", "--out . --name run", ("holds a run already", "--resume", "--name")),
    Bad("a run that is there", "probe", "--out . --name run", ("holds a run already", "another --name")),
    Bad("a run that is there", "finetune", "--out . --name run", ("holds a run already", "another --name")),
    Bad("a run that is there", "first_failure", "--out . --name run", ("holds a run already", "another --name")),
    Bad("a run with other settings", "ssl_aug", "--out . --name run --resume", ("other settings", "another --name")),
    Bad(
        "a run whose config.json is cut",
        "ssl_aug",
        "--out . --name run --resume",
        ("run/config.json is not the config.json of a run", "another --name"),
        lambda folder: put(folder / "run/config.json", '{"config": {"da'),
    ),
    Bad(
        "a run whose config.json is something else",
        "methods",
        "--out . --name run --resume",
        ("run/config.json is not the config.json of a run", "another --name"),
        lambda folder: put(folder / "run/config.json", "[1, 2]"),
    ),
    Bad(
        "a run that everyone can write to",
        "ssl_aug",
        "--out . --name run --resume",
        ("can be written to by everyone", "chmod -R o-w"),
        lambda folder: (folder / "run").chmod(0o777),
    ),
    Bad(
        "a run whose searcher everyone can write to",
        "ssl_aug",
        "--out . --name run --resume",
        ("tune/searcher-state.pkl can be written to by everyone", "chmod -R o-w"),
        lambda folder: (
            put(folder / "run/tune/searcher-state.pkl", b""),
            (folder / "run/tune/searcher-state.pkl").chmod(0o666),
        ),
    ),
)
def test_what_to_go_on_with(bad: Bad, world: Path) -> None:
    refuse(bad, world)


@pytest.mark.parametrize("command", ["ssl_aug", "nih"])
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_an_address_of_nothing(command: str, address: str, world: Path) -> None:
    # Ray is asked whether it runs, never to start.
    refuse(Bad("", command, f"--address {address}", (f"{address!r}, found none", "ray start --head")), world)


@pytest.mark.parametrize("command", ["ssl_aug", "methods", "nih"])
def test_a_cluster_of_other_machines_without_a_token(command: str, world: Path) -> None:
    words = ("'192.0.2.1:6379'", "RAY_AUTH_MODE is not token", "ray get-auth-token --generate")
    refuse(Bad("", command, "--address 192.0.2.1:6379", words), world)
