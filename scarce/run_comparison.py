"""Finished runs against each other on the test patients that they share: what can be compared, and their scores."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scarce.audit_run import open_run
from scarce.errors import UserError
from scarce.fewshot.paired import compare_pairs
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task
from scarce.kept_scores import SCORES_NAME, patient_numbers, read_scores
from scarce.run_files import CONFIG_NAME, read_run_file

DECIDES = (
    *("findings", "shots", "test_seeds", "fractions", "min_pool", "min_held_out", "max_negatives"),
    *("bootstrap", "confidence"),
)  # settings of the protocol that decide which test episodes there are, and the intervals


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """What `compare_pairs` says of the chosen models of finished runs, by the names of their folders.

    A run keeps its test scores; of one that did not, the chosen model is scored again, which needs its dataset.

    Raises:
        UserError: fewer than two runs, runs of one name, one that is not finished, or runs whose test patients or
            episodes are not the same.
    """
    names = [folder.name for folder in folders]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UserError(f"expected at least two runs of different names, found {', '.join(names) or 'none'}")
    first, *others = [(folder, *_protocol(folder)) for folder in folders]
    for other in others:
        _check_same(first, other)
    protocol = first[2]
    scored = {folder.name: _scores(folder, protocol) for folder in folders}
    task = scored[names[0]][0]
    for name, (of_run, _) in scored.items():
        if not _same_films(task, of_run):
            raise UserError(f"{name} was not scored on the films that {names[0]} was scored on: run one of them again")
    return compare_pairs(task, {name: scores for name, (_, scores) in scored.items()}, protocol)


def _protocol(folder: Path) -> tuple[str, ProtocolConfig]:
    """Digest of the target dataset, and the protocol."""
    config = read_run_file(folder, CONFIG_NAME)
    try:
        return str(config["datasets"][-1]), ProtocolConfig.from_json(config["config"]["protocol"])
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{folder / CONFIG_NAME} is not what a sweep writes ({error!r}): run the sweep again"
        ) from error


def _check_same(first: tuple[Path, str, ProtocolConfig], other: tuple[Path, str, ProtocolConfig]) -> None:
    if first[1] != other[1]:
        raise UserError(
            f"{first[0].name} and {other[0].name} were judged on different target datasets (digests {first[1][:12]} "
            f"and {other[1][:12]}): expected runs with the same --target"
        )
    before, now = asdict(first[2]), asdict(other[2])
    for name in DECIDES:
        if before[name] != now[name]:
            raise UserError(
                f"{first[0].name} and {other[0].name} were judged by different protocols ({name} was {before[name]} "
                f"and {now[name]}): expected runs with the same --{name.replace('_', '-')}"
            )


def _scores(folder: Path, protocol: ProtocolConfig) -> tuple[Task, Scores]:
    path = folder / SCORES_NAME
    if path.exists():
        return read_scores(path)
    model = open_run(folder)
    task = build_task(model.hospital, protocol, held_out="test", largest_size=model.image_size)
    return task, model.pipeline(task)


def _same_films(one: Task, other: Task) -> bool:
    """Whether two tasks score the same films of the same patients, however these are numbered."""
    same = one.findings == other.findings and one.shots == other.shots and one.seeds == other.seeds
    return (
        same
        and all(np.array_equal(one.truth(finding), other.truth(finding)) for finding in range(len(one.findings)))
        and all(map(np.array_equal, patient_numbers(one), patient_numbers(other)))
    )
