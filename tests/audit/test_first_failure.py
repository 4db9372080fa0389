"""The forest on pixels: the balanced set and its split, what is reported, and the real X-rays."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospital_folders import convert_here, shared_data
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from scarce.audit.first_failure import (
    BalancedSplit,
    brightness_correct,
    classes,
    draw_balanced,
    first_failure,
    first_failure_markdown,
    forest_correct,
    write_first_failure,
)
from scarce.data.nih import scan
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.data.store import Dataset, open_dataset
from scarce.errors import UserError
from scarce.first_failure_config import FirstFailureConfig

SCRIPT = Path(__file__).parents[2] / "sweeps" / "first_failure.py"
FINDING = "bronchiectasis"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("phantom") / "b"
    write_phantom(PhantomConfig("b", patients=200, size=16, prevalence=0.15), path)
    return open_dataset(path)


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The real sample, converted in this process."""
    return convert_here(scan(shared_data("nih-sample")), tmp_path_factory.mktemp("nih"))


def table(rows: list[tuple[str, list[str] | None]]) -> pd.DataFrame:
    metadata = pd.DataFrame({"patient_id": [patient for patient, _ in rows]})
    metadata["labels"] = pd.Series([labels for _, labels in rows], dtype=object)
    return metadata


def many(with_it: int, without: int, images: int = 3) -> pd.DataFrame:
    """Patients with Mass and patients without, each with so many images."""
    labels = [["Mass"]] * with_it + [["No Finding"]] * without
    return table([(f"{number:04d}", found) for number, found in enumerate(labels) for _ in range(images)])


class TestClasses:
    METADATA = table(
        [
            ("1", ["Mass"]),
            ("1", ["No Finding"]),
            ("2", ["Hernia"]),
            ("3", ["No Finding"]),
            ("4", []),
            ("5", None),
            ("6", ["Exclude"]),
            ("7", ["normal", "unchanged"]),
        ]
    )

    def test_images_of_patients_who_have_it_elsewhere_are_in_neither_class(self) -> None:
        positive, negative = classes(self.METADATA, "Mass")
        assert np.flatnonzero(positive).tolist() == [0]
        assert np.flatnonzero(negative).tolist() == [2, 3, 4, 6, 7]

    def test_any_finding_is_told_from_images_that_are_said_to_show_none(self) -> None:
        positive, negative = classes(self.METADATA, "")
        assert np.flatnonzero(positive).tolist() == [0, 2]
        assert np.flatnonzero(negative).tolist() == [1, 3, 4]

    @pytest.mark.parametrize("finding", ["Nodule", "No Finding"])
    def test_a_finding_that_no_image_shows(self, finding: str) -> None:
        with pytest.raises(UserError, match=rf"'{finding}': expected --finding among Hernia, Mass"):
            classes(self.METADATA, finding)


