"""Many logistic regressions on the images of one episode: other values of C, other images left out, one Gram matrix.

Cross-validating C takes some 30 fits an episode. A Cholesky factorisation for every Newton step of every fit, as in
`solve_dual`, would repeat what they share. Here Newton's equations are solved by conjugate gradients (Newton-CG;
Nocedal & Wright 2006, algorithm 7.1), which ask of the images only the product of one n × n matrix with a column a fit.
"""

import torch
from torch import Tensor

from scarce.fewshot.logistic import TOLERANCE, solve_dual, step_length

MAX_NEWTON_STEPS = 50
FORCING = 0.03  # a step brings the linearised gradient down to this share (Nocedal & Wright 2006, eq. 7.3)
ROUNDING = 16 * torch.finfo(torch.float64).eps  # of a slope: no gradient is shorter than what this makes of it


def solve_many(gram: Tensor, positive: Tensor, C: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Minimise ½‖w‖² + Cⱼ Σᵢ log(1 + exp(−sᵢ(wᵀxᵢ + b))), sᵢ = ±1, i over kept images: J problems an episode.

    With b eliminated the gradient is Xᵀ(α − g + W1 1ᵀg / 1ᵀW1) and the Hessian I + Xᵀ(W − W11ᵀW / 1ᵀW1)X, where
    w = Xᵀα and g, W are slope and curvature of the loss. So weights and directions are kept as coefficients of images,
    and one product with K = XXᵀ an iteration gives their lengths as well as the decision values. The Hessian is at
    least I: the gradient's norm bounds the distance to the optimum, and `TOLERANCE` that distance relative to ‖w‖.

    Args:
        gram: K of centred features, float64 [E, n, n].
        positive: bool [E, n].
        C: inverse strength of each problem's penalty, float64 [J].
        kept: the images of each problem, both classes among them, bool [n, J]; by default all.

    Returns:
        Dual coefficients α float64 [E, n, J], 0 for images left out, and intercepts float64 [E, J].

    Raises:
        FloatingPointError, torch.linalg.LinAlgError: features that are not finite.
    """
    sign = torch.where(positive, 1.0, -1.0).to(gram.dtype).unsqueeze(2)
    lengths = gram.diagonal(dim1=1, dim2=2).unsqueeze(2)
    c = C.expand(1, gram.shape[1], -1) if kept is None else (kept * C).unsqueeze(0)
    dual = torch.zeros(*positive.shape, len(C), dtype=gram.dtype, device=gram.device)
    intercept = torch.zeros_like(dual[:, :1])
    duals, intercepts = torch.zeros_like(dual), torch.zeros_like(intercept)
    column = torch.arange(len(C), device=gram.device)  # problems that some episode has not solved yet
    for _ in range(MAX_NEWTON_STEPS):
        product = gram @ dual
        values = product + intercept
        miss = torch.sigmoid(-sign * values)  # probability given to the wrong class, exact even where it is tiny
        slope = c * sign * miss
        curvature = c * miss * torch.sigmoid(sign * values)
        slopes, total = _sum(slope), _sum(curvature).clamp(min=torch.finfo(gram.dtype).tiny)
        residual = slope - dual - curvature * (slopes / total)
        start = gram @ residual
        enough = TOLERANCE**2 * _sum(dual * product) + ROUNDING**2 * _sum(slope.square() * lengths)
        small = _sum(residual * start) <= enough
        open_ = ~(small & (slopes.abs() <= TOLERANCE * total * (1 + intercept.abs())))  # NaN stays open
        duals[:, :, column], intercepts[:, :, column] = dual, intercept
        wanted = open_.any(0).squeeze(0)
        if not bool(wanted.any()):
            return duals, intercepts.squeeze(1)
        step, step_product = _conjugate_gradients(gram, curvature, total, residual, start, enough, open_)
        intercept_step = torch.where(open_, (slopes - _sum(curvature * step_product)) / total, 0.0)
        linear, quadratic = (product * step).sum(1), (step * step_product).sum(1)
        length = step_length(values, step_product + intercept_step, sign, c, linear, quadratic).unsqueeze(1)
        dual, intercept = dual + length * step, intercept + length * intercept_step
        if not bool(wanted.all()):
            column, c, dual, intercept, open_ = (x[..., wanted] for x in (column, c, dual, intercept, open_))
    for episode, _, index in open_.nonzero().tolist():  # so ill-conditioned that rounding leads the gradients astray
        problem = int(column[index])
        rows = c[0, :, index].nonzero().squeeze(1)
        alone = gram[episode][rows][:, rows].unsqueeze(0)
        solution = solve_dual(alone, positive[episode, rows].unsqueeze(0), float(C[problem]))
        duals[episode, :, problem] = 0
        duals[episode, rows, problem], intercepts[episode, 0, problem] = solution[0][0], solution[1][0]
    return duals, intercepts.squeeze(1)


def _conjugate_gradients(
    gram: Tensor, curvature: Tensor, total: Tensor, residual: Tensor, product: Tensor, enough: Tensor, open_: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton's step and K times it, both [E, n, J], for the problems `open_`; zeros for the others.

    Args:
        gram: K.
        curvature: W, with its sum `total` [E, 1, J].
        residual: coefficients of the negative gradient; `product` is K times it.
        enough: the squared norm of a gradient that needs no step, [E, 1, J].
        open_: bool [E, 1, J].
    """
    step, step_product = torch.zeros_like(residual), torch.zeros_like(residual)
    direction, direction_product = residual, product
    squared = _sum(residual * product)
    goal = torch.maximum(FORCING**2 * squared, enough / 9)
    for _ in range(2 * gram.shape[1]):
        going = open_ & (squared > goal)
        if not bool(going.any()):
            break
        shift = _sum(curvature * direction_product) / total
        bent = torch.addcmul(direction, curvature, direction_product - shift)
        length = torch.where(going, squared / _sum(direction_product * bent), 0.0)
        step.addcmul_(length, direction)
        step_product.addcmul_(length, direction_product)
        residual = torch.addcmul(residual, length, bent, value=-1)
        product = gram @ residual
        new = _sum(residual * product)
        ratio = torch.where(going, new / squared, 0.0)
        squared = torch.where(going, new, squared)
        direction = torch.addcmul(residual, ratio, direction)
        direction_product = torch.addcmul(product, ratio, direction_product)
    return step, step_product


def _sum(values: Tensor) -> Tensor:
    """Over images: [E, n, J] to [E, 1, J]."""
    return values.sum(1, keepdim=True)
