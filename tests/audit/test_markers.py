import numpy as np
import pytest

from scarce.audit.markers import cut_markers, paste
from scarce.audit.regions import corners
from scarce.data.phantom import Confounding, Film, PhantomConfig, draw, plan_films


def drawn(hospital: str, size: int, count: int = 200) -> tuple[list[Film], np.ndarray]:
    """Films of which half have a sticker, and most a letter."""
    config = PhantomConfig(
        hospital, count, size, images_a_patient=(1.0,), confounding=Confounding("pulmonary mass", "marker", 0.0)
    )
    films = list(plan_films(config))
    return films, draw(films, config).images


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("hospital", ["a", "b"])
def test_most_films_with_a_marker_have_theirs_found_and_most_without_have_none(hospital, size):
    films, images = drawn(hospital, size)
    found = np.array([len(cut_markers(image[None])) for image in images])
    marked = np.array([film.look["marker"] > 0 for film in films])
    nothing = ~marked & np.array([film.look["sticker"] == 0 for film in films])
    assert found[marked].mean() > 0.6
    assert nothing.sum() >= 10
    assert found[nothing].mean() < 0.25


def test_a_marker_is_cut_out_as_bright_as_it_was_and_from_the_corner_only():
    _, images = drawn("b", 64, 50)
    for image in images:
        for marker in cut_markers(image[None]):
            there = marker > 0
            assert there.any()
            assert not (there & ~corners(64)).any()
            assert np.array_equal(marker[there], image[there])


@pytest.mark.parametrize("gray", [0, 128, 255])
def test_a_blank_film_has_none(gray):
    assert cut_markers(np.full((2, 64, 64), gray, np.uint8)) == []


def test_what_goes_on_beyond_the_corner_is_no_marker():
    """A bright line along an edge is the film's or a collimator's."""
    film = np.full((64, 64), 30, np.uint8)
    film[:, 1:3] = 250
    assert cut_markers(film[None]) == []
    film[:, 1:3] = 30
    film[3:9, 2:4] = 250
    assert len(cut_markers(film[None])) == 1


def test_a_pasted_marker_only_brightens_and_only_where_it_lies():
    rng = np.random.default_rng(0)
    _, images = drawn("a", 64, 30)
    markers = cut_markers(drawn("b", 64, 20)[1])
    films = (images // 2 + rng.integers(0, 5, images.shape)).astype(np.uint8)
    before = films.copy()
    pasted = paste(films, markers)
    assert np.array_equal(films, before)
    assert (pasted.shape, pasted.dtype) == (films.shape, np.uint8)
    assert (pasted >= films).all()
    for number, (film, with_marker) in enumerate(zip(films, pasted, strict=True)):
        marker = markers[number % len(markers)]
        assert np.array_equal(film[marker == 0], with_marker[marker == 0])
        assert (with_marker[marker > 0] >= marker[marker > 0]).all()
        assert (with_marker != film).any()
