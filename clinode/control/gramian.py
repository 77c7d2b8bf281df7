"""Gramians of linear systems: what inputs reach, and what outputs show, over a horizon.

Continuous time, dx/dt = A x + B u, unless a `step` says that A and B are a map. Everything here is
float64, takes batch axes before the matrices, and is differentiable in A, B and C. How well a
Gramian can be inverted is another question: see the energies of `clinode.control`. Networks too
large for dense matrices: `clinode.control.sparse`.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

TERMS = 18  # of the series over a step with 2 |A| h <= 1, whose next one is 1 / 19! = 8e-18


def controllability_gramian(
    A: Values, B: Values, horizon: float | int, *, step: float | int | None = None
) -> Float[Tensor, "... state state"]:
    """W = int_0^T exp(A s) B B' exp(A' s) ds, or the sum of A^k B B' A'^k over the steps up to T.

    Finite horizon, symmetric A: in the eigenvectors of A, each entry times
    expm1((w_j + w_k) T) / (w_j + w_k). Any other A: the Taylor series of the integral over a short
    step, then doubling, W(2t) = W(t) + exp(A t) W(t) exp(A' t), which adds what is never negative;
    the block exponential of Van Loan 1978 (IEEE Trans. Autom. Control 23:395-404) gives the same at
    eight times the cost. Infinite horizon: the Lyapunov equation A W + W A' = -B B' by
    python-control. Maps: doubling (Smith 1968, SIAM J. Appl. Math. 16:198-201) for both.

    Args:
        A: (..., state, state), per time unit; per step where `step` is given.
        B: (..., state, input).
        horizon: T, positive, in time units; math.inf for a stable A.
        step: Time between two states of a map, in time units: T is a whole number of them, and
            u(0), ..., u(T / step - 1) count (nctpy 1.2 counts one more). None: continuous time.

    Returns:
        W, symmetric; positive definite exactly when (A, B) is controllable.

    Raises:
        ArgumentError: Matrices that do not fit each other or are not finite, a horizon that is not
            positive or no whole number of steps, an infinite one where A is not stable.
        SolverError: The horizon is so long that W of an unstable A overflows, or the Lyapunov
            equation is too close to singular.

    Example:
        >>> controllability_gramian(torch.tensor([[-1.0]]), torch.tensor([[1.0]]), horizon=1.0)
        tensor([[0.4323]], dtype=torch.float64)
    """
    return _gramian(*_matrices(A, B, "B"), checked_horizon(horizon), step)


def observability_gramian(
    A: Values, C: Values, horizon: float | int, *, step: float | int | None = None
) -> Float[Tensor, "... state state"]:
    """M = int_0^T exp(A' s) C' C exp(A s) ds, or the sum of A'^k C' C A^k over the steps up to T.

    The controllability Gramian of the dual system (A', C'); see `controllability_gramian`. x0' M x0
    is the energy of the outputs that an initial state x0 leaves to itself.

    Args:
        A: (..., state, state), per time unit; per step where `step` is given.
        C: (..., output, state).
        horizon: T, positive, in time units; math.inf for a stable A.
        step: Time between two states of a map; None: continuous time.

    Returns:
        M, symmetric; positive definite exactly when (A, C) is observable.

    Raises:
        ArgumentError: As `controllability_gramian`.
        SolverError: Likewise.

    Example:
        >>> observability_gramian([[0.5]], [[1.0]], horizon=math.inf, step=1.0)
        tensor([[1.3333]], dtype=torch.float64)
    """
    A_, C_ = _float64(A, "A"), _float64(C, "C")
    return _gramian(*_matrices(A_.mT, C_.mT, "C'"), checked_horizon(horizon), step)


def check_stable(
    A: Float[Tensor, "... state state"],
    *,
    is_map: bool = False,
    what: str = "an infinite horizon",
    fix: str = "ask for a finite horizon",
) -> None:
    """Refuse what has no infinite-horizon Gramian, naming the eigenvalue.

    One that rounding cannot tell from the boundary counts as not stable.

    Args:
        A: (..., state, state).
        is_map: Whether it is a map, whose eigenvalues must lie inside the unit circle.
        what: What needs it stable.
        fix: What to do.

    Raises:
        ArgumentError: An eigenvalue of A with a real part (of a map, a modulus) that is too large.
    """
    A = A.detach()
    solve = torch.linalg.eigvalsh if torch.equal(A, A.mT) else torch.linalg.eigvals
    check_eigenvalues(solve(A), torch.linalg.matrix_norm(A), is_map=is_map, what=what, fix=fix)


def check_eigenvalues(
    eigenvalues: Tensor,
    size: Tensor,
    *,
    is_map: bool = False,
    what: str = "an infinite horizon",
    fix: str = "ask for a finite horizon",
) -> None:
    """The same from eigenvalues (..., state) and a norm (...) of A.

    Raises:
        ArgumentError: One with a real part (of a map, a modulus) that is too large.
    """
    if not eigenvalues.numel():
        return
    values = eigenvalues.detach().to(torch.complex128)
    rounding = values.shape[-1] * torch.finfo(torch.float64).eps * size.detach()[..., None]
    excess = (values.abs() - 1 if is_map else values.real) + rounding
    if (excess < 0).all():
        return
    worst = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    value = complex(values[worst])
    name = f"{value.real:.6g}" if value.imag == 0 else f"{value.real:.6g}{value.imag:+.6g}i"
    limit = "a modulus below 1" if is_map else "a negative real part"
    raise ArgumentError(
        f"{what} needs a stable A, and A has the eigenvalue {name}, which has not {limit} beyond "
        "rounding",
        where=f"member {worst[:-1]}" if len(worst) > 1 else "",
        fix=fix,
    )


def expm1_ratio(rate: Tensor, horizon: float) -> Tensor:
    """expm1(r T) / r, T at r = 0: the integral of exp(r s) from 0 to T; -1 / r at T = inf."""
    if math.isinf(horizon):
        return -1 / rate
    safe = torch.where(rate == 0, 1.0, rate)
    return torch.where(rate == 0, horizon, torch.expm1(safe * horizon) / safe)


def check_step(step: float | int) -> None:
    """Raise ArgumentError where the time between two states is not positive and finite."""
    if not (math.isfinite(step) and step > 0):
        raise ArgumentError(f"step must be positive and finite, got {step}")


def count_steps(horizon: float, step: float | int) -> int:
    """How many steps a finite horizon has.

    Raises:
        ArgumentError: The step is not positive, or the horizon no whole number of steps.
    """
    check_step(step)
    n = round(horizon / step)
    if n < 1 or abs(horizon / step - n) > 1e-9 * n:
        raise ArgumentError(
            f"a horizon of {horizon:g} is no whole number of steps of {step:g}",
            fix=f"{max(n, 1) * step:g} is",
        )
    return n


def _gramian(A: Tensor, B: Tensor, horizon: float, step: float | int | None) -> Tensor:
    Q = (B @ B.mT).expand(torch.broadcast_shapes(A.shape, (*B.shape[:-1], A.shape[-1])))
    if step is not None:
        check_step(step)
        W = _of_map(A, Q, None if math.isinf(horizon) else count_steps(horizon, step))
    elif math.isinf(horizon):
        check_stable(A)
        W = _lyapunov(A, Q)
    elif torch.equal(A, A.mT) and not A.requires_grad:
        W = _in_eigenvectors(A, Q, horizon)
    else:
        W = _by_doubling(A, Q, horizon)
    if not W.isfinite().all():
        _refuse_overflow(A, horizon, is_map=step is not None)
    return (W + W.mT) / 2


def _in_eigenvectors(A: Tensor, Q: Tensor, horizon: float) -> Tensor:
    values, vectors = torch.linalg.eigh(A)
    weight = expm1_ratio(values[..., :, None] + values[..., None, :], horizon)
    return vectors @ ((vectors.mT @ Q @ vectors) * weight) @ vectors.mT


def _by_doubling(A: Tensor, Q: Tensor, horizon: float) -> Tensor:
    size = _norm_bound(A.detach())
    doublings = max(0, math.ceil(1 + math.log2(size) + math.log2(horizon))) if size > 0 else 0
    h = math.ldexp(horizon, -doublings)
    term = h * Q
    W = term
    for k in range(2, TERMS + 1):
        half = A @ term
        term = (h / k) * (half + half.mT)
        W = W + term
    E = torch.linalg.matrix_exp(A * h)
    for k in range(doublings):
        W = W + E @ W @ E.mT
        if k < doublings - 1:
            E = E @ E
    return W


def _norm_bound(A: Tensor) -> float:
    """No less than the spectral norm of any member."""
    sums = torch.linalg.matrix_norm(A, 1) * torch.linalg.matrix_norm(A, math.inf)
    bound = torch.minimum(sums.sqrt(), torch.linalg.matrix_norm(A))
    return float(bound.max()) if bound.numel() else 0.0


def _of_map(A: Tensor, Q: Tensor, n_steps: int | None) -> Tensor:
    """Sum of A^k Q A'^k over n_steps terms by doubling; over all of them where it is None."""
    W, E = Q, A
    if n_steps is not None:
        for bit in bin(n_steps)[3:]:  # the leading one is k = 0
            W, E = W + E @ W @ E.mT, E @ E
            if bit == "1":
                W, E = Q + A @ W @ A.mT, A @ E
        return W
    check_stable(A, is_map=True)
    for _ in range(64):  # 2^64 terms: beyond what an eigenvalue below 1 - 1e-16 can leave
        W, E = W + E @ W @ E.mT, E @ E
        size = float(torch.linalg.matrix_norm(E.detach()).max()) if E.numel() else 0.0
        if size**2 <= 1e-17:  # what is left out is at most size^2 |W|
            return W
    raise SolverError(
        "the sum over all steps does not settle: A is stable but far from normal",
        fix="ask for a finite horizon",
    )


def _lyapunov(A: Tensor, Q: Tensor) -> Tensor:
    """W with A W + W A' = -Q, over batch axes."""
    if not Q.numel():
        return Q
    A, members = A.expand(Q.shape).reshape(-1, *Q.shape[-2:]), Q.reshape(-1, *Q.shape[-2:])
    solved = [_Lyapunov.apply(a, q) for a, q in zip(A, members, strict=True)]
    return torch.stack(solved).reshape(Q.shape)  # pyright: ignore[reportArgumentType]


class _Lyapunov(torch.autograd.Function):
    """One Lyapunov equation; its gradient is one more of them, with A'."""

    @staticmethod
    def forward(ctx, A: Tensor, Q: Tensor) -> Tensor:
        W = _solve_lyapunov(A.detach(), Q.detach())
        ctx.save_for_backward(A, W)
        return W

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        A, W = ctx.saved_tensors
        S = _Lyapunov.apply(A.mT, (gradient + gradient.mT) / 2)
        return 2 * S @ W, S  # pyright: ignore[reportReturnType]


def _solve_lyapunov(A: Tensor, Q: Tensor) -> Tensor:
    if torch.equal(A, A.mT):
        return _in_eigenvectors(A, Q, math.inf)
    import control  # takes seconds to import

    solved = control.lyap(A.cpu().numpy(), Q.cpu().numpy())
    W = torch.as_tensor(np.asarray(solved), dtype=A.dtype).to(A.device)
    residual = float((A @ W + W @ A.mT + Q).norm())
    size = float(2 * A.norm() * W.norm() + Q.norm())
    if not residual <= 1e-10 * size:
        raise SolverError(
            f"the Lyapunov equation of A was solved to a residual of {residual:.1e} only, where "
            f"its terms have size {size:.1e}",
            fix="ask for a finite horizon",
        )
    return W


def _refuse_overflow(A: Tensor, horizon: float, *, is_map: bool) -> None:
    eigenvalues = torch.linalg.eigvals(A.detach())
    if is_map:
        growth, how = float(eigenvalues.abs().max()), "modulus"
        rate = math.log(growth) if growth > 1 else 0.0
    else:
        rate = growth = float(eigenvalues.real.max())
        how = "real part"
    longest = f", below {300 / rate:.3g} to be safe" if rate > 0 else ""
    raise SolverError(
        f"the Gramian over a horizon of {horizon:g} exceeds 1e308: A has an eigenvalue of {how} "
        f"{growth:.6g}",
        fix=f"ask for a shorter horizon{longest}",
    )


def _float64(matrix: Values, name: str) -> Tensor:
    """As a tensor in float64 with at least two axes, all finite."""
    made = matrix if isinstance(matrix, Tensor) else torch.from_numpy(np.array(matrix))
    if made.is_complex():
        raise ArgumentError(f"{name} must be real, got complex numbers")
    made = made.to(torch.float64)
    if made.ndim < 2:
        raise ArgumentError(f"{name} has shape {tuple(made.shape)}, expected a matrix")
    if not made.isfinite().all():
        raise ArgumentError(f"{name} has entries that are not finite")
    return made


def _matrices(A: Values, B: Values, name: str) -> tuple[Tensor, Tensor]:
    A, B = _float64(A, "A"), _float64(B, name)
    if A.shape[-1] != A.shape[-2]:
        raise ArgumentError(f"A has shape {tuple(A.shape)}, expected a square matrix")
    if B.shape[-2] != A.shape[-1]:
        raise ArgumentError(
            f"{name} has shape {tuple(B.shape)}, expected {A.shape[-1]} rows, one for each state"
        )
    return A, B


def checked_horizon(horizon: float | int) -> float:
    """As a float; raises ArgumentError where it is not positive."""
    if not horizon > 0:
        raise ArgumentError(
            f"horizon must be positive, got {horizon}", fix="in time units; math.inf for ever"
        )
    return float(horizon)
