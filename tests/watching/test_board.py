"""A trial's TensorBoard folder, read as TensorBoard reads it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.api_pb2 import Experiment
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from scarce.data.pixels import reduce_images
from scarce.space import Choice, Dimension, Float
from scarce.views import ViewConfig
from scarce.watching.board import GAP, BoardWriter, grid_of

SPACE: dict[str, Dimension] = {
    "views.noise": Float(0.0, 0.1),
    "optimiser.lr": Float(1e-3, 1.0, log=True),
    "method.dim": Choice((128, 256.0)),
    "probe.name": Choice(("logistic", "ridge")),
    "views.strong": Choice((False, True)),
}
SAMPLED = {"views.noise": 0.05, "optimiser.lr": 0.1, "method.dim": 256, "probe.name": "ridge", "views.strong": True}


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def hparams_of(events: EventAccumulator, tag: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board") / "trial"
    for auc in (0.4, 0.6):  # the second time as a process that goes on with the trial does
        with BoardWriter(folder, SAMPLED, ["val_auc"], SPACE) as writer:
            writer.add({"step": 10.0, "val_auc": auc, "loss": 3.0, "probe.name": "ridge"})
            writer.add({"step": 20.0, "val_auc": 0.7, "loss": 2.0, "probe.name": "ridge"})
    return folder


def test_reports_are_scalars_once(board: Path):
    events = read(board)
    assert [(event.step, event.value) for event in events.Scalars("val_auc")] == [
        (10, pytest.approx(0.6)),
        (20, pytest.approx(0.7)),
    ]
    assert "probe.name" not in events.Tags()["scalars"]


def test_hparams_have_the_sampled_values_and_where_they_were_searched(board: Path):
    events = read(board)
    start = hparams_of(events, "session_start_info").session_start_info.hparams
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.items()}
    assert values == SAMPLED
    experiment: Experiment = hparams_of(events, "experiment").experiment
    assert [metric.name.tag for metric in experiment.metric_infos] == ["val_auc"]
    domains = {}
    for info in experiment.hparam_infos:
        interval = info.domain_interval
        discrete = [getattr(value, value.WhichOneof("kind")) for value in info.domain_discrete.values]
        domains[info.name] = discrete or (interval.min_value, interval.max_value)
    assert domains == {
        "views.noise": (0.0, 0.1),
        "optimiser.lr": (1e-3, 1.0),
        "method.dim": [128.0, 256.0],
        "probe.name": ["logistic", "ridge"],
        "views.strong": [False, True],
    }


def test_a_grid_of_views_a_size_begins_with_the_images(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    with BoardWriter(tmp_path, {}, ["val_auc"], {}) as writer:
        writer.show_views(images, [(24, ViewConfig()), (24, ViewConfig()), (16, ViewConfig(flip=1.0))])
    events = read(tmp_path)
    assert set(events.Tags()["images"]) == {"views/24px", "views/16px"}
    large, small = (
        np.asarray(Image.open(io.BytesIO(events.Images(f"views/{size}px")[0].encoded_image_string)).convert("L"))
        for size in (24, 16)
    )
    assert large.shape == (3 * 24 + 2 * GAP, 3 * 24 + 2 * GAP)
    assert small.shape == (3 * 16 + 2 * GAP, 2 * 16 + GAP)
    place = slice(24 + GAP, 2 * 24 + GAP)
    assert (large[place, :24] == reduce_images(images, 24)[1]).all()
    assert (large[place, place] != large[place, 2 * (24 + GAP) :]).any()


def test_a_grid_has_white_gaps_between_its_images():
    grid = grid_of(np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1))
    assert grid.shape == (4, 7)
    assert grid[0].tolist() == [0, 255, 255, 1, 255, 255, 2]
    assert (grid[1:3] == 255).all()
