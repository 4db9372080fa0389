from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, rosen

from scarce.fewshot.lbfgs import minimise


def softplus_problems(count, dim=7, data=12):
    """Regularised logistic losses of very different curvature: a function of many points, and of one for SciPy."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(count, data, dim)) * np.geomspace(0.1, 10, count)[:, None, None])

    def batch(point):
        point = point.detach().requires_grad_()
        value = torch.nn.functional.softplus(torch.einsum("end,ed->en", x, point)).sum(1) + point.square().sum(1) / 2
        return value.detach(), torch.autograd.grad(value.sum(), point)[0]

    def one(index):
        return lambda p: float(np.logaddexp(0, x[index].numpy() @ p).sum() + p @ p / 2)

    return batch, one


def test_finds_the_minima_that_scipy_finds():
    batch, one = softplus_problems(6)
    found = minimise(batch, torch.zeros(6, 7, dtype=torch.float64), steps=200, tolerance=1e-8)
    for index in range(6):
        peer = minimize(one(index), np.zeros(7), method="BFGS", options={"gtol": 1e-7})
        np.testing.assert_allclose(found[index], peer.x, atol=1e-5)


def test_a_problem_does_not_depend_on_those_beside_it():
    batch, _ = softplus_problems(6)
    start = torch.ones(6, 7, dtype=torch.float64)
    together = minimise(batch, start, steps=7, tolerance=1e-8)

    def alone(point):
        value, gradient = batch(torch.cat([start[:4], point, start[5:]]))
        return value[4:5], gradient[4:5]

    np.testing.assert_allclose(together[4], minimise(alone, start[4:5], steps=7, tolerance=1e-8)[0], rtol=1e-9)


def rosenbrock(point):
    point = point.detach().requires_grad_()
    left, right = point[:, :-1], point[:, 1:]
    value = (100 * (right - left**2) ** 2 + (1 - left) ** 2).sum(1)
    return value.detach(), torch.autograd.grad(value.sum(), point)[0]


def test_no_step_makes_it_worse_and_enough_of_them_arrive():
    start = torch.tensor([[-1.2, 1.0, -0.5], [3.0, -2.0, 1.0]], dtype=torch.float64)
    values = [minimise(rosenbrock, start, steps, 1e-9) for steps in range(0, 40, 4)]
    for before, after in pairwise(values):
        assert all(rosen(b) <= rosen(a) for a, b in zip(before.numpy(), after.numpy(), strict=True))
    np.testing.assert_allclose(minimise(rosenbrock, start, 300, 1e-9), 1, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 5])
def test_what_is_at_its_minimum_stays_there(steps):
    point = torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(minimise(rosenbrock, point, steps, 1e-9), point)
