"""L-BFGS for many small problems of one size at once, each with its own steps."""

from collections.abc import Callable

import torch
from torch import Tensor

MEMORY = 10  # past steps that stand for the curvature
MAX_HALVINGS = 20
SUFFICIENT = 1e-4  # share of the decrease that the slope promises (Nocedal & Wright 2006, eq. 3.4)


def minimise(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, steps: int, tolerance: float
) -> Tensor:
    """Minimise E functions of K variables by L-BFGS with backtracking (Nocedal & Wright 2006, algorithms 7.4 and 3.1).

    A problem's steps do not depend on those beside it. No step makes an objective grow, so a problem that has not
    converged after `steps` has still only gained.

    Args:
        objective: values [E] and gradients [E, K] at points [E, K]; the curvature of a problem should be about 1.
        start: where to begin, float64 [E, K].
        steps: at most so many.
        tolerance: a problem has converged when its gradient is no longer than this.

    Returns:
        The points reached, [E, K].
    """
    point = start
    value, gradient = objective(point)
    past: list[tuple[Tensor, Tensor, Tensor]] = []  # steps, changes of the gradient, and 1 / their product
    scale = torch.ones_like(value)
    going = gradient.norm(dim=1) > tolerance
    for _ in range(steps):
        if not bool(going.any()):
            break
        direction = torch.where(going.unsqueeze(1), _direction(gradient, past, scale), 0.0)
        length, new_point, new_value, new_gradient = _search(objective, point, value, gradient, direction)
        step, change = new_point - point, new_gradient - gradient
        product, squares = (step * change).sum(1), (change * change).sum(1)
        curved = product > 1e-10 * squares  # else the pair would spoil the positive definite curvature
        past = [*past[1 - MEMORY :], (step, change, torch.where(curved, 1 / product, 0.0))]
        scale = torch.where(curved, product / squares, scale)
        point, value, gradient = new_point, new_value, new_gradient
        going &= (length > 0) & (gradient.norm(dim=1) > tolerance)
    return point


def _direction(gradient: Tensor, past: list[tuple[Tensor, Tensor, Tensor]], scale: Tensor) -> Tensor:
    """Minus the gradient times the inverse curvature, by the two-loop recursion; always downhill."""
    direction, shares = -gradient, []
    for step, change, inverse in reversed(past):
        share = inverse * (step * direction).sum(1)
        direction = direction - share.unsqueeze(1) * change
        shares.append(share)
    direction = direction * scale.unsqueeze(1)
    for (step, change, inverse), share in zip(past, reversed(shares), strict=True):
        direction = direction + (share - inverse * (change * direction).sum(1)).unsqueeze(1) * step
    return direction


def _search(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]],
    point: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shorten every problem's step until its objective decreases enough; to zero where nothing helps.

    Returns:
        The lengths [E], and the points, values and gradients there.
    """
    slope = (gradient * direction).sum(1)
    length = torch.ones_like(value)
    for _ in range(MAX_HALVINGS):
        new_point = point + length.unsqueeze(1) * direction
        new_value, new_gradient = objective(new_point)
        growth = new_value - value - SUFFICIENT * length * slope
        failed = ~(growth <= 1e-12 * value.abs())
        if not bool(failed.any()):
            return length, new_point, new_value, new_gradient
        # The minimum of the parabola through both values and the slope, within a tenth and a half.
        parabola = -slope * length**2 / (2 * (new_value - value - slope * length))
        length = torch.where(failed, parabola.clamp(length / 10, length / 2), length)
    length = torch.where(failed, 0.0, length)
    new_point = point + length.unsqueeze(1) * direction
    return length, new_point, *objective(new_point)
