"""Each loss against a slow transcription of its paper's formula, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.methods.barlow_twins import barlow_loss
from scarce.methods.byol import regression_loss
from scarce.methods.dino import dino_loss
from scarce.methods.moco import info_nce
from scarce.methods.moco_v3 import contrast
from scarce.methods.simclr import nt_xent
from scarce.methods.simsiam import negative_cosine
from scarce.methods.spark import patches, reconstruction_loss
from scarce.methods.vicreg import VICRegConfig, covariance_term, variance_term, vicreg_loss


def random(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(rows: int, dim: int, seed: int) -> Tensor:
    return F.normalize(random(rows, dim, seed), dim=1)


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


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


def test_contrast_is_ctr_of_moco_v3():
    queries, keys = random(5, 8, 0), random(5, 8, 1)
    q, k = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    total = 0.0
    for i in range(5):
        logits = [float(q[i] @ k[j]) / 0.2 for j in range(5)]
        total -= math.log(softmax(logits)[i])
    assert float(contrast(queries, keys, 0.2)) == pytest.approx(2 * 0.2 * total / 5, abs=1e-9)


def test_variance_and_covariance_terms_are_equations_1_and_4_of_vicreg():
    z = random(6, 3, 0) * torch.tensor([0.1, 0.5, 3.0])
    columns = [[float(v) for v in z[:, j]] for j in range(3)]
    means = [sum(column) / 6 for column in columns]
    variance = 0.0
    for column, mean in zip(columns, means, strict=True):
        variance += max(0.0, 1 - math.sqrt(sum((v - mean) ** 2 for v in column) / 5 + 1e-4)) / 3
    covariance = 0.0
    for i in range(3):
        for j in range(3):
            pairs = zip(columns[i], columns[j], strict=True)
            c = sum((x - means[i]) * (y - means[j]) for x, y in pairs) / 5
            covariance += c**2 / 3 if i != j else 0
    assert float(variance_term(z)) == pytest.approx(variance, abs=1e-9)
    assert float(covariance_term(z)) == pytest.approx(covariance, abs=1e-9)


def test_vicreg_weighs_its_three_terms():
    first, second = random(6, 3, 0), random(6, 3, 1)
    invariance = sum(float(d) ** 2 for d in (first - second).flatten()) / 18
    variance = (variance_term(first) + variance_term(second)) / 2
    covariance = covariance_term(first) + covariance_term(second)
    config = VICRegConfig(invariance_weight=2.0, variance_weight=3.0, covariance_weight=5.0)
    expected = 2 * invariance + 3 * float(variance) + 5 * float(covariance)
    assert float(vicreg_loss(first, second, config)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("count", "dim"), [(7, 3), (3, 7), (5, 5)])  # a small batch takes the way of Gram matrices
def test_barlow_loss_is_equations_1_and_2_of_barlow_twins(count, dim):
    first, second = random(count, dim, 0), random(count, dim, 1)

    def standardised(z: Tensor) -> list[list[float]]:
        columns = []
        for j in range(dim):
            mean = float(z[:, j].mean())
            spread = math.sqrt(float(((z[:, j] - mean) ** 2).mean()) + 1e-5)
            columns.append([(float(v) - mean) / spread for v in z[:, j]])
        return columns

    a, b = standardised(first), standardised(second)
    expected = 0.0
    for i in range(dim):
        for j in range(dim):
            c = sum(x * y for x, y in zip(a[i], b[j], strict=True)) / count
            expected += (1 - c) ** 2 if i == j else 0.005 * c**2
    assert float(barlow_loss(first, second, 0.005)) == pytest.approx(expected, abs=1e-9)


def test_regression_loss_is_equation_2_of_byol():
    prediction, target = random(4, 6, 0), random(4, 6, 1)
    total = 0.0
    for p, t in zip(F.normalize(prediction, dim=1), F.normalize(target, dim=1), strict=True):
        total += sum((float(x) - float(y)) ** 2 for x, y in zip(p, t, strict=True))
    assert float(regression_loss(prediction, target)) == pytest.approx(total / 4, abs=1e-9)


def test_negative_cosine_is_equation_1_of_simsiam():
    prediction, target = random(4, 6, 0), random(4, 6, 1)
    total = 0.0
    for p, z in zip(prediction, target, strict=True):
        total -= float(p @ z) / math.sqrt(float(p @ p) * float(z @ z))
    assert float(negative_cosine(prediction, target)) == pytest.approx(total / 4, abs=1e-9)


def test_dino_loss_is_equation_3_of_dino():
    teacher, student = [random(3, 5, i) for i in range(2)], [random(3, 5, 10 + i) for i in range(4)]
    centre = random(1, 5, 20)[0]
    total, terms = 0.0, 0
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            if i == j:
                continue
            terms += 1
            for row in range(3):
                target = softmax([(float(t[row, k]) - float(centre[k])) / 0.04 for k in range(5)])
                prediction = softmax([float(s[row, k]) / 0.1 for k in range(5)])
                total -= sum(p * math.log(q) for p, q in zip(target, prediction, strict=True)) / 3
    assert terms == 6
    assert float(dino_loss(teacher, student, centre, 0.04, 0.1)) == pytest.approx(total / terms, abs=1e-9)


def test_reconstruction_loss_counts_hidden_patches_normalised_each():
    generator = torch.Generator().manual_seed(0)
    view, output = (torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    hidden = torch.tensor([[1, 2], [3, 0]])
    total = 0.0
    for image in range(2):
        for row in range(2):
            for column in range(2):
                if 2 * row + column not in hidden[image]:
                    continue
                here = (image, 0, slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
                target, made = [float(v) for v in view[here].flatten()], [float(v) for v in output[here].flatten()]
                mean = sum(target) / 16
                spread = math.sqrt(sum((v - mean) ** 2 for v in target) / 15 + 1e-6)
                total += sum((m - (v - mean) / spread) ** 2 for m, v in zip(made, target, strict=True)) / 16
    assert float(reconstruction_loss(output, view, hidden, 4)) == pytest.approx(total / 4, abs=1e-9)
    assert torch.equal(patches(view, 4)[1, 2], view[1, 0, 4:, :4].flatten())


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: nt_xent(F.normalize(a, dim=1), F.normalize(b, dim=1), 0.2),
        lambda a, b: barlow_loss(a, b, 0.005),
        lambda a, b: vicreg_loss(a, b, VICRegConfig()),
        regression_loss,
        negative_cosine,
    ],
    ids=["nt_xent", "barlow", "vicreg", "byol", "simsiam"],
)
def test_losses_are_symmetric_and_prefer_agreement(loss):
    first, second = random(16, 8, 0), random(16, 8, 1)
    torch.testing.assert_close(loss(first, second), loss(second, first))
    assert loss(first, first) < loss(first, second)
