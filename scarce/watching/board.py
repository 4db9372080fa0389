"""A trial's TensorBoard folder: its reports as scalars, its settings under HParams, the views that it learns from."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from scarce.data.pixels import reduce_images
from scarce.pretrain import Metrics
from scarce.settings import Value
from scarce.space import Choice, Dimension
from scarce.views import ViewConfig
from scarce.watching.view_samples import sample_views

GAP = 2  # pixels between two images of a grid
SHOWN_VIEWS = 6  # of each image, at most


class BoardWriter:
    """Writes the folder, afresh in every process that works on the trial: it starts by replaying earlier reports."""

    def __init__(
        self, folder: Path, sampled: Mapping[str, Value], objectives: Iterable[str], space: Mapping[str, Dimension]
    ) -> None:
        """Write what was sampled for the trial, what of `space` it was sampled from, and that reports have objectives.

        All trials of a run say the same of the space, as TensorBoard reads it from whichever it finds first.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder), flush_secs=5)
        searched = [hparams.HParam(key, domain_of(dimension)) for key, dimension in space.items()]
        metrics = [hparams.Metric(name) for name in objectives]
        for message in (hparams.hparams_config_pb(searched, metrics), hparams.hparams_pb(dict(sampled))):
            self._writer.file_writer.add_summary(Summary.FromString(message.SerializeToString()))

    def add(self, metrics: Metrics) -> None:
        """Write one report, but for what is no number."""
        for name, value in metrics.items():
            if not isinstance(value, str):
                self._writer.add_scalar(name, value, int(metrics["step"]))
        self._writer.flush()

    def show_views(self, images: np.ndarray, views: Sequence[tuple[int, ViewConfig]]) -> None:
        """Draw images uint8 [N, H, W] as a grid a size of view: a row each, the image first, then views of it.

        `views` are a method's, each with its side in pixels.
        """
        for size in dict.fromkeys(size for size, _ in views):
            alike = [config for side, config in views if side == size][:SHOWN_VIEWS]
            columns = [reduce_images(images, size)]
            columns += [sample_views(images, size, config, 1, seed)[:, 0] for seed, config in enumerate(alike)]
            grid = grid_of(np.stack(columns, axis=1))
            self._writer.add_image(f"views/{size}px", grid, 0, dataformats="HW")
        self._writer.flush()

    def __enter__(self) -> "BoardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def domain_of(dimension: Dimension) -> hparams.Domain:
    """A dimension of a search space as HParams has it; whether it is searched by its logarithm cannot be said there."""
    if isinstance(dimension, Choice):
        numbers = not any(isinstance(value, bool | str) for value in dimension.values)
        return hparams.Discrete([float(value) for value in dimension.values] if numbers else dimension.values)
    return hparams.RealInterval(float(dimension.low), float(dimension.high))


def grid_of(images: np.ndarray) -> np.ndarray:
    """Images uint8 [rows, columns, S, S] side by side with white gaps, uint8 [H, W]."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, GAP), (0, GAP)), constant_values=255)
    rows, columns, height, width = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)[:-GAP, :-GAP]
