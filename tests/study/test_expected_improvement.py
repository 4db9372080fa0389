"""The expected improvement against what then comes of it, on functions that are known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import yeojohnson

from scarce.space import Choice, Float
from scarce.study.expected_improvement import DRAWS, encode, expected_improvement, slope, unwarp, warp

Function = Callable[[np.ndarray], np.ndarray]
NOISE = 0.3  # standard error of a value, over the standard deviation of the function


def draw_function(kind: str, dimensions: int, generator: np.random.Generator) -> Function:
    """A function over the unit cube: a peak, a plane, waves upon a peak, or one whose values tell nothing of others."""
    centre = generator.uniform(0.2, 0.8, dimensions)
    weights = generator.normal(size=dimensions)
    if kind == "peak":
        return lambda x: -((x - centre) ** 2 @ np.abs(weights))
    if kind == "plane":
        return lambda x: x @ weights
    if kind == "waves":
        return lambda x: np.sin(3 * x @ weights) - ((x - centre) ** 2).sum(axis=1)
    return lambda x: np.sin(1e4 * x @ weights) + np.cos(2e4 * x @ weights)


def realised(kind: str, dimensions: int, tried: int, repetition: int) -> tuple[float, float, bool]:
    """What eight further points brought and were said to bring, over the function's s.d., and whether the interval
    holds it.
    """
    generator = np.random.default_rng([repetition, dimensions, tried])
    f = draw_function(kind, dimensions, generator)
    spread = f(generator.uniform(size=(500, dimensions))).std()
    x, new = (generator.uniform(size=(count, dimensions)) for count in (tried, 8))
    y = f(x) + NOISE * spread * generator.normal(size=tried)
    said = expected_improvement(x, y, np.full(tried, NOISE * spread), [new], seed=repetition)
    assert said is not None
    gain = max(0.0, f(new).max() - f(x).max())
    return gain / spread, said.mean / spread, said.low <= gain <= said.high


@pytest.mark.parametrize("tried", [8, 16])
def test_what_was_said_is_what_comes(tried: int):
    outcomes = [
        realised(kind, dimensions, tried, repetition)
        for kind in ("peak", "plane", "waves", "nothing")
        for dimensions in (2, 8)
        for repetition in range(12)
    ]
    gains, said, inside = (np.array(column, dtype=float) for column in zip(*outcomes, strict=True))
    # 96 cases: at a true coverage of 90%, 82% or less has a chance of 1%. Zero often is the whole lower half.
    assert inside.mean() > 0.82
    assert 0.7 * gains.mean() < said.mean() < 2 * gains.mean()


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Settings, values, standard errors, and further settings."""
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(12, 3))
    y = 0.6 + 0.05 * x[:, 0] + 0.005 * generator.normal(size=12)
    return x, y, np.full(12, 0.005), generator.uniform(size=(4, 3))


def test_a_seed_repeats_it():
    x, y, se, new = example()
    assert expected_improvement(x, y, se, [new], seed=3) == expected_improvement(x, y, se, [new], seed=3)
    assert expected_improvement(x, y, se, [new], seed=3) != expected_improvement(x, y, se, [new], seed=4)


def test_more_points_and_better_ones_are_worth_more():
    x, y, se, new = example()
    better, worse = new * [0.1, 1, 1] + [0.9, 0, 0], new * [0.1, 1, 1]

    def mean(*batches: np.ndarray) -> float:
        said = expected_improvement(x, y, se, batches)
        assert said is not None
        assert 0 <= said.low <= said.high
        return said.mean

    assert mean(better) > 3 * mean(worse)
    assert mean(np.concatenate([better, new])) > mean(better) * 0.95  # up to the error of the draws
    assert mean(worse) < mean(worse, better) < mean(better)


def test_it_scales_with_the_values():
    x, y, se, new = example()
    one, ten = expected_improvement(x, y, se, [new]), expected_improvement(x, 10 * y + 3, 10 * se, [new])
    assert one is not None
    assert ten is not None
    assert ten.mean == pytest.approx(10 * one.mean, rel=1e-6)


def test_what_differs_by_no_more_than_its_noise_promises_little():
    generator = np.random.default_rng(0)
    x, new = generator.uniform(size=(12, 3)), generator.uniform(size=(8, 3))
    y = 0.6 + 0.01 * generator.normal(size=12)
    noisy, exact = (expected_improvement(x, y, np.full(12, se), [new]) for se in (0.01, 1e-5))
    assert noisy is not None
    assert exact is not None
    assert noisy.mean < 0.8 * exact.mean


def test_from_few_or_equal_values_nothing_is_told():
    x, y, se, new = example()
    assert expected_improvement(x[:4], y[:4], se[:4], [new]) is None
    assert expected_improvement(x, np.full(12, 0.5), se, [new]) is None
    assert expected_improvement(x, y, np.zeros(12), [new]) is not None  # without noise
    assert DRAWS >= 1000


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_warp_is_yeo_and_johnsons(power: float):
    y = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(warp(y, power), yeojohnson(y, power), atol=1e-12)
    np.testing.assert_allclose(unwarp(warp(y, power), power), y, atol=1e-12)
    np.testing.assert_allclose(slope(y, power), (warp(y + 1e-5, power) - warp(y - 1e-5, power)) / 2e-5, rtol=1e-6)


def test_settings_become_points_of_the_unit_cube():
    space = {"a": Float(1e-2, 1.0, log=True), "b": Float(0.0, 4.0), "c": Choice((0.0, 0.5, 1.0))}
    points = encode([{"a": 0.1, "b": 1.0, "c": 0.5}, {"a": 1.0, "b": 4.0, "c": 1.0}], space)
    np.testing.assert_allclose(points[:, :2], [[0.5, 0.25], [1, 1]])
    assert np.linalg.norm(points[0, 2:] - points[1, 2:]) == pytest.approx(1)
    assert encode([], space).shape == (0, 5)
