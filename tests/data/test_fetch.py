"""Fetching, with Kaggle's server replaced at the edge: kagglehub's `dataset_download` is a stub here.

What kagglehub does behind that edge (resuming, checking the archive, unpacking it) is its own and not tested.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import kagglehub
import pytest
import requests
from hospital_folders import nih_row, write_csv
from kagglehub.exceptions import KaggleApiHTTPError, UnauthenticatedError

from scarce.commands.fetch import FetchNih, FetchPadChest
from scarce.data import fetch
from scarce.data.nih import scan
from scarce.errors import UserError

FEW = 6


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "NIH_IMAGES", FEW)
    monkeypatch.setattr(fetch, "NIH_FREE_GB", 0)
    monkeypatch.setenv("KAGGLEHUB_CACHE", "elsewhere")


def unpacked(images: int = FEW, rows: int = FEW) -> str:
    """What kagglehub leaves where KAGGLEHUB_CACHE points to."""
    folder = Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets" / "nih-chest-xrays" / "data" / "versions" / "3"
    names = [f"{number:08d}_000.png" for number in range(1, max(images, rows) + 1)]
    for number, name in enumerate(names[:images]):
        place = folder / f"images_{number % 2 + 1:03d}" / "images"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"png")
    write_csv(folder / "Data_Entry_2017.csv", [nih_row(name) for name in names[:rows]])
    return str(folder)


def test_a_whole_download_can_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: (asked.append(handle), unpacked())[1])
    FetchNih(tmp_path / "out", yes=True).run()
    assert asked == ["nih-chest-xrays/data"]
    last = capsys.readouterr().out.splitlines()[-1]
    source = Path(last.split()[4])
    assert last.startswith("scarce convert nih --source ")
    assert source.is_relative_to(tmp_path / "out")
    assert scan(source).images.num_rows == FEW


@pytest.mark.parametrize(
    ("images", "rows", "words"),
    [(FEW - 1, FEW, "expected 6 films, found 5"), (FEW, FEW - 1, "expected 6 rows in the label table, found 5")],
)
def test_what_is_missing_is_told(
    images: int, rows: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", lambda _: unpacked(images, rows))
    with pytest.raises(UserError, match=words):
        FetchNih(tmp_path / "out", yes=True).run()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnauthenticatedError(), "kaggle.json"),
        (KaggleApiHTTPError("403 Client Error.", response=requests.Response()), "403 Client Error.*kaggle.json"),
        (requests.ConnectionError("no route"), "no route.*same command again"),
    ],
)
def test_a_refusal_and_a_lost_network_are_told(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> str:
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(UserError, match=words):
        FetchNih(tmp_path / "out", yes=True).run()


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("YES", True), ("", False), ("n", False)])
def test_it_asks_first(answer: str, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), answer)[1])
    monkeypatch.setattr(kagglehub, "dataset_download", lambda _: unpacked())
    if goes_on:
        FetchNih(tmp_path / "out").run()
    else:
        with pytest.raises(UserError, match="nothing was downloaded"):
            FetchNih(tmp_path / "out").run()
        assert not (tmp_path / "out").exists()
    assert len(asked) == 1


def test_without_anybody_to_ask_it_needs_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    monkeypatch.setattr(kagglehub, "dataset_download", lambda _: pytest.fail("downloaded"))
    with pytest.raises(UserError, match="--yes"):
        FetchNih(tmp_path / "out").run()


def test_a_full_disk_is_told_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "NIH_FREE_GB", 1e9)
    monkeypatch.setattr(kagglehub, "dataset_download", lambda _: pytest.fail("downloaded"))
    with pytest.raises(UserError, match="GB of free disk"):
        FetchNih(tmp_path / "out", yes=True).run()


def test_a_part_that_is_there_needs_no_room(tmp_path: Path) -> None:
    free = fetch.shutil.disk_usage(tmp_path).free / 1e9
    with pytest.raises(UserError, match="GB of free disk"):
        fetch.check_disk(tmp_path, free + 1)
    with open(tmp_path / "3.archive", "wb") as file:
        file.truncate(2 * 10**9)  # a hole, which takes no disk
    fetch.check_disk(tmp_path, free + 1)


def test_kagglehub_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match=r"pip install 'scarce\[fetch\]'"):
        FetchNih(tmp_path / "out", yes=True).run()


def test_padchests_steps_end_with_the_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    FetchPadChest().run()
    assert "scarce convert padchest --source" in capsys.readouterr().out