class TestSplit:
    @pytest.mark.parametrize(("images", "held_out"), [(100, 0.2), (60, 0.5), (40, 0.1)])
    @pytest.mark.parametrize("finding", ["", FINDING])
    def test_it_is_balanced_and_no_patient_is_in_both_parts(
        self, phantom: Dataset, images: int, held_out: float, finding: str
    ) -> None:
        metadata = phantom.metadata()
        patients = metadata["patient_id"].to_numpy()
        both = classes(metadata, finding)
        for seed in range(10):
            config = FirstFailureConfig(finding=finding, images=images, held_out=held_out, seed=seed)
            split = draw_balanced(metadata, config)
            assert len(split.held_out) == round(held_out * images)
            assert len(np.unique([*split.train, *split.held_out])) == images
            for part in (split.train, split.held_out):
                assert both[0][part].sum() == both[1][part].sum() == len(part) / 2
            assert len(np.unique(patients[split.held_out])) == len(split.held_out)
            assert not set(patients[split.train]) & set(patients[split.held_out])

    def test_other_seeds_are_other_splits_and_patients_are_equally_likely(self) -> None:
        metadata = many(10, 10)
        config = FirstFailureConfig(finding="Mass", images=20, held_out=0.2)
        drawn = [draw_balanced(metadata, replace(config, seed=seed)) for seed in range(500)]
        times = np.bincount(np.concatenate([split.held_out for split in drawn]) // 3, minlength=20)
        assert times.sum() == 500 * 4
        assert times.min() > 60  # 100 expected, s.d. 9
        assert times.max() < 140

    def test_patients_with_so_many_images_that_too_few_would_be_left_stay_in(self) -> None:
        """One patient of either class has 20 images, 3 others one: all of the 20 are needed to learn from."""
        labels = [["Mass"]] * 23 + [["No Finding"]] * 23
        owners = [*["a"] * 20, "b", "c", "d", *["A"] * 20, "B", "C", "D"]
        metadata = table(list(zip(owners, labels, strict=True)))
        orders = []
        for seed in range(20):
            split = draw_balanced(metadata, FirstFailureConfig(images=40, held_out=0.1, seed=seed))
            assert set(metadata["patient_id"][split.held_out]) <= set("bcdBCD")
            orders.append(split.order)
        assert min(orders) == 1
        assert max(orders) > 1

    def test_the_error_says_what_there_is_and_what_would_do(self) -> None:
        metadata = many(12, 30)
        config = FirstFailureConfig(finding="Mass", images=100)
        with pytest.raises(UserError, match="36 images of 12 patients with Mass and 90 images of 30 patients") as error:
            draw_balanced(metadata, config)
        # h of 12 patients are held out, the others' 3 (12 - h) images must be at least 4 h: 5 of either class.
        assert str(error.value).endswith("expected --images 50 or fewer")
        assert len(draw_balanced(metadata, replace(config, images=50)).held_out) == 10
        with pytest.raises(UserError, match="expected --images 50 or fewer"):
            draw_balanced(metadata, replace(config, images=60))
        with pytest.raises(UserError, match="expected a larger dataset or another --finding"):
            draw_balanced(many(1, 30), config)
        with pytest.raises(UserError, match="0 images of 0 patients with any finding"):
            draw_balanced(table([("1", None), ("2", None)]), FirstFailureConfig())

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"images": 2}, "--images"),
            ({"images": 601}, "--images"),
            ({"held_out": 0.0}, "--held-out must lie"),
            ({"held_out": 1.0}, "--held-out must lie"),
            ({"images": 602}, "expected an even number"),
            ({"images": 10, "held_out": 0.3}, "expected an even number"),
        ],
    )
    def test_settings_that_give_no_balanced_split(self, settings: dict, message: str) -> None:
        with pytest.raises(UserError, match=message):
            FirstFailureConfig(**settings)


class TestClassifiers:
    RNG = np.random.default_rng(0)
    POSITIVE = np.arange(200) % 2 == 0
    SPLIT = BalancedSplit(np.arange(120), np.arange(120, 200), POSITIVE, 1)

    def test_brightness_alone_sees_brightness_and_nothing_else(self) -> None:
        pattern = self.RNG.normal(100, 1, (200, 16))
        pattern[:, :8] += 50 * self.POSITIVE[:, None]
        pattern[:, 8:] -= 50 * self.POSITIVE[:, None]
        assert 0.3 < brightness_correct(pattern, self.SPLIT).mean() < 0.7
        assert forest_correct(pattern, self.SPLIT, 0).all()
        brighter = self.RNG.normal(100, 20, (200, 16)) + 5 * self.POSITIVE[:, None]
        correct = brightness_correct(brighter, self.SPLIT)
        mean = brighter.mean(axis=1, keepdims=True)
        unpenalised = LogisticRegression(C=1e6).fit(mean[:120], self.POSITIVE[:120])
        expected = unpenalised.predict(mean[120:]) == self.POSITIVE[120:]
        assert 0.6 < correct.mean() < 0.9
        assert (correct != expected).mean() < 0.03

    def test_pixels_that_mean_nothing_are_chance(self) -> None:
        """10 forests on noise: 800 held-out images, of which 343 to 457 are right in 99.99% of cases."""
        right = 0
        for seed in range(10):
            noise = np.random.default_rng(seed).random((200, 16))
            right += forest_correct(noise, self.SPLIT, seed).sum()
        assert 343 <= right <= 457


