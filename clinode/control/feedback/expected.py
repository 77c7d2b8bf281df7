"""What a linear loop costs, exactly: its second moments are closed, signal-dependent noise or not.

With x the deviation of the plant and z the estimate before a reading, M = E [x z][x z]' obeys a
linear equation for any gains, the best ones or not. So the cost of a pair of gains needs neither a
Riccati equation nor the separation of estimation and control: an independent check of both.
"""

import math

import scipy.linalg
import torch
from torch import Tensor

from clinode.errors import ArgumentError

from .deviations import Deviations, deviations
from .problem import ControlProblem
from .riccati import lyapunov


def expected_cost(
    problem: ControlProblem, gain: Tensor, filter_gain: Tensor | None = None
) -> float:
    """The cost of u = u* - K z, where z estimates x by the filter gain L.

    Args:
        problem: Linear. A flow: without a horizon.
        gain: K, (input, state); to a horizon also (step, input, state).
        filter_gain: L, (state, sensor), after the reading as in `lqe`; to a horizon also
            (step, state, sensor). None: the state is seen.

    Returns:
        To a horizon the whole cost; else that of a step, or a time unit, in the long run: inf where
        the loop is not stable (in mean square).

    Raises:
        ArgumentError: Not linear, a flow to a horizon, gains of another shape.

    Example:
        >>> from clinode.system import LinearSystem
        >>> drift = LinearSystem([[1.1]], [[1.0]], step=1)
        >>> problem = ControlProblem(drift, 1.0, 0.5, process_noise=0.2)
        >>> round(expected_cost(problem, torch.tensor([[0.8]]).double()), 6)
        0.29011
    """
    with torch.no_grad():
        return _cost(problem, deviations(problem), gain, filter_gain)


def _cost(
    problem: ControlProblem, d: Deviations, gain: Tensor, filter_gain: Tensor | None
) -> float:
    _check_shapes(d, gain, filter_gain)
    if problem.horizon is not None:
        if not problem.is_map:
            raise ArgumentError(
                "the exact cost of a flow to a horizon is that of its own gains only",
                fix="sampled_problem makes it a map",
            )
        return _to_horizon(d, gain, filter_gain, problem.n_steps)
    if filter_gain is None:
        weight = d.Q + gain.T @ d.R @ gain
        return _long_run(d.A - d.B @ gain, d.C @ gain, d.W, weight, d.is_map)
    if not problem.is_map:
        return _estimated_flow(d, gain, filter_gain)
    return _estimated_map(d, gain, filter_gain)


def first_moments(d: Deviations) -> Tensor:
    """E [x z][x z]' before the first reading, where the estimate is the mean."""
    both = torch.cat([d.mean, d.mean])
    M = both.unsqueeze(-1) * both
    M[: len(d.A), : len(d.A)] += d.spread
    return M


def after_reading(d: Deviations, M: Tensor, L: Tensor) -> Tensor:
    """E [x z][x z]' of a map, once z is corrected by the reading; (..., 2 state, 2 state)."""
    n, eye = len(d.A), torch.eye(len(d.A), dtype=d.A.dtype)
    T = torch.cat([torch.cat([eye, 0 * eye], 1), torch.cat([L @ d.H, eye - L @ d.H], 1)])
    P = T @ M @ T.T
    noise = torch.zeros_like(P)
    noise[..., n:, n:] = L @ sensor_covariance(d, M[..., :n, :n]) @ L.T
    return P + noise


def one_step_later(d: Deviations, P: Tensor, K: Tensor) -> Tensor:
    """E [x z][x z]' of a map before the next reading; (..., 2 state, 2 state)."""
    n, BK = len(d.A), d.B @ K
    G = torch.cat([torch.cat([d.A, -BK], 1), torch.cat([0 * d.A, d.A - BK], 1)])
    M = G @ P @ G.T
    noise = torch.zeros_like(M)
    noise[..., :n, :n] = d.W + command_noise(d, K @ P[..., n:, n:] @ K.T)
    return M + noise


def stage_cost(d: Deviations, P: Tensor, K: Tensor) -> Tensor:
    """tr(Q E x x') + tr(R E u u'), (...)."""
    n = len(d.A)
    inputs = K @ P[..., n:, n:] @ K.T
    return (d.Q * P[..., :n, :n]).sum((-1, -2)) + (d.R * inputs).sum((-1, -2))


def sensor_covariance(d: Deviations, xx: Tensor) -> Tensor:
    """V + sum_i D_i E[x x'] D_i', (..., sensor, sensor)."""
    return d.V + torch.einsum("kai,...ij,kbj->...ab", d.D, xx, d.D)


