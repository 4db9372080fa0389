from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from phantom_hospitals import write_hospitals, write_run
from PIL import Image

from scarce.audit.subject import FrozenPipeline
from scarce.audit_run import Model, open_run
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.store import open_dataset
from scarce.errors import UserError
from scarce.fewshot.task import build_task
from scarce.publishing import apply
from scarce.publishing.apply import apply_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_run(path / "run", *write_hospitals(path))
    write_phantom(PhantomConfig("b", patients=15, size=32, seed=7), path / "new")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_run(folder / "run")


def read(path: Path) -> pd.DataFrame:
    with open(path, encoding="utf-8") as file:
        assert "Not for clinical use" in file.readline()
        return pd.read_csv(file)


def test_test_films_get_the_scores_that_the_run_was_tested_with(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The films are given again as files; a probe of a seed is the same whoever asks for it."""
    task = build_task(model.hospital, model.protocol, held_out="test", largest_size=32).with_largest_shots()
    assert isinstance(model.pipeline, FrozenPipeline)
    scores = model.pipeline(task)
    monkeypatch.setattr(apply, "stretch_range", lambda *_: (0.0, 255.0))  # the phantoms' films are stretched already
    monkeypatch.setattr(apply, "FILMS", 4)
    for row in task.evaluated[0]:
        (tmp_path / "films" / "below").mkdir(parents=True, exist_ok=True)
        Image.fromarray(task.images[row]).save(tmp_path / "films" / "below" / f"{row}.png")
    done = apply_model(model, tmp_path / "films", tmp_path / "scores.csv")
    assert done.scored == len(task.evaluated[0])
    table = read(tmp_path / "scores.csv").set_index(["image", "finding"])
    assert len(table) == done.scored * len(task.findings)
    for column, row in enumerate(task.evaluated[0]):
        found = table.loc[(f"below/{row}.png", task.findings[0])]
        values = scores.values[0][0, :, column]
        np.testing.assert_allclose(
            found[["score", "score_low", "score_high"]].astype(float),
            [values.mean(), values.min(), values.max()],
            rtol=1e-3,
            atol=1e-4,
        )


def test_films_that_cannot_be_read_are_listed_with_a_reason(folder: Path, model: Model, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for number, image in enumerate(open_dataset(folder / "new").pixels(np.arange(2))):
        Image.fromarray(image).save(films / f"good-{number}.png")
    (films / "empty.png").touch()
    (films / "cut.png").write_bytes((films / "good-0.png").read_bytes()[:100])
    done = apply_model(model, films, tmp_path / "scores.csv")
    assert (done.scored, done.unreadable) == (2, 2)
    table = read(tmp_path / "scores.csv")
    bad = table[table["unreadable"].notna()].set_index("image")["unreadable"]
    assert dict(bad) == {"empty.png": "empty", "cut.png": "truncated"}
    good = table[table["unreadable"].isna()]
    assert good["score"].between(good["score_low"], good["score_high"]).all()


def test_a_converted_dataset(folder: Path, model: Model, tmp_path: Path) -> None:
    done = apply_model(model, folder / "new", tmp_path / "scores.csv")
    known = open_dataset(folder / "new").metadata()["image_id"].tolist()
    table = read(tmp_path / "scores.csv")
    assert done.scored == len(known)
    assert list(dict.fromkeys(table["image"])) == known
    assert table[["score", "score_low", "score_high"]].notna().all(axis=None)


def test_what_cannot_be_scored_is_told_and_leaves_nothing(folder: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "bad.png").write_bytes(b"no image")
    for source, words in (
        (folder / "b", "probes learned from"),
        (tmp_path / "films", "none of the 1 films"),
        (tmp_path / "nowhere", "found none at"),
        (folder / "run" / "best", "no image in"),
    ):
        with pytest.raises(UserError, match=words):
            apply_model(model, source, tmp_path / "scores.csv")
    with pytest.raises(UserError, match="fine-tuned anew"):
        apply_model(replace(model, pipeline=lambda task: task.empty_scores()), folder / "new", tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["films"]
