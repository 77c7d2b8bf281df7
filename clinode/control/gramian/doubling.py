"""Gramians over finite horizons by doubling, unless rounding makes them.

W(2 t) = W(t) + E(t) W(t) E(t)' and E(2 t) = E(t) E(t), with E = exp(A t) or A^k, add what is never
negative, so W keeps its digits where A is near normal. Where it is not, E grows before it decays,
and rounding with it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .lyapunov import FAR_FROM_NORMAL, MOST_ERROR, refuse_rounding

TERMS = 18  # of the series over a step with 2 |A| h <= 1, whose next one is 1 / 19! = 8e-18
TINY = torch.finfo(torch.float64).tiny
Route = Callable[[Tensor, Tensor], tuple[Tensor, float]]


def gramian_of_flow(A: Tensor, Q: Tensor, horizon: float) -> Tensor:
    """int_0^T exp(A s) Q exp(A' s) ds; what overflows is not finite.

    Raises:
        SolverError: Rounding could change it by more than `MOST_ERROR` of its norm.
    """
    return _certain(lambda a, q: _by_doubling(a, q, horizon), A, Q)


def gramian_of_map(A: Tensor, Q: Tensor, n_steps: int) -> Tensor:
    """Sum of A^k Q A'^k over n_steps terms; what overflows is not finite.

    Raises:
        SolverError: Rounding could change it by more than `MOST_ERROR` of its norm.
    """
    return _certain(lambda a, q: _of_map(a, q, n_steps), A, Q)


def _certain(route: Route, A: Tensor, Q: Tensor) -> Tensor:
    """What a route answers, unless rounding makes it.

    Its own bound is cheap and wide. Where that is no proof, A changed by rounding must give the
    same.
    """
    W, bound = route(A, Q)
    if bound <= MOST_ERROR or not W.isfinite().all():
        return W
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        noise = 2 * torch.rand(A.shape, generator=generator, dtype=A.dtype) - 1
        moved, _ = route(A * (1 + torch.finfo(A.dtype).eps * noise.to(A.device)), Q)
        apart = torch.linalg.matrix_norm(moved - W)
        error = 10 * float((apart / torch.linalg.matrix_norm(W).clamp(min=TINY)).max())
    if not error <= MOST_ERROR:
        refuse_rounding(error, FAR_FROM_NORMAL, "ask for a shorter one")
    return W


class _Doubling:
    """W(t) and E(t) to W(2 t) and E(2 t), with a bound of their rounding."""

    def __init__(self, W: Tensor, E: Tensor, error: float):
        self.W, self.E = W, E
        self.rounding = 2 * torch.finfo(torch.float64).eps * math.sqrt(E.shape[-1])
        self.W_error = error * _frobenius(W)
        self.E_error = error * _norm_bound(E)

    def double(self, *, last: bool = False) -> None:
        """Twice the time; the last time, of W alone."""
        size, reach = _norm_bound(self.E), _frobenius(self.W)
        self.W_error = (
            self.W_error * (1 + size * size)
            + 2 * size * reach * (self.E_error + size * self.rounding)
            + self.rounding * reach
        )
        self.E_error = 2 * size * self.E_error + self.rounding * size * size
        self.W = self.W + self.E @ self.W @ self.E.mT
        if not last:
            self.E = self.E @ self.E

    @property
    def bound(self) -> float:
        """Of the error of any member of W relative to its norm."""
        sizes = torch.linalg.matrix_norm(self.W.detach())
        return self.W_error / max(float(sizes.min()), TINY) if sizes.numel() else 0.0


def _by_doubling(A: Tensor, Q: Tensor, horizon: float) -> tuple[Tensor, float]:
    size = _norm_bound(A)
    doublings = max(0, math.ceil(1 + math.log2(size) + math.log2(horizon))) if size > 0 else 0
    h = math.ldexp(horizon, -doublings)
    term = h * Q
    W = term
    for k in range(2, TERMS + 1):
        half = A @ term
        term = (h / k) * (half + half.mT)
        W = W + term
    made = _Doubling(W, torch.linalg.matrix_exp(A * h), 8 * torch.finfo(torch.float64).eps)
    for k in range(doublings):
        made.double(last=k == doublings - 1)
    return made.W, made.bound


def _of_map(A: Tensor, Q: Tensor, n_steps: int) -> tuple[Tensor, float]:
    """Sum of A^k Q A'^k over n_steps terms."""
    made, size = _Doubling(Q, A, 0.0), _norm_bound(A)
    for bit in bin(n_steps)[3:]:  # the leading one is k = 0
        made.double()
        if bit == "1":
            made.W_error = size * size * (made.W_error + made.rounding * _frobenius(made.W))
            made.E_error = (made.E_error + made.rounding * _norm_bound(made.E)) * size
            made.W, made.E = Q + A @ made.W @ A.mT, A @ made.E
    return made.W, made.bound


def _frobenius(W: Tensor) -> float:
    return float(torch.linalg.matrix_norm(W.detach()).max()) if W.numel() else 0.0


def _norm_bound(A: Tensor) -> float:
    """No less than the spectral norm of any member."""
    A = A.detach()
    sums = torch.linalg.matrix_norm(A, 1) * torch.linalg.matrix_norm(A, math.inf)
    bound = torch.minimum(sums.sqrt(), torch.linalg.matrix_norm(A))
    return float(bound.max()) if bound.numel() else 0.0