class Overexposed(Dataset):
    """A hospital that exposes the films with the finding twice as long."""

    def pixels(self, rows: np.ndarray | None = None) -> np.ndarray:
        shows, _ = classes(self.metadata(), FINDING)
        brighter = shows if rows is None else shows[rows]
        return (super().pixels(rows) // 2 * (1 + brighter[:, None, None])).astype(np.uint8)


class TestResult:
    CONFIG = FirstFailureConfig(finding=FINDING, images=40)

    def test_a_seed_repeats_it_to_the_bit(self, phantom: Dataset) -> None:
        first = first_failure(phantom, self.CONFIG)
        assert first_failure(phantom, self.CONFIG) == first
        assert first_failure(phantom, replace(self.CONFIG, seed=1)) != first

    def test_brightness_that_gives_the_finding_away_is_found_out(self, phantom: Dataset) -> None:
        summary = first_failure(Overexposed(phantom.path, phantom.manifest), self.CONFIG)
        assert summary["random_forest"]["correct"] == summary["brightness_alone"]["correct"] == 8
        assert summary["brightness_alone"]["distinguishable"]
        assert "is not distinguishable from brightness alone" in summary["difference"]["verdict"]

    def test_the_script_writes_its_folder_once(
        self, phantom: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = ["--target", str(phantom.path), "--finding", FINDING, "--images", "40", "--out", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", ["first_failure.py", *flags])
        main = runpy.run_path(str(SCRIPT))["main"]
        main()
        run = tmp_path / "runs" / "first_failure-b"
        assert [path.name for path in run.parent.iterdir()] == [run.name]
        assert {path.name for path in run.iterdir()} == {"config.json", "summary.json", "summary.md"}
        summary = json.loads((run / "summary.json").read_text())
        assert summary == first_failure(phantom, self.CONFIG)
        assert json.loads((run / "config.json").read_text())["config"]["images"] == 40
        text = (run / "summary.md").read_text()
        assert text in capsys.readouterr().out
        for part in ("random_forest", "brightness_alone", "difference"):
            assert summary[part]["verdict"] in text
        with pytest.raises(UserError, match="holds a run already"):
            main()

    def test_a_write_that_fails_leaves_nothing(self, phantom: Dataset, tmp_path: Path) -> None:
        config = replace(self.CONFIG, out=str(tmp_path))
        summary = first_failure(phantom, config)
        with pytest.raises(ValueError, match="JSON"):
            write_first_failure({**summary, "odd": float("nan")}, phantom, config)
        assert not list(tmp_path.iterdir())
        write_first_failure(summary, phantom, config)
        assert config.folder().is_dir()


def test_the_real_x_rays(nih: Dataset) -> None:
    summary = first_failure(nih, FirstFailureConfig())
    assert summary["train"]["images"] == 480
    assert summary["held_out"] == {"images": 120, "patients": 120}
    for name in ("random_forest", "brightness_alone"):
        judged = summary[name]
        p_value = binomtest(judged["correct"], 120).pvalue
        assert judged["p_value"] == pytest.approx(p_value)
        better = p_value < 0.05 and judged["correct"] > 60
        assert ("better than chance" in judged["verdict"]) == better
        assert ("not distinguishable from chance" in judged["verdict"]) == (p_value >= 0.05)
        more = binomtest(round(judged["accuracy"] * 600), 600).pvalue
        assert judged["with_more_images"]["p_value"] == pytest.approx(more)
        if judged["accuracy"] > 0.5:
            assert f"needs {judged['images_for_power']:,} held-out images" in judged["verdict"]
        assert judged["verdict"] in first_failure_markdown(summary)
    difference = summary["difference"]
    assert difference["both"] + difference["only_first"] == summary["random_forest"]["correct"]
    assert difference["both"] + difference["only_second"] == summary["brightness_alone"]["correct"]
    with pytest.raises(UserError, match=r"170 images of 52 patients with Effusion and 488 images of 212 patients"):
        first_failure(nih, FirstFailureConfig(finding="Effusion"))
