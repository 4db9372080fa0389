from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from phantom_hospitals import write_films

from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.looking.by_finding import finding_rows
from scarce.looking.sheet import Row, sheet_figure, write_sheet


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten films of five patients; every film's grey level is ten times its row."""
    labels = [["mass"], ["mass"], ["mass", "nodule"], [], [], None, ["nodule"], ["mass"], ["mass"], []]
    table = pd.DataFrame(
        {
            "image_id": [f"image-{row}" for row in range(10)],
            "patient_id": [f"secret-{row // 2}" for row in range(10)],
            "view": ["PA", "AP"] * 4 + [None, None],
            "labels": pd.Series(labels, dtype=object),
        }
    )
    images = np.repeat(np.arange(10, dtype=np.uint8) * 10, 32 * 32).reshape(10, 32, 32)
    return write_films(tmp_path_factory.mktemp("films"), "made-up", table, images)


def test_a_row_shows_films_of_its_finding_each_of_another_patient(dataset: Dataset) -> None:
    rows = {row.name: row for row in finding_rows(dataset, (), 5, seed=0)}
    assert list(rows) == ["mass", "nodule", "nothing found", "not labelled"]
    shown = [int(image[0, 0]) // 10 for image in rows["mass"].images]
    assert {row // 2 for row in shown} == {0, 1, 3, 4}
    assert len(shown) == 4
    assert set(shown) <= {0, 1, 2, 7, 8}
    assert rows["mass"].note == "5 films of 4 patients"
    assert rows["not labelled"].note == "1 film of 1 patient"
    for row, caption in zip(shown, rows["mass"].captions, strict=True):
        assert caption == f"#{row}" + ("" if row >= 8 else (" PA", " AP")[row % 2])


def test_a_seed_repeats_a_choice_and_findings_do_not_disturb_each_other(dataset: Dataset) -> None:
    def chosen(findings: tuple[str, ...], seed: int) -> list[str]:
        return list(finding_rows(dataset, findings, 2, seed)[-1].captions)

    assert chosen(("mass",), 1) == chosen(("nodule", "mass"), 1)
    assert len({tuple(chosen(("mass",), seed)) for seed in range(8)}) > 1


def test_nothing_on_a_sheet_names_a_patient(dataset: Dataset) -> None:
    for row in finding_rows(dataset, (), 5, seed=0):
        assert "secret" not in "".join([row.name, row.note, *row.captions])
        assert "image-" not in "".join([row.name, row.note, *row.captions])


def test_an_unknown_finding_is_told(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"'scurvy'.*mass, nodule, nothing found, not labelled"):
        finding_rows(dataset, ("scurvy",), 5, seed=0)


def test_a_sheet_has_a_panel_an_image_of_one_scale(tmp_path: Path) -> None:
    rows = [
        Row("one", "note", np.full((2, 8, 8), 30, np.uint8), ["a", "b"]),
        Row("two", "", np.zeros((1, 8, 8), np.uint8), ["c"]),
    ]
    figure = sheet_figure("title", rows)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c"]
    assert {axes.images[0].get_clim() for axes in shown} == {(0, 255)}
    write_sheet(tmp_path / "sheet.png", "title", rows)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
