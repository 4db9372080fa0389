from pathlib import Path

import numpy as np
import pytest
from hospital_folders import nih_row, png, write_csv
from PIL import Image

from scarce.data import folder, nih
from scarce.data.convert import convert
from scarce.data.describe import describe, pixel_histogram
from scarce.data.store import open_dataset


@pytest.mark.usefixtures("ray_cluster")
def test_counts_and_pixel_statistics(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png", "00000004_000.png"]
    for seed, name in enumerate(names):
        (source / "images" / name).write_bytes(png(seed) if seed < 4 else b"")
    write_csv(
        source / "Data_Entry_2017.csv",
        [
            nih_row(names[0], **{"Patient Age": 17}),
            nih_row(names[1], **{"Patient Age": 18, "View Position": "AP"}),
            nih_row(names[2], **{"Patient Age": 500, "Finding Labels": "Mass", "Patient Gender": ""}),
            nih_row(names[4]),
        ],
    )
    convert(nih.scan(source), tmp_path / "out", size=40)
    dataset = open_dataset(tmp_path / "out")
    text = describe(dataset)
    sections = {section.splitlines()[0]: section.splitlines()[1:] for section in text.split("\n\n")}

    def counts(title: str) -> dict[str, str]:
        return dict(line.split() for line in sections[title])

    assert "nih: 4 images of 3 patients, 40 x 40 pixels" in sections
    assert counts("images") == {"labelled": "3", "unlabelled": "1", "rejected": "1"}
    assert counts("rejected") == {"empty": "1"}
    assert counts("finding") == {"Mass": "3", "Nodule": "2"}
    assert counts("view") == {"AP": "1", "PA": "2", "unknown": "1"}
    assert counts("sex") == {"M": "2", "unknown": "2"}
    assert counts("age") == {"0-17": "1", "18-39": "1", "unknown": "2"}
    assert counts("raw width (pixels)") == {"least": "40", "median": "40", "most": "40"}
    assert "JPEG quality" not in sections
    assert counts("images a patient") == {"median": "1.0", "mean": "1.33", "most": "2"}
    for lines in sections.values():
        assert len({len(line) for line in lines[1:]}) <= 1  # numbers end in one column

    pixels = dataset.pixels()
    np.testing.assert_array_equal(pixel_histogram(dataset), np.bincount(pixels.ravel(), minlength=256))
    statistics = counts("pixels (0 to 255)")
    assert float(statistics["mean"]) == pytest.approx(pixels.mean(), abs=0.06)
    assert float(statistics["std"]) == pytest.approx(pixels.std(), abs=0.06)
    assert float(statistics["50%"]) == pytest.approx(np.median(pixels), abs=1)


@pytest.mark.usefixtures("ray_cluster")
def test_raw_sizes_and_jpeg_quality(tmp_path: Path) -> None:
    source = tmp_path / "source"
    rows = []
    for number, (width, height, quality) in enumerate([(900, 50, 70), (100, 60, None), (200, 70, 90), (300, 80, 94)]):
        levels = np.random.default_rng(number).integers(0, 256, (height, width), dtype=np.uint8)
        rows.append({"image": f"{number}.{'jpg' if quality else 'png'}", "patient": number})
        source.mkdir(exist_ok=True)
        Image.fromarray(levels).save(source / str(rows[-1]["image"]), **({"quality": quality} if quality else {}))
    write_csv(source / "labels.csv", rows)
    convert(folder.scan(source), tmp_path / "out", size=16)
    dataset = open_dataset(tmp_path / "out")
    columns = dataset.metadata()
    assert columns["raw_width"].tolist() == [900, 100, 200, 300]
    assert columns["raw_height"].tolist() == [50, 60, 70, 80]
    np.testing.assert_array_equal(columns["jpeg_quality"], np.float32([70, np.nan, 90, 94]))
    assert dataset.lungs() is None
    sections = describe(dataset).split("\n\n")
    assert "raw width (pixels)\n  least   100\n  median  250\n  most    900" in sections
    assert "raw height (pixels)\n  least   50\n  median  65\n  most    80" in sections
    assert "JPEG quality\n  least   70\n  median  90\n  most    94" in sections
