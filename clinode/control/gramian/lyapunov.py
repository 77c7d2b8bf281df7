"""Lyapunov equations, solved with the error of the answer, and differentiable.

By the routine of SLICOT that python-control's `gram` calls, which is asked for its error bound too:
a small residual says little about W where A is far from normal.
"""

import math
import warnings
from typing import Any, NoReturn

import slycot
import torch
from slycot.exceptions import SlycotArithmeticError, SlycotResultWarning
from torch import Tensor

from clinode.errors import SolverError

MOST_ERROR = 1e-6  # of a Gramian, relative to its norm
EIGENVALUE_ERROR = 16.0  # eps |A|; at most 8.4 seen in LAPACK's residuals of symmetric matrices
FAR_FROM_NORMAL = "A is far from normal"


def solve_lyapunov(A: Tensor, Q: Tensor, *, is_map: bool) -> Tensor:
    """W with A W + W A' = -Q, of a map A W A' - W = -Q, over batch axes; A is stable.

    Raises:
        SolverError: Rounding could change it by more than `MOST_ERROR` of its norm.
    """
    if not Q.numel():
        return Q
    A, members = A.expand(Q.shape).reshape(-1, *Q.shape[-2:]), Q.reshape(-1, *Q.shape[-2:])
    solved = [_Lyapunov.apply(a, q, is_map) for a, q in zip(A, members, strict=True)]
    return torch.stack(solved).reshape(Q.shape)  # pyright: ignore[reportArgumentType]


def check_rates(rates: Tensor, horizon: float, *, is_map: bool = False) -> None:
    """Refuse a symmetric A, of these eigenvalues, whose slowest mode is not known.

    An eigenvalue is known to a few eps |A|, and the Gramian of its mode changes by no more than
    min(2 T, 1 / rate) times that, relative; of a map over an infinite horizon, 1 / (1 - |w|) times.

    Raises:
        SolverError: Rounding could change a mode by more than `MOST_ERROR` of its size.
    """
    if not rates.numel():
        return
    rates = rates.detach()
    size = rates.abs().amax(-1)
    reach = 1 / (1 - size) if is_map else (-1 / rates.amax(-1))
    longest = torch.where(reach > 0, reach.clamp(max=2 * horizon), 2 * horizon)
    error = float((EIGENVALUE_ERROR * torch.finfo(torch.float64).eps * size * longest).max())
    if not error <= MOST_ERROR:
        refuse_rounding(
            error, "its slowest mode is too slow beside its fastest", "ask for a shorter one"
        )


def refuse_rounding(error: float, why: str, fix: str) -> NoReturn:
    """Raise SolverError: there is a Gramian, but double precision does not know it."""
    size = f"by {error:.0e} of its size" if math.isfinite(error) else "without bound"
    raise SolverError(
        f"rounding of A may move the Gramian over this horizon {size}: {why}",
        fix=f"{fix}, or control_energy, which goes on in ball arithmetic",
    )


class _Lyapunov(torch.autograd.Function):
    """One Lyapunov equation; its gradient is one more of them, with A'."""

    @staticmethod
    def forward(ctx, A: Tensor, Q: Tensor, is_map: bool) -> Tensor:
        W = _solve(A.detach(), Q.detach(), is_map=is_map)
        ctx.save_for_backward(A, W)
        ctx.is_map = is_map
        return W

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        A, W = ctx.saved_tensors
        S: Any = _Lyapunov.apply(A.mT, (gradient + gradient.mT) / 2, ctx.is_map)
        return 2 * S @ A @ W if ctx.is_map else 2 * S @ W, S, None


def _solve(A: Tensor, Q: Tensor, *, is_map: bool) -> Tensor:
    if torch.equal(A, A.mT):
        values, vectors = torch.linalg.eigh(A)
        check_rates(values, math.inf, is_map=is_map)
        pairs = values[:, None] * values - 1 if is_map else values[:, None] + values
        return vectors @ ((vectors.mT @ Q @ vectors) / -pairs) @ vectors.mT
    W, error = _bartels_stewart(A, Q, is_map=is_map)
    if not error <= MOST_ERROR:
        refuse_rounding(error, FAR_FROM_NORMAL, "ask for a finite one")
    return W


def _bartels_stewart(A: Tensor, Q: Tensor, *, is_map: bool) -> tuple[Tensor, float]:
    """W and a bound of its relative error, infinite where it is not even computed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlycotResultWarning)
        try:
            *_, solved, scale, _, error, _ = slycot.sb03md57(
                A.cpu().numpy(),
                C=-Q.cpu().numpy(),
                dico="D" if is_map else "C",
                job="B",
                trana="T",
            )
        except (SlycotResultWarning, SlycotArithmeticError):
            return torch.full_like(A, math.nan), math.inf
    return torch.as_tensor(solved / scale, dtype=A.dtype).to(A.device), float(error)
