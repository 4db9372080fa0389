import numpy as np
import pytest

from scarce.looking.augmentations import EXTREMES, one_by_one, together, weak_to_strong
from scarce.looking.sheet import Row
from scarce.views import SEARCH_SPACE, resize


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A smooth picture with a bright left side, so that every augmentation shows."""
    rows, columns = np.mgrid[0:48, 0:48] / 48
    picture: np.ndarray = (60 + 80 * (columns < 0.4) + 60 * np.sin(9 * rows) ** 2).astype(np.uint8)
    return picture


@pytest.fixture(scope="module")
def rows(image: np.ndarray) -> list[Row]:
    return one_by_one(image, 32, seed=0)


def test_every_field_of_the_search_space_is_shown_over_its_whole_range(rows: list[Row]) -> None:
    assert {row.name for row in rows} == set(SEARCH_SPACE)
    for field, dimension in SEARCH_SPACE.items():
        ends = set(dimension.values) if hasattr(dimension, "values") else {dimension.low, dimension.high}
        values = weak_to_strong(field)
        assert ends == {values[0], values[-1]}


def test_a_row_goes_from_the_film_farther_and_farther_away(image: np.ndarray, rows: list[Row]) -> None:
    import torch

    film = resize(torch.from_numpy(image[None]), 32)[0].round().numpy()
    for extreme, row in zip(EXTREMES, rows, strict=True):
        away = [float(np.abs(view - film).mean()) for view in row.images.astype(float)]
        if extreme.field != "crop_min":  # whose weak end is no whole film
            assert away[0] < 1, extreme.field
        assert away[-1] > away[0], (extreme.field, away)


def test_brightness_has_its_two_ways(rows: list[Row]) -> None:
    means = {(row.name, row.note): row.images[-1].mean() for row in rows}
    assert means["brightness", "the darkest"] < means["brightness", "the brightest"]
    assert means["gamma", "the darkest"] < means["gamma", "the brightest"]


def test_corners_are_farther_from_the_film_than_the_default(image: np.ndarray) -> None:
    rows = {row.name: row.images.astype(float) for row in together(image, 32, seed=0)}
    film = rows["the film"][0]
    away = {name: float(np.abs(views - film).mean()) for name, views in rows.items()}
    assert away["weak"] < away["default"] < away["strong"]
    assert away["weak"] < min(away["strong looks"], away["strong geometry"])
