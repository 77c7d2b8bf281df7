"""Steps of explicit Runge-Kutta methods, and what a step size controller needs: pure functions.

Everything is written for rows that share nothing: t and h are (...), states (..., state), and what
happens to one row depends on that row alone. Nothing branches on values, so a compiled loop and an
eager one can call the same functions. Times are float64 whatever the states are.

Adaptive: Dormand & Prince 1980 (J. Comput. Appl. Math. 6:19-26), order 5 with an error estimate of
order 4 and the quartic between two steps of Shampine 1986 (Math. Comp. 46:135-150); controller and
first step after Hairer, Norsett & Wanner 1993, Solving Ordinary Differential Equations I, II.4.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Rate = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> dx/dt, its input already bound

SAFETY = 0.9
SLOWEST, FASTEST = 0.2, 10.0  # factors by which a step may change at once
INTEGRAL = 0.04  # weight of the previous error in the controller
SMALLEST_RATIO = 1e-4  # an error below this much of the tolerance counts as this much

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
BULGE = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


class Step(NamedTuple):
    """One attempted step of every row.

    Attributes:
        x: The state at t + h, (..., state).
        slope: The rate there, or None where the method does not know it.
        error: Estimate of the error of x, (..., state); None where the method has none.
        stages: What the curve between both ends is made of.
    """

    x: Tensor
    slope: Tensor | None
    error: Tensor | None
    stages: tuple[Tensor, ...]


def dormand_prince(rate: Rate, t: Tensor, h: Tensor, x: Tensor, slope: Tensor) -> Step:
    """One step of Dormand-Prince 5(4); the slope at its end is the slope of the next one.

    Args:
        rate: The field with its input bound.
        t: Where the step begins, (...).
        h: Its width, (...).
        x: The state at t, (..., state).
        slope: rate(t, x).
    """
    width = h.to(x.dtype).unsqueeze(-1)
    stages = [slope]
    stage = x
    for node, weights in zip(NODES[1:], STAGES, strict=True):
        stage = x + width * combination(weights, stages)
        stages.append(rate(t + node * h, stage))
    return Step(stage, stages[-1], width * combination(ERROR, stages), tuple(stages))


def dormand_prince_curve(
    h: Tensor, x: Tensor, after: Tensor, stages: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What `interpolate` needs between x and `after`: a quartic whose end slopes are the rates."""
    width = h.to(x.dtype).unsqueeze(-1)
    return (*hermite_curve(h, x, after, stages), width * combination(BULGE, stages))


def hermite_curve(
    h: Tensor, x: Tensor, after: Tensor, stages: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The cubic through both ends whose slopes there are stages[0] and stages[-1]: order 3."""
    width = h.to(x.dtype).unsqueeze(-1)
    rise = after - x
    start = width * stages[0] - rise
    return start, rise - width * stages[-1] - start


def interpolate(theta: Tensor, x: Tensor, after: Tensor, curve: Sequence[Tensor]) -> Tensor:
    """The state at t + theta h, between x (theta = 0) and `after` (theta = 1).

    Args:
        theta: (...), in the order of the rows.
        x: The state at t, (..., state).
        after: The state at t + h.
        curve: None, two or three tensors (..., state): a line, a cubic or a quartic.
    """
    theta = theta.to(x.dtype).unsqueeze(-1)
    left = 1 - theta
    rise = after - x
    if curve:
        top = curve[1] if len(curve) == 2 else curve[1] + left * curve[2]
        rise = rise + left * (curve[0] + theta * top)
    return x + theta * rise


def combination(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    """sum_i weights_i stages_i, without the terms whose weight is zero."""
    total = weights[0] * stages[0]
    for weight, stage in zip(weights[1:], stages[1:], strict=True):
        if weight:
            total = torch.add(total, stage, alpha=weight)
    return total


def error_ratio(
    error: Tensor, x: Tensor, after: Tensor, rtol: float | Tensor, atol: float | Tensor
) -> Tensor:
    """Error over tolerance, root mean square over the row's own states; a step with <= 1 is good.

    The tolerance of a state is atol + rtol max(|before|, |after|). The ratio is in float64.
    """
    scale = torch.maximum(x.abs(), after.abs()) * rtol + _positive(atol, x.dtype)
    return root_mean_square(error / scale).double()


def root_mean_square(values: Tensor) -> Tensor:
    """Over the last axis, without overflow in the squares."""
    largest = values.abs().amax(dim=-1)
    safe = largest.clamp(min=torch.finfo(values.dtype).tiny).unsqueeze(-1)
    return largest * (values / safe).square().mean(dim=-1).sqrt()


def _positive(atol: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """A tolerance that can be divided by; tensors (of a compiled loop) are positive already."""
    return atol if isinstance(atol, Tensor) else max(atol, torch.finfo(dtype).tiny)


def step_factor(ratio: Tensor, previous: Tensor, order: int) -> Tensor:
    """By how much the step changes: a PI controller, h' = h 0.9 ratio^-a previous^b.

    a = 1/order - 0.75 b. A ratio that is not finite takes the smallest factor.

    Args:
        ratio: Of the step just tried, (...).
        previous: Of the last accepted one before it, (...).
        order: Of the error estimate, plus one: 5 for Dormand-Prince 5(4).
    """
    proportional = 1 / order - 0.75 * INTEGRAL
    small = ratio.clamp(min=SMALLEST_RATIO)
    memory = previous.clamp(min=SMALLEST_RATIO)
    factor = SAFETY * small.pow(-proportional) * memory.pow(INTEGRAL)
    return torch.nan_to_num(factor, nan=SLOWEST).clamp(SLOWEST, FASTEST)


def initial_step(
    rate: Rate,
    t: Tensor,
    x: Tensor,
    slope: Tensor,
    span: Tensor,
    rtol: float | Tensor,
    atol: float | Tensor,
    order: int,
) -> Tensor:
    """A first width from the size of the state, its slope and its curvature, at most `span`.

    One evaluation of the field, an explicit Euler step away.

    Args:
        rate: The field with its input bound.
        t: Where the solution begins, (...).
        x: The state there, (..., state).
        slope: rate(t, x).
        span: Length of what is to be solved, (...), positive.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        order: Of the error estimate, plus one.
    """
    scale = x.abs() * rtol + _positive(atol, x.dtype)
    size = root_mean_square(x / scale).double()
    speed = root_mean_square(slope / scale).double()
    unknown = (size < 1e-5) | (speed < 1e-5)
    first = torch.where(unknown, 1e-6, 0.01 * size / torch.where(unknown, 1.0, speed))
    first = torch.minimum(first.clamp(min=torch.finfo(torch.float64).tiny), span)
    trial = x + first.to(x.dtype).unsqueeze(-1) * slope
    bend = root_mean_square((rate(t + first, trial) - slope) / scale).double() / first
    known = torch.where(bend.isfinite(), bend, 0.0)  # a trial beyond the domain says nothing
    fastest = torch.maximum(speed, known)
    flat = fastest <= 1e-15
    second = (0.01 / torch.where(flat, 1.0, fastest)).pow(1 / order)
    second = torch.where(flat, (1e-3 * first).clamp(min=1e-6), second)
    return torch.minimum(torch.minimum(100 * first, second), span)
