"""Functions of which rates are made, finite with finite derivatives wherever they are asked.

Rates of ion channels are written with exponentials that overflow and with quotients that are 0 / 0
at one voltage; a trained or a random constant finds both. Here neither gives infinity or NaN, in
the value or in any derivative of low order, and no gradient is cut to zero to achieve it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_EXPONENT = 50.0  # 5e21, which leaves float32 room for products with it


def bounded_exp(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """exp(x), from x = 50 on its Taylor parabola: twice differentiable, never infinite or flat.

    Example:
        >>> bounded_exp(torch.tensor([0.0, 1e4]))
        tensor([1.0000e+00, 2.5670e+29])
    """
    beyond = torch.relu(x - LARGEST_EXPONENT)
    return torch.exp(x - beyond) * (1 + beyond + beyond * beyond / 2)


def linoid(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x / (1 - exp(-x)), 1 at x = 0: the rate of a Hodgkin-Huxley gate, the flux of a free ion.

    Near 0 by its series (Bernoulli numbers) to order 20, where its quotient
    loses a digit a derivative: the third is good to 1e-11, the sixth to 1e-7.

    Example:
        >>> linoid(torch.tensor([-1e4, 0.0, 1e4])).tolist()
        [0.0, 1.0, 10000.0]
    """
    near = x.abs() < 1
    size = torch.where(near, torch.ones_like(x), x.abs())  # the branch not taken must be finite too
    positive = size / -torch.expm1(-size)
    away = torch.where(x > 0, positive, positive * torch.exp(-size))
    inside = torch.where(near, x, torch.zeros_like(x))
    square = inside * inside
    series = torch.zeros_like(x)
    for coefficient in reversed(_LINOID_SERIES):
        series = coefficient + square * series
    return torch.where(near, inside / 2 + series, away)


def log_ratio(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(x) / (x - 1) for x > 0, 1 at x = 1: how far two time constants are apart.

    Near 1 by the series of 2 artanh((x - 1) / (x + 1)) / (x - 1).
    """
    tilt = (x - 1) / (x + 1)
    near = tilt.abs() < 0.1
    inside = torch.where(near, tilt, torch.zeros_like(x))
    square = inside * inside
    series = torch.zeros_like(x)
    for order in reversed(range(10)):
        series = 1 / (2 * order + 1) + square * series
    apart = torch.where(near, torch.full_like(x, 2.0), x)
    return torch.where(near, 2 / (x + 1) * series, torch.log(apart) / (apart - 1))


_BERNOULLI = (  # B_0, B_2, ..., B_20
    (1, 1), (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6),
    (-3617, 510), (43867, 798), (-174611, 330),
)  # fmt: skip
_LINOID_SERIES = tuple(
    over / under / math.factorial(2 * order) for order, (over, under) in enumerate(_BERNOULLI)
)
