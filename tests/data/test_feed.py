"""A dataset in the object store and one in a mapped file: the same images under the same numbers."""

import pickle
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from phantom_hospitals import write_films

from scarce.data import feed as module
from scarce.data.feed import Feed, load_feed
from scarce.data.mapped import MappedFile
from scarce.data.store import Dataset
from scarce.errors import UserError

SIZE, IMAGES = 24, 700
HELD_OUT = tuple(f"p{n}" for n in (*range(30), 44, 69))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three shards, ten images a patient; nobody of the first shard is left without `HELD_OUT`."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE), dtype=np.uint8)
    table = pd.DataFrame({"image_id": [f"{n:05d}" for n in range(IMAGES)]})
    table["patient_id"] = [f"p{n // 10}" for n in range(IMAGES)]
    return write_films(tmp_path_factory.mktemp("feed"), "here", table, pixels, shards=3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCARCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@ray.remote(num_cpus=0)
def gather_elsewhere(feed: Feed, index: np.ndarray) -> np.ndarray:
    return feed.open().gather(index)


@pytest.mark.parametrize("largest_size", [SIZE, 11])
def test_both_hold_the_same_images(ray_cluster: str, dataset: Dataset, largest_size: int) -> None:
    arguments = {"without_patients": HELD_OUT, "largest_size": largest_size}
    stored = load_feed(dataset, **arguments)
    mapped = load_feed(dataset, **arguments, store_bytes=0)
    assert not isinstance(stored.source, MappedFile)
    assert isinstance(mapped.source, MappedFile)
    kept = np.array([n for n in range(IMAGES) if f"p{n // 10}" not in HELD_OUT])
    index = np.random.default_rng(1).permutation(len(kept))
    for feed in (stored, mapped):
        assert (feed.images, feed.size) == (len(kept), largest_size)
        assert len(feed.open()) == len(kept)
        assert len(pickle.dumps(feed)) < 10_000
    got = stored.open().gather(index)
    np.testing.assert_array_equal(mapped.open().gather(index), got)
    np.testing.assert_array_equal(ray.get(gather_elsewhere.remote(mapped, index)), got)
    if largest_size == SIZE:
        np.testing.assert_array_equal(got, dataset.pixels(kept[index]))


def test_it_switches_at_the_byte(
    ray_cluster: str, dataset: Dataset, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    needed = 690 * 10 * 10
    feed = load_feed(dataset, without_patients=["p3"], largest_size=10, store_bytes=needed)
    assert not isinstance(feed.source, MappedFile)
    assert capsys.readouterr().out == ""
    feed = load_feed(dataset, without_patients=["p3"], largest_size=10, store_bytes=needed - 1)
    assert isinstance(feed.source, MappedFile)
    [line] = capsys.readouterr().out.splitlines()
    assert str(cache) in line
    assert feed.source.path.exists()  # before any trial opens it


def test_what_is_in_the_store_leaves_less_room(
    ray_cluster: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_SHARE", 0.5)
    assert not isinstance(load_feed(dataset, largest_size=SIZE).source, MappedFile)
    free = ray.available_resources()["object_store_memory"]
    held = ray.put(np.zeros(270_000_000, np.uint8))  # of 500
    for _ in range(100):  # nodes say every now and then what they have left
        if ray.available_resources().get("object_store_memory", 0) < free - 200e6:
            break
        time.sleep(0.1)
    assert isinstance(load_feed(dataset, largest_size=SIZE).source, MappedFile)
    del held


def test_a_mistake_found_on_a_node_is_one_line(ray_cluster: str, dataset: Dataset, cache: Path) -> None:
    cache.write_text("no folder")
    with pytest.raises(UserError) as caught:
        load_feed(dataset, largest_size=SIZE, store_bytes=0)
    assert type(caught.value) is UserError
    assert "SCARCE_CACHE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_left(ray_cluster: str, dataset: Dataset) -> None:
    with pytest.raises(UserError, match="held out"):
        load_feed(dataset, without_patients=[f"p{n}" for n in range(70)], largest_size=SIZE)
