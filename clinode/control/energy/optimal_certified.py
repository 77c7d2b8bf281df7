"""Optimal transfers in ball arithmetic, by the exponential of the Hamiltonian matrix.

For transfers that float64 cannot make: the costate at the start solves one ill-conditioned system,
with as many digits as it takes, and energy and cost are quadratic forms of it.
"""

import time
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, ctx

from .ball_gramian import exact_matrix, finite_gramian, norm_bound
from .optimal_path import Cost

FIRST_BITS = 192
MOST_BITS = 2**15


@dataclass(frozen=True, eq=False)
class OptimalBall:
    """Balls around the energy and the cost of one transfer."""

    energy: arb
    cost: arb


def certified_optimum(
    cost: Cost,
    start: arb_mat,
    end: arb_mat,
    reference: arb_mat,
    horizon: float,
    *,
    rtol: float,
    deadline: float,
) -> OptimalBall | None:
    """Energy and cost of one transfer to a relative error of `rtol`; None where time ends before.

    Args:
        cost: The problem, in continuous time.
        start: z(0), (state, 1).
        end: z(T), (state, 1).
        reference: r, (state, 1), constant.
        horizon: T.
        rtol: Largest relative radius of both balls.
        deadline: Value of `time.monotonic()` after which no round of higher precision begins.
    """
    bits, old = FIRST_BITS, ctx.prec
    try:
        while bits <= MOST_BITS:
            began = time.monotonic()
            ctx.prec = bits
            made = _optimum(cost, start, end, reference, horizon)
            if made is not None and _is_small(made.energy, rtol) and _is_small(made.cost, rtol):
                return made
            took = time.monotonic() - began
            if time.monotonic() + 4 * took > deadline:
                break
            bits *= 2
    finally:
        ctx.prec = old
    return None


def _is_small(ball: arb, rtol: float) -> bool:
    return bool(ball.rad() <= rtol * abs(ball.mid())) and not ball < 0


def _optimum(
    cost: Cost, start: arb_mat, end: arb_mat, reference: arb_mat, horizon: float
) -> OptimalBall | None:
    """States (z, q, 1, integral of r'S z) under the Hamiltonian with its reference."""
    n = len(cost.A)
    M = _matrix(cost, reference)
    E = (M * arb(horizon)).exp().tolist()
    by_z = arb_mat([row[:n] for row in E[:n]])
    by_q = arb_mat([row[n : 2 * n] for row in E[:n]])
    by_r = arb_mat([[row[2 * n]] for row in E[:n]])
    try:
        q = by_q.solve(end - by_z * start - by_r)
    except ZeroDivisionError:
        return None
    point = arb_mat([*start.tolist(), *q.tolist(), [arb(1)], [arb(0)]])
    size = norm_bound(np.abs(np.array([[float(x.abs_upper()) for x in row] for row in M.tolist()])))
    effect = exact_matrix(cost.B) * (1 / arb(cost.rho))
    read = arb_mat(
        [*[[arb(0)] * effect.ncols()] * n, *effect.tolist(), *[[arb(0)] * effect.ncols()] * 2]
    )
    form, _ = finite_gramian(M.transpose(), read, horizon, size, arb_mat(2 * n + 2, 1))
    energy = (point.transpose() * form * point)[0, 0]
    last = (arb_mat(E) * point).entries()
    boundary = (q.transpose() * start)[0, 0]
    boundary = boundary - sum(
        (a * b for a, b in zip(last[n:], end.entries(), strict=False)), arb(0)
    )
    S = exact_matrix(cost.S)
    own = (reference.transpose() * S * reference)[0, 0] * arb(horizon)
    return OptimalBall(energy, boundary - last[2 * n + 1] + own)


def _matrix(cost: Cost, reference: arb_mat) -> arb_mat:
    n = len(cost.A)
    A, B, S = (exact_matrix(x) for x in (cost.A, cost.B, cost.S))
    pull = (S * reference).entries()
    spread = (B * B.transpose() * (-1 / arb(cost.rho))).tolist()
    zero = arb(0)
    rows = [[*a, *b, zero, zero] for a, b in zip(A.tolist(), spread, strict=True)]
    costates = zip((-1 * S).tolist(), (-1 * A.transpose()).tolist(), pull, strict=True)
    rows += [[*s, *a, r, zero] for s, a, r in costates]
    rows += [[zero] * (2 * n + 2), [*pull, *[zero] * (n + 2)]]
    return arb_mat(rows)
