"""The chosen model's features in TensorBoard's embedding projector, with what is known of films but their patient."""

import shutil
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from tensorboardX import SummaryWriter
from torch import nn

from scarce.data.pixels import reduce_images
from scarce.data.store import Dataset
from scarce.fewshot.features import extract_features
from scarce.fewshot.task import Task
from scarce.mirror import BOARDS, Mirror
from scarce.pairing import Hospitals

CHOSEN = "chosen"  # folder below BOARDS
MOST_IMAGES = 1000  # of each hospital
THUMBNAIL = 48  # pixels a side; TensorBoard takes 8192 for all of them in a square
COLUMNS = ("finding", "hospital", "split", "view")


def project(
    mirror: Mirror,
    backbone: nn.Module,
    hospitals: Hospitals,
    tasks: Iterable[Task],
    image_size: int,
    device: torch.device,
) -> None:
    """Write features of both hospitals' films for the projector, at most 1,000 of each.

    Of the target hospital they are the held-out films of the tasks, of the pretraining hospital its first ones. Where
    it is one hospital, the held-out films are all.

    Args:
        mirror: the run.
        backbone: maps float32 [B, 1, S, S] to [B, D]; already on `device`.
        hospitals: of the run.
        tasks: val and test.
        image_size: S, pixels a side.
        device: where the backbone lies.
    """
    films = list(_films(hospitals, list(tasks)))
    features = np.concatenate([extract_features(backbone, images, image_size, device) for images, _ in films])
    thumbnails = np.concatenate([reduce_images(images, THUMBNAIL) for images, _ in films])
    table = pd.concat([known for _, known in films], ignore_index=True)
    folder = mirror.folder / BOARDS / CHOSEN
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # of the tiles that fill the sprite's square, which hold anything
        writer.add_embedding(
            features,
            metadata=table[list(COLUMNS)].to_numpy().tolist(),
            label_img=thumbnails[:, None] / np.float32(255),
            metadata_header=list(COLUMNS),
            tag="features",
        )
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            mirror.push_file(path)


def _films(hospitals: Hospitals, tasks: list[Task]) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    """Images uint8 [N, H, W] with their rows of `COLUMNS`."""
    metadata = hospitals.target.metadata().set_index("image_id")
    for task in tasks:
        rows = np.unique(np.concatenate(task.evaluated))
        most = min(len(rows), MOST_IMAGES // len(tasks))
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
        yield task.images[rows], _known(metadata.loc[task.image_ids[rows]], hospitals.target, task.held_out)
    pretraining = hospitals.pretraining
    if pretraining.manifest.digest != hospitals.target.manifest.digest:
        rows = np.arange(min(MOST_IMAGES, pretraining.manifest.images))  # the first, as they lie in few shards
        metadata = pretraining.metadata().iloc[rows]
        yield pretraining.pixels(rows), _known(metadata, pretraining, "pretraining")


def _known(metadata: pd.DataFrame, dataset: Dataset, split: str) -> pd.DataFrame:
    findings = ["unlabelled" if labels is None else ", ".join(labels) or "none" for labels in metadata["labels"]]
    views = metadata["view"].astype(object).where(metadata["view"].notna(), "unknown")
    return pd.DataFrame(
        {"finding": findings, "hospital": dataset.manifest.hospital, "split": split, "view": views.to_numpy()}
    )
