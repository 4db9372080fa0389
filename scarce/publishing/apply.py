"""Scores of new films by a finished run's probe. Not for clinical use: a score is an order, not a probability."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scarce.audit.subject import FrozenPipeline
from scarce.audit_run import Model
from scarce.data.decode import DecodeError, decode, read_bytes
from scarce.data.intensity import stretch_range, to_8_bit
from scarce.data.pixels import reduce_images
from scarce.data.schema import MANIFEST_NAME
from scarce.data.sources import IMAGE_SUFFIXES, files_in, listed
from scarce.data.store import Dataset, open_dataset, pixel_array
from scarce.errors import UserError
from scarce.fewshot.task import Task, build_task
from scarce.files import atomic_path

HEADER = ("image", "finding", "score", "score_low", "score_high", "unreadable")
FILMS = 512  # scored at once
WARNING = (
    "# Research only. Not for clinical use. A higher score means more like the films with the finding; scores of "
    "different findings can't be compared, and none is a probability."
)


@dataclass(frozen=True, eq=False)
class Films:
    """Some new films: their names, uint8 [N, S, S], and why others can't be read."""

    names: list[str]
    images: np.ndarray
    unreadable: list[tuple[str, str]]


@dataclass(frozen=True)
class Applied:
    """What came of it: films scored, films that can't be read, and the shots of every finding's probes."""

    scored: int
    unreadable: int
    shots: dict[str, int]
    seeds: int


def apply_model(model: Model, source: Path, out: Path) -> Applied:
    """Score the films of a folder, or of a converted dataset, and write a row a film and finding to `out`, atomically.

    The probes are those that the run was tested with: on the target hospital's pool, with every finding's largest
    number of shots, one a seed. `score` is the mean of their scores, `score_low` and `score_high` are the lowest and
    the highest: the spread that comes from which few films were labelled. It does not cover another pretraining.

    Args:
        model: of a finished run.
        source: folder of PNG, JPEG or DICOM files at any depth, or a converted dataset.
        out: CSV; its first line is a warning, its second the header. Films that can't be read have a row with the
            reason.

    Raises:
        UserError: the run fine-tunes networks, the source is the hospital that its probes learned from, or no film of
            it can be read.
    """
    if not isinstance(model.pipeline, FrozenPipeline):
        raise UserError(f"{model.name} is fine-tuned anew on every set of labels: expected a run that chose a probe")
    task = learning_task(model)
    size = model.hospital.manifest.size
    scored, unreadable = 0, 0
    with atomic_path(out) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            file.write(WARNING + "\n")
            writer.writerow(HEADER)
            for films in _films(source, model.hospital, size):
                writer.writerows((name, "", "", "", "", reason) for name, reason in films.unreadable)
                unreadable += len(films.unreadable)
                if films.names:
                    writer.writerows(_rows(films, task, model.pipeline))
                    scored += len(films.names)
        if not scored:
            raise UserError(f"none of the {unreadable:,} films in {source} can be read: expected PNG, JPEG or DICOM")
    shots = {finding: able[-1] for finding, able in zip(task.findings, task.shots, strict=True)}
    return Applied(scored, unreadable, shots, len(task.seeds))


def learning_task(model: Model) -> Task:
    """What the probes learn from, without the test films: every finding's largest shots in the pool."""
    task = build_task(
        model.hospital, model.protocol, held_out="test", largest_size=model.image_size
    ).with_largest_shots()
    learned = [rows for episode in task.episodes for rows in (episode.positives, episode.negatives)]
    kept = np.unique(np.concatenate([*learned, task.reference]))
    moved = np.full(len(task.images), -1)
    moved[kept] = np.arange(len(kept))
    return replace(
        task,
        images=task.images[kept],
        image_ids=task.image_ids[kept],
        patients=task.patients[kept],
        labels=task.labels[kept],
        episodes=tuple(replace(e, positives=moved[e.positives], negatives=moved[e.negatives]) for e in task.episodes),
        evaluated=tuple(np.empty(0, int) for _ in task.findings),
        reference=moved[task.reference],
    )


def _rows(films: Films, task: Task, pipeline: FrozenPipeline) -> Iterator[tuple[str, str, str, str, str, str]]:
    side = task.images.shape[1]
    images = reduce_images(films.images, side) if films.images.shape[1] > side else films.images
    new = np.arange(len(task.images), len(task.images) + len(images))
    extended = replace(task, images=np.concatenate([task.images, images]), evaluated=(new,) * len(task.findings))
    values = [of_finding[0] for of_finding in pipeline(extended).values]  # [seeds, films]
    for row, name in enumerate(films.names):
        for finding, scores in zip(task.findings, values, strict=True):
            one = scores[:, row]
            yield name, finding, f"{one.mean():.6g}", f"{one.min():.6g}", f"{one.max():.6g}", ""


def _films(source: Path, hospital: Dataset, size: int) -> Iterator[Films]:
    if (source / MANIFEST_NAME).is_file():
        return _converted_films(open_dataset(source), hospital)
    if not source.is_dir():
        raise UserError(f"--source: expected a folder of X-rays or a converted dataset, found none at {source}")
    folders = [source, *sorted(path for path in source.rglob("*") if path.is_dir())]
    names = [image.file for folder in folders for image in files_in(source, folder)]
    if not names:
        raise UserError(f"no image in {source}: expected {', '.join(IMAGE_SUFFIXES)} files, found {listed(source)}")
    return (_decoded(source, names[start : start + FILMS], size) for start in range(0, len(names), FILMS))


def _decoded(source: Path, names: list[str], size: int) -> Films:
    """Films as a conversion would have made them (`scarce.data.shard`)."""
    kept, images, unreadable = [], [], []
    for name in names:
        try:
            raw = decode(read_bytes(source / name))
            low, high = stretch_range(raw.pixels, raw.inverted)
        except DecodeError as error:
            unreadable.append((name, str(error)))
            continue
        kept.append(name)
        images.append(to_8_bit(raw.pixels, low, high, size))
    return Films(kept, np.stack(images) if images else np.empty((0, size, size), np.uint8), unreadable)


def _converted_films(dataset: Dataset, hospital: Dataset) -> Iterator[Films]:
    if dataset.manifest.digest == hospital.manifest.digest:
        raise UserError(
            f"{dataset.path} is the hospital that the run's probes learned from, so its scores would be too good: "
            "expected other films; those of its test patients are in the run's summary.md"
        )
    for part in dataset.parts(["image_id", "pixels"]):
        images = np.array(pixel_array(part["pixels"].combine_chunks(), dataset.manifest.size))
        yield Films(part["image_id"].to_pylist(), images, [])
