"""Each loss against a slow transcription of its paper's formula, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from scarce.methods.barlow_twins import barlow_loss
from scarce.methods.moco import info_nce, variance_term
from scarce.methods.simclr import nt_xent


def unit(rows: int, dim: int, seed: int) -> torch.Tensor:
    z = torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=1)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_is_equation_1_of_simclr(temperature):
    first, second = unit(5, 8, 0), unit(5, 8, 1)
    z = [*first, *second]
    total = 0.0
    for i in range(10):
        partner = (i + 5) % 10
        others = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(10) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[partner]) / temperature) / others)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(total / 10, abs=1e-9)


def test_info_nce_is_equation_1_of_moco():
    queries, keys, negatives = unit(4, 8, 0), unit(4, 8, 1), unit(16, 8, 2)
    total = 0.0
    for q, k in zip(queries, keys, strict=True):
        positive = math.exp(float(q @ k) / 0.07)
        total -= math.log(positive / (positive + sum(math.exp(float(q @ n) / 0.07) for n in negatives)))
    assert float(info_nce(queries, keys, negatives, 0.07)) == pytest.approx(total / 4, abs=1e-9)


def test_variance_term_is_equation_1_of_vicreg():
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [0.1, 0.5, 3.0]
    )
    expected = 0.0
    for j in range(3):
        column = [float(v) for v in z[:, j]]
        mean = sum(column) / 6
        variance = sum((v - mean) ** 2 for v in column) / 5
        expected += max(0.0, 1 - math.sqrt(variance + 1e-4)) / 3
    assert float(variance_term(z)) == pytest.approx(expected, abs=1e-9)


def test_barlow_loss_is_equations_1_and_2_of_barlow_twins():
    first = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    second = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def standardised(z: torch.Tensor) -> list[list[float]]:
        columns = []
        for j in range(3):
            mean = float(z[:, j].mean())
            spread = math.sqrt(float(((z[:, j] - mean) ** 2).mean()) + 1e-5)
            columns.append([(float(v) - mean) / spread for v in z[:, j]])
        return columns

    a, b = standardised(first), standardised(second)
    expected = 0.0
    for i in range(3):
        for j in range(3):
            c = sum(x * y for x, y in zip(a[i], b[j], strict=True)) / 7
            expected += (1 - c) ** 2 if i == j else 0.005 * c**2
    assert float(barlow_loss(first, second, 0.005)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", [lambda a, b: nt_xent(a, b, 0.2), lambda a, b: barlow_loss(a, b, 0.005)])
def test_losses_are_symmetric_and_prefer_agreement(loss):
    first, second = unit(16, 8, 0), unit(16, 8, 1)
    torch.testing.assert_close(loss(first, second), loss(second, first))
    assert loss(first, first) < loss(first, second)
