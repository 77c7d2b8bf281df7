"""Integrated gradients with a known error: adaptive bisection of the path, subject by subject.

Integrated gradients (Sundararajan, Taly & Yan 2017, ICML) attribute f(x) - f(b) to the features,
phi_j = (x_j - b_j) int_0^1 df/dx_j(b + alpha (x - b)) d alpha. A fixed grid of alpha fails without
a word on models that latch (a gate that closes within 1/4000 of the path). Here every interval of
alpha carries two things that a grid does not have: its residual, |sum_j a_j - (f(hi) - f(lo))|,
exact because the ends are evaluated; and the disagreement of two quadrature rules, feature by
feature, which also sees errors that cancel in the sum. Intervals are halved until the error of
the whole path is below the tolerance; a row that has arrived leaves the batch. What does not arrive
within the budget is returned with its gap, to be withheld, never rescaled to look complete.

The function must be differentiable almost everywhere and treat rows independently.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

RowFunction = Callable[[Tensor, Tensor], Tensor]
"""f(rows (m, d), which (m,) int64) -> (m,): `which` says of which subject each row is a version."""

SCALE_FLOOR = 0.1
"""Errors are relative to |f(x) - f(b)|, but never to less than this (logit units)."""

_N_START = 4  # intervals of the path before any bisection
_MAX_DEPTH = 20  # bisections of one interval: the finest is 2^-22 of the path
_RULE_WEIGHT = 0.1  # what the disagreement of the two rules counts, beside the exact residual

# Five Gauss-Legendre nodes on (0, 1), exact to degree 9; on the outer and the middle one lies a
# second rule, exact to degree 3.
_roots, _weights = np.polynomial.legendre.leggauss(5)
_NODES = torch.from_numpy((_roots + 1) / 2)
_WEIGHTS = torch.from_numpy(_weights / 2)
_outer = 1 / (6 * _roots[4] ** 2)
_COARSE_WEIGHTS = torch.tensor([_outer, 0.0, 1 - 2 * _outer, 0.0, _outer], dtype=torch.float64)


@dataclass(frozen=True)
class PathIntegral:
    """Integrated gradients of n rows, and what is known about their error."""

    values: Tensor  # (n, d) float64
    output: Tensor  # (n,) f at x
    base: Tensor  # (n,) f at the baseline
    error: Tensor  # (n,) sum of interval residuals relative to max(|df|, floor): bounds the gap
    rows_used: np.ndarray  # (n,) evaluations of f, with or without gradient
    converged: np.ndarray  # (n,) bool: error estimate below the tolerance within the budget


def integrate_path(
    function: RowFunction,
    x: Float[Tensor, "n d"],
    baseline: Float[Tensor, "n d"],
    *,
    tolerance: float = 0.01,
    batch_size: int = 256,
    max_rows: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> PathIntegral:
    """Adaptive integrated gradients of every row of x against its baseline.

    Args:
        function: f(rows, which); evaluated in the dtype of `x`, summed in float64.
        x: One row a subject.
        baseline: Its reference, same shape.
        tolerance: Largest error relative to max(|f(x) - f(b)|, 0.1).
        batch_size: Rows in one call of `function`.
        max_rows: Evaluations allowed a subject before it is returned as not converged.
        progress: Called with (subjects that have arrived, all subjects) after each round.
    """
    n = len(x)
    step = (x - baseline).double().cpu()
    everyone = np.arange(n)
    edges = np.linspace(0.0, 1.0, _N_START + 1)
    at_edges = _evaluate(
        function, x, baseline, np.repeat(everyone, len(edges)), np.tile(edges, n), batch_size
    ).reshape(n, len(edges))
    base, output = at_edges[:, 0].copy(), at_edges[:, -1].copy()
    scale = np.maximum(np.abs(output - base), SCALE_FLOOR)

    live = _Intervals(
        which=np.repeat(everyone, _N_START),
        low=np.tile(edges[:-1], n),
        high=np.tile(edges[1:], n),
        f_low=at_edges[:, :-1].ravel(),
        f_high=at_edges[:, 1:].ravel(),
    )
    values = torch.zeros(n, x.shape[1], dtype=torch.float64)
    mass = np.zeros(n)  # sum of |a| of the accepted intervals
    spent = np.zeros(n)  # error of the accepted intervals, relative
    residuals = np.zeros(n)
    rows_used = np.full(n, len(edges))
    converged = np.ones(n, dtype=bool)
    for depth in range(_MAX_DEPTH + 1):
        local, disagreement = _quadrature(function, x, baseline, step, live, batch_size)
        rows_used += len(_NODES) * np.bincount(live.which, minlength=n)
        residual = np.abs(local.sum(dim=1).numpy() - (live.f_high - live.f_low))
        local_mass = local.abs().sum(dim=1).numpy()
        total_mass = mass + np.bincount(live.which, weights=local_mass, minlength=n)
        error = (
            residual / scale[live.which]
            + _RULE_WEIGHT * disagreement / np.maximum(total_mass, scale)[live.which]
        )
        error = np.where(np.isfinite(error), error, np.inf)
        out_of_budget = (rows_used + 2 * len(_NODES) > max_rows) | (depth == _MAX_DEPTH)
        accept = _affordable(live.which, error, tolerance - spent)
        last = out_of_budget[live.which] & ~accept
        converged[live.which[last]] = False
        accept |= last
        chosen = live.which[accept]
        values.index_add_(0, torch.from_numpy(chosen), local[torch.from_numpy(accept)])
        spent += np.bincount(chosen, weights=error[accept], minlength=n)
        mass += np.bincount(chosen, weights=local_mass[accept], minlength=n)
        residuals += np.bincount(chosen, weights=residual[accept], minlength=n)
        live = live.take(~accept)
        if progress is not None:
            progress(n - len(np.unique(live.which)), n)
        if not len(live.which):
            break
        middle = (live.low + live.high) / 2
        f_middle = _evaluate(function, x, baseline, live.which, middle, batch_size)
        rows_used += np.bincount(live.which, minlength=n)
        live = live.bisect(middle, f_middle)
    return PathIntegral(
        values=values,
        output=torch.from_numpy(output),
        base=torch.from_numpy(base),
        error=torch.from_numpy(residuals / scale),
        rows_used=rows_used,
        converged=converged,
    )


@dataclass(frozen=True)
class _Intervals:
    """Pieces of alpha that still wait, grouped by subject and in order of alpha."""

    which: np.ndarray
    low: np.ndarray
    high: np.ndarray
    f_low: np.ndarray
    f_high: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Intervals":
        return _Intervals(
            self.which[chosen],
            self.low[chosen],
            self.high[chosen],
            self.f_low[chosen],
            self.f_high[chosen],
        )

    def bisect(self, middle: np.ndarray, f_middle: np.ndarray) -> "_Intervals":
        return _Intervals(
            np.repeat(self.which, 2),
            np.stack([self.low, middle], axis=1).ravel(),
            np.stack([middle, self.high], axis=1).ravel(),
            np.stack([self.f_low, f_middle], axis=1).ravel(),
            np.stack([f_middle, self.f_high], axis=1).ravel(),
        )


def _affordable(which: np.ndarray, error: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Which intervals are accepted now: all of a subject if they fit its error budget together,
    else the smallest errors that fit half of it, so that something is always left for the rest."""
    total = np.bincount(which, weights=error, minlength=len(budget))
    order = np.lexsort((error, which))
    running = np.where(np.isfinite(error[order]), error[order], 0.0).cumsum()
    first = np.flatnonzero(np.r_[True, np.diff(which[order]) != 0])
    before = np.r_[0.0, running[:-1]][first]
    within = running - np.repeat(before, np.diff(np.r_[first, len(order)]))
    accept = np.empty(len(which), dtype=bool)
    accept[order] = np.isfinite(error[order]) & (within <= budget[which[order]] / 2)
    return accept | (total <= budget)[which]


