"""Riccati equations: endless, to a horizon in steps, and to a horizon in continuous time.

    P = Q + A' P (A - B K),  K = (R + B' P B + sum_i C_i' P C_i)^-1 B' P A                 (a map)
    -dP/dt = Q + A' P + P (A - B K),  K = (R + sum_i C_i' P C_i)^-1 B' P                   (a flow)

C_i are factors of control-dependent noise (Wonham 1967; McLane 1971, IEEE Trans. Autom. Control
16:793-798): it makes the gain more cautious. A filter solves the same equations for A', H', W, V.

The endless equations are solved by python-control, then by one Newton step (Kleinman 1968, IEEE
Trans. Autom. Control 13:114-115), which rids the solution of rounding and, as P is stationary in
K, carries exact gradients to A, B, Q and R. A residual that is too large is an error.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from clinode.errors import ArgumentError, SolverError

LARGEST_RESIDUAL = 1e-9  # relative, of an endless equation
MOST_DOUBLINGS = 60
MOST_ROUNDS = 1000  # of control-dependent noise
NEVER = 1e8  # times the P without noise, at which noise counts as too strong


def stationary(
    A: Tensor, B: Tensor, Q: Tensor, R: Tensor, is_map: bool, C: Tensor | None = None
) -> Tensor:
    """The stabilizing solution P of the endless equation, (state, state).

    Args:
        A: (state, state).
        B: (state, input).
        Q: (state, state), positive semidefinite.
        R: (input, input), positive definite.
        is_map: Which equation.
        C: Factors of control-dependent noise, (source, state, input), or None.

    Raises:
        ArgumentError: R is singular.
        SolverError: No solution was found, the residual is too large, or the noise that grows with
            the control is so strong that no gain has a finite cost.
    """
    _check_definite(R)
    if C is None or not len(C):
        return _refined(A, B, Q, R, C, _solved(A, B, Q, R, is_map), is_map)
    P = _solved(A, B, Q, R, is_map)
    first = float(P.norm()) + 1e-300
    for _ in range(MOST_ROUNDS):
        before, P = P, _solved(A, B, Q, R.detach() + dependent(C, P), is_map)
        growth = float((P - before).norm())
        if not float(P.norm()) < NEVER * first:
            break
        if growth <= 1e-13 * float(P.norm()):
            return _refined(A, B, Q, R, C, P, is_map)
    raise SolverError(
        "the noise that grows with the control is at or beyond the strength at which no gain has a "
        f"finite cost: after {MOST_ROUNDS} rounds P still grows",
        fix="less control_dependent_noise, a system that is less unstable, or a horizon",
    )


def gain_of(A: Tensor, B: Tensor, R: Tensor, P: Tensor, is_map: bool, C: Tensor | None) -> Tensor:
    """K, (input, state), from the cost to go P of the next moment."""
    weight = R if C is None else R + dependent(C, P)
    if is_map:
        return torch.linalg.solve(weight + B.T @ P @ B, B.T @ P @ A)
    return torch.linalg.solve(weight, B.T @ P)


def recursion(
    A: Tensor, B: Tensor, Q: Tensor, R: Tensor, final: Tensor, n_steps: int, C: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """P (step + 1, state, state) and K (step, input, state) of a map, backward from the end.

    Raises:
        ArgumentError: A gain is undefined: where the cost to go does not see an input, R must.
    """
    costs, gains = [final], []
    for _ in range(n_steps):
        P = costs[-1]
        try:
            K = gain_of(A, B, R, P, True, C)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise ArgumentError(
                "neither input_cost nor the cost to come weighs some input", fix="give it a weight"
            ) from error
        costs.append(symmetric(Q + A.T @ P @ (A - B @ K)))
        gains.append(K)
    return torch.stack(costs[::-1]), torch.stack(gains[::-1])


def flow_back(A: Tensor, B: Tensor, Q: Tensor, R: Tensor, final: Tensor, times: Tensor) -> Tensor:
    """P at each of the increasing times, of a flow; `final` is P at the last.

    Exact at the times: between them [X, Y] with P = Y X^-1 moves by an exponential of the
    Hamiltonian matrix (Davison & Maki 1973, IEEE Trans. Autom. Control 18:71-73).
    """
    n = len(A)
    _check_definite(R)
    H = torch.cat([torch.cat([A, -B @ torch.linalg.solve(R, B.T)], 1), torch.cat([-Q, -A.T], 1)])
    widths = times[1:] - times[:-1]
    distinct, which = torch.unique((widths / widths.max()).mul(1e12).round(), return_inverse=True)
    moves = torch.linalg.matrix_exp(-H * (distinct * 1e-12 * widths.max())[:, None, None])
    P, path = final, [final]
    for k in reversed(range(len(widths))):
        E = moves[which[k]]
        X, Y = E[:n, :n] + E[:n, n:] @ P, E[n:, :n] + E[n:, n:] @ P
        P = symmetric(torch.linalg.solve(X.T, Y.T).T)
        path.append(P)
    return torch.stack(path[::-1])


def flow_rate(A: Tensor, B: Tensor, Q: Tensor, R: Tensor, P: Tensor) -> Tensor:
    """dP/dt of a flow's equation, for any number of P, (..., state, state)."""
    return -(Q + A.T @ P + P @ A - P @ B @ torch.linalg.solve(R, B.T) @ P)


