import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from scarce.looking.distances import (
    frechet,
    histograms,
    kernel_distance,
    log_spectral,
    spectra,
    told_apart,
    wasserstein,
)
from scarce.looking.halves import Distance, compare_halves, draw_halves

A, B = np.arange(40), np.arange(40, 80)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Noise; the second forty are brighter by 20 levels and of half the power."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(100, 20, (40, 32, 32)), rng.normal(120, 20 / np.sqrt(2), (40, 32, 32))
    return np.concatenate([first, second]).clip(0, 255).round().astype(np.uint8)


def test_intensity_is_scipys_distance_of_the_pooled_pixels(images: np.ndarray) -> None:
    expected = wasserstein_distance(images[A].ravel(), images[B].ravel())
    assert wasserstein(histograms(images))(A, B) == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(20, abs=2)


def test_half_the_power_is_three_decibels(images: np.ndarray) -> None:
    assert log_spectral(spectra(images))(A, B) == pytest.approx(10 * np.log10(2), abs=0.25)


def test_a_wave_lies_at_its_frequency() -> None:
    wave = 128 + 100 * np.sin(2 * np.pi * 8 * np.arange(64) / 64)
    power = spectra(np.tile(wave, (1, 64, 1)).astype(np.uint8))[0]
    assert power.argmax() + 1 == 8


def test_a_brighter_or_constant_film_has_no_other_spectrum() -> None:
    picture = np.random.default_rng(1).integers(50, 150, (1, 32, 32), dtype=np.uint8)
    assert spectra(picture + 40) == pytest.approx(spectra(picture))
    constant = np.full((2, 32, 32), 7, np.uint8)
    assert log_spectral(spectra(constant))(np.array([0]), np.array([1])) == 0


def test_frechet_of_gaussians_is_the_formula() -> None:
    """In one dimension it is (μ₁ − μ₂)² + (σ₁ − σ₂)²; the same feature twice counts as one."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(0, 1, 40), rng.normal(3, 2, 40)]).astype(np.float32)
    gap = (x[A].mean() - x[B].mean()) ** 2 + (x[A].std(ddof=1) - x[B].std(ddof=1)) ** 2
    assert frechet(np.stack([x, x], axis=1))(A, B) == pytest.approx(np.sqrt(gap) / x.std(), rel=1e-4)


def test_mmd_is_the_sum_over_pairs() -> None:
    x = np.random.default_rng(3).normal(size=(80, 4)).astype(np.float32)
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def kernel(i: int, j: int) -> float:
        return float((z[i] @ z[j] / 4 + 1) ** 3)

    within = [np.mean([kernel(i, j) for i in rows for j in rows if i != j]) for rows in (A, B)]
    between = np.mean([kernel(i, j) for i in A for j in B])
    assert kernel_distance(x)(A, B) == pytest.approx(sum(within) - 2 * between, rel=1e-4)


def shifted(by: float, seed: int = 4) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(140, 8)).astype(np.float32)
    x[80:] += by
    return x


@pytest.mark.parametrize("make", [frechet, kernel_distance])
def test_a_gap_is_shown_where_there_is_one_and_not_where_there_is_none(make: type[Distance]) -> None:
    halves = draw_halves((80, 60), 100)
    assert compare_halves(make(shifted(1.5)), halves).shown  # type: ignore[call-arg]
    alarms = [compare_halves(make(shifted(0, seed)), halves).shown for seed in range(8)]  # type: ignore[call-arg]
    assert sum(alarms) <= 1


def test_a_classifier_tells_what_can_be_told() -> None:
    halves = draw_halves((80, 60), 10)
    between, *within = told_apart(shifted(1.5), halves)
    assert between.mean() > 0.95
    assert np.abs(np.mean(within) - 0.5) < 0.05
    assert np.abs(told_apart(shifted(0), halves)[0].mean() - 0.5) < 0.15


def test_halves_are_disjoint_equal_and_of_their_hospital() -> None:
    for draw in draw_halves((31, 12), 50):
        rows = [*draw.a, *draw.b]
        assert [len(part) for part in rows] == [6] * 4
        assert len(np.unique(np.concatenate(rows))) == 24
        assert max(map(max, draw.a)) < 31 <= min(map(min, draw.b))
    assert (draw_halves((31, 12), 3)[2].a[0] == draw_halves((31, 12), 5)[2].a[0]).all()
