"""Gain and filter where noise grows with the command, or readings worsen with the state.

    x(k + 1) = A x + B u + w + sum_i C_i u e_i,   y = H x + v + sum_i D_i x d_i

Given the filter gains the best gains follow backward, given the gains the best linear filter
follows forward; the two alternate until the cost settles (Todorov 2005, Neural Computation
17:1084-1108; there a reading acts one step later, here at once). Noise inside the estimator, for
which that alternation is known to be wrong (Damiani et al. 2024, NeurIPS), is left out.

The backward pass takes estimate and error as uncorrelated, which the best filter makes true. The
cost reported does not rest on that: it is that of the gains, from `expected`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clinode.errors import SolverError

from .deviations import Deviations
from .expected import (
    after_reading,
    first_moments,
    one_step_later,
    sensor_covariance,
    stage_cost,
)
from .riccati import dependent, recursion, symmetric

MOST_ROUNDS = 500
SETTLED = 1e-13  # relative change of the cost


@dataclass(frozen=True, eq=False)
class Coupled:
    """Gains and filter gains that fit each other.

    Attributes:
        K: (step, input, state).
        L: (step, state, sensor).
        P: Cost to go of a state that is seen, (step + 1, state, state).
        covariance: Of the estimate after the reading, (step, state, state).
        cost: Exact, of these gains.
        process: What of it the process noise would cost who sees the state.
        orthogonality: Largest correlation left between estimate and error, relative.
        n_rounds: Alternations.
    """

    K: Tensor
    L: Tensor
    P: Tensor
    covariance: Tensor
    cost: float
    process: float
    orthogonality: float
    n_rounds: int


def alternate(d: Deviations, n_steps: int) -> Coupled:
    """The coupled gains of a map.

    Raises:
        SolverError: The cost did not settle.
    """
    P, K = recursion(d.A, d.B, d.Q, d.R, d.final, n_steps, d.C)
    process = float((P[1:] * d.W).sum())
    before = torch.inf
    for n_rounds in range(1, MOST_ROUNDS + 1):
        forward = _forward(d, K)
        if abs(before - forward.cost) <= SETTLED * abs(forward.cost):
            return Coupled(
                K, forward.L, P, forward.covariance, forward.cost, process,
                forward.orthogonality, n_rounds,
            )  # fmt: skip
        before = forward.cost
        K = _backward(d, forward.L)
    raise SolverError(
        f"gain and filter did not settle on each other in {MOST_ROUNDS} rounds",
        fix="less signal-dependent noise, or a shorter horizon",
    )


@dataclass(frozen=True, eq=False)
class _Forward:
    L: Tensor
    covariance: Tensor
    cost: float
    orthogonality: float


def _forward(d: Deviations, K: Tensor) -> _Forward:
    """The best linear filter under these gains, and the exact cost of both."""
    n, M, cost, worst = len(d.A), first_moments(d), 0.0, 0.0
    filters, covariances = [], []
    for gain in K:
        xx, xz, zz = M[:n, :n], M[:n, n:], M[n:, n:]
        error = symmetric(xx - xz - xz.T + zz)
        innovation = d.H @ error @ d.H.T + sensor_covariance(d, xx)
        L = torch.linalg.lstsq(innovation, d.H @ error, driver="gelsd").solution.T
        P = after_reading(d, M, L)
        cost += float(stage_cost(d, P, gain))
        xx, xz, zz = P[:n, :n], P[:n, n:], P[n:, n:]
        worst = max(worst, float((xz - zz).abs().max() / (xx.abs().max() + 1e-300)))
        filters.append(L)
        covariances.append(symmetric(xx - xz - xz.T + zz))
        M = one_step_later(d, P, gain)
    cost += float((d.final * M[:n, :n]).sum())
    return _Forward(torch.stack(filters), torch.stack(covariances), cost, worst)


def _backward(d: Deviations, L: Tensor) -> Tensor:
    """The best gains under these filter gains: cost to go x' X x + e' E e, e the error."""
    eye, zero = torch.eye(len(d.A), dtype=d.A.dtype), torch.zeros_like(d.A)
    X, E, gains = d.final, zero, []
    for k in reversed(range(len(L))):
        if k + 1 < len(L):  # through the reading of the next step
            sensed = L[k + 1] @ d.D  # (source, state, state)
            X = X + torch.einsum("kai,ab,kbj->ij", sensed, E, sensed)
            left = eye - L[k + 1] @ d.H
            E = left.T @ E @ left
        weight = d.R + d.B.T @ X @ d.B + dependent(d.C, X + E)
        K = torch.linalg.solve(weight, d.B.T @ X @ d.A)
        through = d.A.T @ X @ d.B @ K
        X, E = symmetric(d.Q + d.A.T @ X @ d.A - through), symmetric(through + d.A.T @ E @ d.A)
        gains.append(K)
    return torch.stack(gains[::-1])
