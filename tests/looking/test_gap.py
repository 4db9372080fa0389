import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from phantom_hospitals import write_films, write_hospitals

from scarce.data.store import Dataset, open_dataset
from scarce.errors import UserError
from scarce.looking.backbone import untrained
from scarce.looking.gap import MEASURES, number_text, table, write_gap
from scarce.looking.halves import Number
from scarce.looking.sample import draw_sample


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    return [open_dataset(folder) for folder in write_hospitals(tmp_path_factory.mktemp("hospitals"))]


def test_two_hospitals(datasets: list[Dataset], tmp_path: Path) -> None:
    a, b = (draw_sample(name, dataset, 50, 32) for name, dataset in zip("ab", datasets, strict=True))
    report = write_gap(tmp_path / "out", (a, b), untrained(32), "random weights", 100)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gap.json", "gap.png"]
    assert json.loads((tmp_path / "out" / "gap.json").read_text()) == json.loads(json.dumps(report))
    assert report["patients_a_half"] == 25
    assert set(report["measures"]) == set(MEASURES)
    for found in report["measures"].values():
        for number in (found["between"], *found["within"], found["excess"]):
            assert number["low"] <= number["value"] <= number["high"]
            assert math.isfinite(number["value"])
    assert report["measures"]["told_apart"]["shown"]
    assert "A classifier tells them apart" in report["sentence"]
    lines = table(report).splitlines()
    assert len(lines) == 1 + len(MEASURES)
    assert all("(" in line and "shown" in line for line in lines[1:])


def test_a_hospital_has_no_gap_to_itself(datasets: list[Dataset], tmp_path: Path) -> None:
    sample = draw_sample("a", datasets[0], 60, 32)
    even, odd = (type(sample)(name, sample.images[start::2]) for name, start in (("even", 0), ("odd", 1)))
    report = write_gap(tmp_path / "out", (even, odd), untrained(32), "random weights", 100)
    assert not any(found["shown"] for found in report["measures"].values())
    assert report["sentence"].startswith("No gap between even and odd is shown. No classifier")


def test_a_patient_gives_one_film(tmp_path: Path) -> None:
    names = pd.DataFrame({"image_id": [f"{n}" for n in range(60)], "patient_id": [f"p{n // 3}" for n in range(60)]})
    images = np.repeat(np.arange(60, dtype=np.uint8), 32 * 32).reshape(60, 32, 32)
    dataset = write_films(tmp_path / "films", "made-up", names.assign(labels=None), images)
    patients = [int(image[0, 0]) // 3 for image in draw_sample("x", dataset, 1000, 32).images]
    assert sorted(patients) == list(range(20))
    with pytest.raises(UserError, match="19 patients: expected at least 20"):
        draw_sample("x", write_films(tmp_path / "few", "few", names[:57].assign(labels=None), images[:57]), 1000, 32)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(6.123, 4.81, 7.5), "6.1 (4.8 to 7.5)"),
        (Number(0.99441, 0.9914, 0.9972), "0.9944 (0.9914 to 0.9972)"),
        (Number(-0.001, -0.01, 0.018), "-0.001 (-0.010 to 0.018)"),
        (Number(120, 50, 210), "120 (50 to 210)"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_bears(number: Number, text: str) -> None:
    assert number_text(number) == text