def lyapunov(A: Tensor, Q: Tensor, is_map: bool) -> Tensor:
    """P = Q + A' P A of a map, 0 = Q + A' P + P A of a flow; A must be stable. Differentiable.

    By doubling: sum_k A'^k Q A^k; a flow is first mapped by (h - A)^-1 (h + A), which has the same
    solution (Smith 1968, SIAM J. Appl. Math. 16:198-201).

    Raises:
        SolverError: A is not stable, or hardly.
    """
    if not is_map:
        eye = torch.eye(len(A), dtype=A.dtype)
        h = torch.linalg.matrix_norm(A.detach(), 2).clamp(min=1e-300)
        inverse = torch.linalg.inv(h * eye - A)
        A, Q = inverse @ (h * eye + A), 2 * h * inverse.T @ Q @ inverse
    P = Q
    for _ in range(MOST_DOUBLINGS):
        more = A.T @ P @ A
        P, A = P + more, A @ A
        if not bool(P.isfinite().all()):
            break
        if bool(more.detach().norm() <= 1e-17 * P.detach().norm()):
            return symmetric(P)
    raise SolverError("a Lyapunov equation has no finite solution: the closed loop is not stable")


def dependent(C: Tensor, P: Tensor) -> Tensor:
    """sum_i C_i' P C_i: what control-dependent noise costs, (input, input)."""
    return symmetric(torch.einsum("kai,ab,kbj->ij", C, P, C))


def symmetric(M: Tensor) -> Tensor:
    """(M + M') / 2."""
    return (M + M.mT) / 2


def _solved(A: Tensor, B: Tensor, Q: Tensor, R: Tensor, is_map: bool) -> Tensor:
    """By python-control."""
    import control  # takes seconds
    from slycot.exceptions import SlycotError

    solve = control.dare if is_map else control.care
    a, b, q, r = (matrix.detach().numpy() for matrix in (A, B, Q, R))
    try:
        P, _, _ = solve(a, b, q, r)
    except (SlycotError, np.linalg.LinAlgError, control.ControlArgument) as error:
        raise SolverError(
            f"the Riccati equation has no stabilizing solution in float64: {error}",
            fix="look at controllability and observability, and scale states and inputs alike",
        ) from error
    return symmetric(torch.as_tensor(np.asarray(P), dtype=torch.float64))


def _refined(
    A: Tensor, B: Tensor, Q: Tensor, R: Tensor, C: Tensor | None, P: Tensor, is_map: bool
) -> Tensor:
    """One Newton step from P, with gradients; checked by the residual."""
    K = gain_of(A, B, R, P, is_map, C).detach()
    closed, cost = A - B @ K, Q + K.T @ R @ K
    if C is None or not len(C):
        P = lyapunov(closed, cost, is_map)
    else:
        P = _noisy_lyapunov(closed, cost, C @ K, is_map)
    with torch.no_grad():
        closed = A - B @ gain_of(A, B, R, P, is_map, C)
        terms = [Q, A.T @ P @ closed, -P] if is_map else [Q, A.T @ P, P @ closed]
        size = sum(float(term.norm()) for term in terms)
        residual = float(functools.reduce(torch.add, terms).norm())
    if not residual <= LARGEST_RESIDUAL * size:
        raise SolverError(
            f"the Riccati equation is left with a relative residual of {residual / size:.2g}",
            fix="scale states and inputs alike; weights many orders apart cost digits",
        )
    return P


def _noisy_lyapunov(A: Tensor, Q: Tensor, F: Tensor, is_map: bool) -> Tensor:
    """P = Q + A' P A + sum_i F_i' P F_i, of a flow 0 = Q + A' P + P A + sum_i F_i' P F_i."""
    n = len(A)
    eye = torch.eye(n, dtype=A.dtype)
    turned = sum(torch.kron(one.T.contiguous(), one.T.contiguous()) for one in F)
    if is_map:
        turned = turned + torch.kron(A.T.contiguous(), A.T.contiguous()) - torch.eye(n * n).double()
    else:
        turned = turned + torch.kron(eye, A.T.contiguous()) + torch.kron(A.T.contiguous(), eye)
    return symmetric(torch.linalg.solve(turned, -Q.reshape(-1)).reshape(n, n))


def _check_definite(R: Tensor) -> None:
    lowest, highest = torch.linalg.eigvalsh(R.detach())[[0, -1]]
    if float(lowest) <= 1e-14 * float(highest) or float(highest) <= 0:
        raise ArgumentError(
            "input_cost (of a filter: sensor_noise) must be positive definite here: some input is "
            "free, or some reading exact",
            fix="give it a small weight or noise",
        )