def _rows(
    x: Tensor, baseline: Tensor, which: np.ndarray, alpha: np.ndarray
) -> tuple[Tensor, Tensor]:
    index = torch.from_numpy(which)
    part = torch.from_numpy(alpha).to(x).unsqueeze(1)
    start = baseline[index]
    # the end point is x itself, not b + (x - b), which may differ in the last bit
    return torch.where(part == 1, x[index], start + part * (x[index] - start)), index


def _evaluate(
    function: RowFunction,
    x: Tensor,
    baseline: Tensor,
    which: np.ndarray,
    alpha: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    values = np.empty(len(which))
    with torch.no_grad():
        for start in range(0, len(which), batch_size):
            piece = slice(start, start + batch_size)
            rows, index = _rows(x, baseline, which[piece], alpha[piece])
            values[piece] = function(rows, index).double().numpy(force=True)
    return values


def _quadrature(
    function: RowFunction,
    x: Tensor,
    baseline: Tensor,
    step: Tensor,
    intervals: _Intervals,
    batch_size: int,
) -> tuple[Tensor, np.ndarray]:
    """Local attributions (k, d) of k intervals, and how far the two rules disagree (k,)."""
    n_nodes = len(_NODES)
    k = len(intervals.which)
    width = torch.from_numpy(intervals.high - intervals.low)
    local = torch.empty(k, x.shape[1], dtype=torch.float64)
    disagreement = np.empty(k)
    per_call = max(1, batch_size // n_nodes)
    for start in range(0, k, per_call):
        piece = slice(start, min(start + per_call, k))
        size = piece.stop - piece.start
        which = np.repeat(intervals.which[piece], n_nodes)
        alpha = (
            torch.from_numpy(intervals.low[piece]).unsqueeze(1) + width[piece].unsqueeze(1) * _NODES
        )
        gradient = row_gradients(
            function, *_rows(x, baseline, which, alpha.numpy().ravel())
        ).reshape(size, n_nodes, -1)
        span = step[torch.from_numpy(intervals.which[piece])] * width[piece].unsqueeze(1)
        local[piece] = torch.einsum("knd,n->kd", gradient, _WEIGHTS) * span
        coarse = torch.einsum("knd,n->kd", gradient, _COARSE_WEIGHTS) * span
        disagreement[piece] = (local[piece] - coarse).abs().sum(dim=1).numpy()
    return local, disagreement


def row_gradients(function: RowFunction, rows: Tensor, which: Tensor) -> Tensor:
    """Gradient of each row's output with respect to that row, in float64 on the CPU."""
    rows = rows.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(function(rows, which).sum(), rows)
    return gradient.double().cpu()


def relative_gap(values: Tensor, output: Tensor, base: Tensor) -> np.ndarray:
    """|sum of attributions - (f(x) - f(b))| relative to max(|f(x) - f(b)|, 0.1), one a row."""
    change = (output - base).double()
    gap = (values.double().sum(dim=1) - change).abs() / change.abs().clamp(min=SCALE_FLOOR)
    return np.where(np.isfinite(gap.numpy()), gap.numpy(), math.inf)
