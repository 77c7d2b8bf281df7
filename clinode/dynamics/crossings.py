"""Where a function along a curve crosses zero: looks at it that show every crossing, and its zeros.

A function is looked at in the Chebyshev points of a piece of the curve. The polynomial through the
looks says what may be between them: two crossings, a value near zero, or, by its last coefficients,
that the looks do not tell. Such a piece is to be halved. What stays unseen is a function that
agrees with a smooth one at all looks of its first piece, as a wave of exactly fitting length might,
and what happens within the smallest piece that is looked at.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

N_LOOKS = 13  # of a piece, both ends among them
CELLS = 4  # between two looks, for the polynomial through them
TAIL = 4  # coefficients that must be small where the looks tell everything
RESOLVED = 1e-3  # of all coefficients: a tail at which pieces keep their width
TOLD = 0.03  # of all coefficients: a tail above it says that the looks tell nothing
GROWTH = 8.0  # of a piece, at most
CUBIC = 0.1  # of the depth of a parabola: what its cubic part may add within a cell
MOST_TRIALS = 120  # looks at a function for its zero; ten are usual


def _tables() -> tuple[np.ndarray, ...]:
    """Looks in [0, 1]; from values there to coefficients; from those to values, to slopes at the
    ends of cells; the widths of the cells.
    """
    degree = N_LOOKS - 1
    looks = (1 - np.cos(np.pi * np.arange(N_LOOKS) / degree)) / 2
    part = np.arange(CELLS) / CELLS
    fine = np.append((looks[:-1, None] + part * np.diff(looks)[:, None]).ravel(), 1.0)
    coefficients = np.linalg.inv(chebyshev.chebvander(2 * looks - 1, degree))
    by_slope = 2 * chebyshev.chebder(np.eye(N_LOOKS), axis=0)
    values = chebyshev.chebvander(2 * fine - 1, degree)
    slopes = chebyshev.chebvander(2 * fine - 1, degree - 1) @ by_slope
    return looks, coefficients, values, slopes, np.diff(fine)


LOOKS, COEFFICIENTS, VALUES, SLOPES, WIDTHS = (torch.tensor(table) for table in _tables())


class Shape:
    """The polynomial through looks at functions.

    Args:
        seen: (look, ...): the functions at `LOOKS` of a piece.
    """

    def __init__(self, seen: Tensor):
        self.series = torch.tensordot(COEFFICIENTS.to(seen.device), seen, dims=1)
        self.error = self.series[-TAIL:].abs().sum(dim=0)  # of the polynomial: the tail of it
        self.size = self.series.abs().sum(dim=0)

    def is_apart(self, side: Tensor) -> Tensor:
        """Whether it stays on this side of zero because no other term outweighs the mean, (...)."""
        mean = self.series[0]
        return mean * side > self.size - mean.abs() + self.error

    def growth(self) -> Tensor:
        """By which factor the next piece may be wider, (...)."""
        size = self.size.clamp(min=torch.finfo(self.series.dtype).tiny)
        ratio = (self.error / (RESOLVED * size)).clamp(min=1e-30)
        factor = ratio.pow(-1 / (N_LOOKS - TAIL)).clamp(0.5, GROWTH)
        return factor.nan_to_num(1.0)

    def shows_all(self, side: Tensor, floor: Tensor) -> Tensor:
        """Whether the looks show every crossing: at most one between two of them, (...).

        Args:
            side: (...): the sign at the start; where 0, that of the first look.
            floor: (...): what is nearer to zero counts as zero.
        """
        device, axes = self.series.device, self.series.ndim - 1
        value = torch.tensordot(VALUES.to(device), self.series, dims=1)
        slope = torch.tensordot(SLOPES.to(device), self.series, dims=1)
        size, error = value.abs(), self.error
        bend = N_LOOKS**2 * self.series[-2:].abs().sum(dim=0)  # of the slope: Markov's inequality
        told = ((size > error) | (slope.abs() > bend)).all(dim=0) & (error <= TOLD * self.size)
        told = told | (error <= floor)
        sign = torch.where(size > floor, value.sign(), 0.0)
        sign[0] = torch.where(side == 0, sign[0], side.to(sign.dtype))
        before, after = sign[:-1], sign[1:]
        crosses = before * after < 0
        onward = (after * slope[:-1] >= -bend) & (after * slope[1:] >= -bend)
        once = crosses.unflatten(0, (-1, CELLS)).sum(dim=1) <= 1
        same = torch.where(before == 0, after, before)
        fall, rise = -same * slope[:-1], same * slope[1:]
        turns = ~crosses & (fall > 0) & (rise > 0)
        width = WIDTHS.to(device).view(-1, *[1] * axes)
        reach = width * fall / torch.where(turns, fall + rise, 1.0)
        depth = fall * reach / 2  # of the lowest place below the value at the start of its cell
        near = same * value[:-1] - depth <= CUBIC * depth + error
        touches = turns & near & (depth > floor)
        return told & once.all(dim=0) & ((onward | ~crosses) & ~touches).all(dim=0)


def bracketed(
    value: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, where: Tensor
) -> Tensor:
    """Zeros between low (below zero) and high (not below), to the last bits.

    Inverse quadratic interpolation where it can be trusted, bisection elsewhere: Chandrupatla 1997,
    Adv. Eng. Softw. 28:145-149.
    """
    tiny = torch.finfo(low.dtype).tiny
    x1, f1 = high, value(high).abs()
    x2, f2 = low, -value(low).abs().clamp(min=tiny)
    part, best = torch.full_like(low, 0.5), high
    open_ = where & (f1 != 0)
    for _ in range(MOST_TRIALS):
        if not open_.any():
            break
        x = x1 + part * (x2 - x1)
        f = value(x)
        same = (f < 0) == (f1 < 0)
        x3, f3 = torch.where(same, x1, x2), torch.where(same, f1, f2)
        x2, f2 = torch.where(same, x2, x1), torch.where(same, f2, f1)
        x1, f1 = x, f
        best = torch.where(open_, torch.where(f1 < 0, x2, x1), best)  # where it is not below
        narrow = 4e-16 / (x2 - x1).abs()
        open_ = open_ & (narrow < 0.5) & (f != 0)
        xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        trusted = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        inverse = f1 / (f2 - f1) * f3 / (f2 - f3)
        inverse = inverse + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
        part = torch.where(trusted, inverse, 0.5).nan_to_num(0.5)
        part = torch.minimum(torch.maximum(part, narrow), 1 - narrow).clamp(0.0, 1.0)
    return best
