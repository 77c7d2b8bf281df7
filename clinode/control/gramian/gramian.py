"""Gramians of linear systems: what inputs reach, and what outputs show, over a horizon.

Continuous time, dx/dt = A x + B u, unless a `step` says that A and B are a map. Everything here is
float64, takes batch axes before the matrices, and is differentiable in A, B and C. How well a
Gramian can be inverted is another question: see the energies of `clinode.control`. Networks too
large for dense matrices: `clinode.control.gramian.sparse`.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError, SolverError
from clinode.system import Values

from .doubling import gramian_of_flow, gramian_of_map
from .lyapunov import FAR_FROM_NORMAL, check_rates, refuse_rounding, solve_lyapunov


def controllability_gramian(
    A: Values, B: Values, horizon: float | int, *, step: float | int | None = None
) -> Float[Tensor, "... state state"]:
    """W = int_0^T exp(A s) B B' exp(A' s) ds, or the sum of A^k B B' A'^k over the steps up to T.

    Finite horizon, symmetric A: in the eigenvectors of A, each entry times
    expm1((w_j + w_k) T) / (w_j + w_k). Any other A: the Taylor series of the integral over a short
    step, then doubling, W(2t) = W(t) + exp(A t) W(t) exp(A' t), which adds what is never negative;
    the block exponential of Van Loan 1978 (IEEE Trans. Autom. Control 23:395-404) gives the same at
    eight times the cost. Maps: doubling. Infinite horizon: the equation A W + W A' = -B B' (of a
    map, A W A' - W = -B B') by the routine of SLICOT that python-control's `gram` calls, asked for
    the error of its answer too.

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
        SolverError: The horizon is so long that W of an unstable A overflows; or rounding could
            change W by more than 1e-6 of its norm, where A is far from normal or has modes of very
            different speed.

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


REAL = "fiub"  # kinds of NumPy's dtypes


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
    if math.isinf(horizon):
        check_stable(A, is_map=step is not None)
        W = solve_lyapunov(A, Q, is_map=step is not None)
    elif step is not None:
        W = gramian_of_map(A, Q, count_steps(horizon, step))
    elif torch.equal(A, A.mT) and not A.requires_grad:
        W = _in_eigenvectors(A, Q, horizon)
    else:
        W = gramian_of_flow(A, Q, horizon)
    if not W.isfinite().all():
        _refuse_overflow(A, horizon, is_map=step is not None)
    return (W + W.mT) / 2


def _in_eigenvectors(A: Tensor, Q: Tensor, horizon: float) -> Tensor:
    values, vectors = torch.linalg.eigh(A)
    check_rates(values, horizon)
    weight = expm1_ratio(values[..., :, None] + values[..., None, :], horizon)
    return vectors @ ((vectors.mT @ Q @ vectors) * weight) @ vectors.mT


def _refuse_overflow(A: Tensor, horizon: float, *, is_map: bool) -> None:
    eigenvalues = torch.linalg.eigvals(A.detach())
    if is_map:
        growth, how = float(eigenvalues.abs().max()), "modulus"
        rate = math.log(growth) if growth > 1 else 0.0
    else:
        rate = growth = float(eigenvalues.real.max())
        how = "real part"
    if not rate > 0:  # W itself would be small
        refuse_rounding(math.inf, FAR_FROM_NORMAL, "ask for a shorter one")
    raise SolverError(
        f"the Gramian over a horizon of {horizon:g} exceeds 1e308: A has an eigenvalue of {how} "
        f"{growth:.6g}",
        fix=f"ask for a shorter horizon, below {300 / rate:.3g} to be safe",
    )


def _float64(matrix: Values, name: str) -> Tensor:
    """As a tensor in float64 with at least two axes, all finite."""
    made = real_numbers(matrix, name)
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


def real_numbers(values: Values, name: str) -> Tensor:
    """As a dense tensor in float64.

    Raises:
        ArgumentError: No rectangle of real numbers.
    """
    if isinstance(values, Tensor):
        made = values if values.layout == torch.strided else values.to_dense()
        if made.is_complex():
            raise ArgumentError(f"{name} must be real, got complex numbers")
        return made.to(torch.float64)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ArgumentError(f"{name} must be numbers in rows of equal length") from error
    if array.dtype.kind not in REAL:
        told = "complex numbers" if array.dtype.kind == "c" else type(values).__name__
        raise ArgumentError(
            f"{name} must be real numbers, got {told}",
            fix="a tensor, an array or rows of floats; of a sparse matrix, .toarray()",
        )
    return torch.from_numpy(array.astype(np.float64, order="C"))


def checked_horizon(horizon: float | int) -> float:
    """As a float; raises ArgumentError where it is not one positive number."""
    try:
        T = math.nan if isinstance(horizon, str) else float(horizon)
    except (TypeError, ValueError, OverflowError):
        T = math.nan
    if not T > 0:
        raise ArgumentError(
            f"horizon must be positive, got {horizon!s:.40}", fix="in time units; math.inf for ever"
        )
    return T