def command_noise(d: Deviations, uu: Tensor) -> Tensor:
    """sum_i C_i E[u u'] C_i', (..., state, state)."""
    return torch.einsum("kai,...ij,kbj->...ab", d.C, uu, d.C)


def _to_horizon(d: Deviations, K: Tensor, L: Tensor | None, n_steps: int) -> float:
    n, M, total = len(d.A), first_moments(d), 0.0
    for k in range(n_steps):
        gain = K[k] if K.ndim == 3 else K
        if L is None:
            P = M[:n, :n].repeat(2, 2)
        else:
            P = after_reading(d, M, L[k] if L.ndim == 3 else L)
        total += float(stage_cost(d, P, gain))
        M = one_step_later(d, P, gain)
    return total + float((d.final * M[:n, :n]).sum())


def _estimated_map(d: Deviations, K: Tensor, L: Tensor) -> float:
    """The fixed point of two linear maps of M, whose matrix is found by asking them."""
    n = 2 * len(d.A)
    if not len(d.C) and not len(d.D):
        eye, BK = torch.eye(len(d.A), dtype=d.A.dtype), d.B @ K
        T = torch.cat([torch.cat([eye, 0 * eye], 1), torch.cat([L @ d.H, eye - L @ d.H], 1)])
        G = torch.cat([torch.cat([d.A, -BK], 1), torch.cat([0 * d.A, d.A - BK], 1)])
        if float(torch.linalg.eigvals(G @ T).abs().max()) >= 1:
            return math.inf
        zero = torch.zeros(n, n, dtype=d.A.dtype)
        W = one_step_later(d, after_reading(d, zero, L), K)
        M = lyapunov((G @ T).T, W, True)
        return float(stage_cost(d, after_reading(d, M, L), K))
    units = torch.eye(n * n, dtype=d.A.dtype).reshape(n * n, n, n)
    constant = one_step_later(d, after_reading(d, 0 * units[0], L), K)
    moves = one_step_later(d, after_reading(d, units, L), K) - constant
    matrix = moves.reshape(n * n, n * n).T
    if float(torch.linalg.eigvals(matrix).abs().max()) >= 1:
        return math.inf
    M = torch.linalg.solve(torch.eye(n * n, dtype=d.A.dtype) - matrix, constant.reshape(-1))
    return float(stage_cost(d, after_reading(d, M.reshape(n, n), L), K))


def _estimated_flow(d: Deviations, K: Tensor, L: Tensor) -> float:
    zero, BK, LH = 0 * d.A, d.B @ K, L @ d.H
    closed = torch.cat([torch.cat([d.A, -BK], 1), torch.cat([LH, d.A - BK - LH], 1)])
    W = torch.block_diag(d.W, L @ d.V @ L.T)
    noise = [torch.cat([torch.cat([zero, -one @ K], 1), torch.cat([zero, zero], 1)]) for one in d.C]
    noise += [torch.cat([torch.cat([zero, zero], 1), torch.cat([L @ D, zero], 1)]) for D in d.D]
    factors = torch.stack(noise) if noise else closed.new_zeros(0, *closed.shape)
    return _long_run(closed, factors, W, torch.block_diag(d.Q, K.T @ d.R @ K), False)


def _long_run(A: Tensor, F: Tensor, W: Tensor, cost: Tensor, is_map: bool) -> float:
    """tr(cost M) where M = A M A' + sum_i F_i M F_i' + W of a map, likewise of a flow."""
    eye = torch.eye(len(A), dtype=A.dtype)
    moves = A
    if len(F):
        moves = sum(torch.kron(one, one) for one in F)
        moves = moves + (torch.kron(A, A) if is_map else torch.kron(A, eye) + torch.kron(eye, A))
    values = torch.linalg.eigvals(moves)
    if (values.abs().max() >= 1) if is_map else (values.real.max() >= 0):
        return math.inf
    if len(F):
        left = torch.eye(len(moves), dtype=A.dtype) - moves if is_map else -moves
        M = torch.linalg.solve(left, W.reshape(-1)).reshape(W.shape)
    elif is_map:
        M = lyapunov(A.T, W, True)
    else:  # by Schur forms: doubling loses digits where plant and estimate all but cancel
        M = torch.from_numpy(scipy.linalg.solve_continuous_lyapunov(A.numpy(), -W.numpy()))
    return float((cost * M).sum())


def _check_shapes(d: Deviations, K: Tensor, L: Tensor | None) -> None:
    m, n, p = len(d.R), len(d.A), len(d.H)
    if K.shape[-2:] != (m, n) or (L is not None and L.shape[-2:] != (n, p)):
        raise ArgumentError(
            f"a gain is (input, state) = {(m, n)}, a filter gain (state, sensor) = {(n, p)}"
        )
