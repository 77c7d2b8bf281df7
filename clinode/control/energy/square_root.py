"""Minimum energies in float64 by a square root of the Gramian, with bounds that hold.

The Gramian W = F F' is never formed: F is the matrix of inputs' effects at Gauss-Legendre nodes, so
that only the square root of its condition number is lost. Every rounding error is bounded on the
way (Higham 2002, Accuracy and Stability, ch. 3), and at the end one matrix, which should be the
identity, shows how far the result may be off. Where that is too far, no number is claimed beyond a
lower bound: `clinode.control.energy.certified` goes on from there.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from flint import arb, ctx

from .transfers import Array, Transfers

NODES = 12  # of Gauss-Legendre quadrature on a piece with |A| h <= 1: error below 1e-29
TERMS = 22  # of the Taylor series there: 1 / 22! = 9e-22
UNIT = 2.0**-53
SLACK = 1 + 1e-6  # covers the rounding of the bounds themselves
TINY = 1e-290  # covers underflow
MOST_DOUBLINGS = 200


@dataclass(frozen=True)
class Bounded:
    """A matrix known up to an error of bounded spectral norm."""

    value: Array
    error: float

    @functools.cached_property
    def size(self) -> float:
        """No less than the spectral norm of the value."""
        return spectral_bound(self.value)


@dataclass(frozen=True)
class Factor:
    """F with W = F F' for a piece of the horizon; `rest` bounds what of W is not in F F'."""

    F: Bounded
    rest: float
    flow: Bounded  # exp(A t), or A^k


@dataclass(frozen=True)
class Bracket:
    """What is certain about minimum energies, one entry a pair.

    Attributes:
        low: No more than the energy.
        high: No less; inf where nothing is known.
        reach_error: How far from the target the input leads that the number belongs to.
        drift_error: How far from the target the system drifts by itself.
    """

    low: Array
    high: Array
    reach_error: Array
    drift_error: Array


def square_root_energies(transfers: Transfers) -> Bracket | None:
    """Brackets of the minimum energies; None where the horizon is beyond float64."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        factor = _factor(transfers)
        if factor is None:
            return None
        drift, drift_error = _product(factor.flow, transfers.moved_starts.T)
        if transfers.readout is not None:
            C = transfers.readout
            F = _compose(Bounded(C, 0.0), factor.F)
            rest = factor.rest * spectral_bound(C) ** 2
            factor = Factor(F, rest, factor.flow)
            raw, raw_error = _product(Bounded(C, 0.0), drift)
            drift, drift_error = raw, raw_error + spectral_bound(C) * drift_error
        aim = transfers.moved_ends - drift.T
        sizes = np.abs(transfers.ends) + np.abs(transfers.end_rest) + np.abs(drift.T)
        aim_error = (drift_error + 4 * UNIT * np.linalg.norm(sizes, axis=1)) * SLACK + TINY
        if not (np.isfinite(aim).all() and np.isfinite(factor.F.value).all()):
            return None
        return _bracket(factor, aim, aim_error)


def spectral_bound(matrix: Array) -> float:
    """No less than the spectral norm."""
    if not matrix.size:
        return 0.0
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    size = np.abs(gram)
    rounding = _gamma(max(matrix.shape)) * float((matrix**2).sum())
    return math.sqrt(float(size.sum(axis=1).max()) + rounding) * SLACK


def _gamma(n: int) -> float:
    return n * UNIT / (1 - n * UNIT)


def _product(left: Bounded, right: Array) -> tuple[Array, Array]:
    """left @ right for exact columns, and a bound on each column's error."""
    sizes = np.linalg.norm(right, axis=0)
    rounding = _gamma(left.value.shape[1] + 2) * np.linalg.norm(left.value)
    return left.value @ right, (left.error + rounding) * sizes * SLACK


def _compose(left: Bounded, right: Bounded) -> Bounded:
    """left @ right."""
    k = left.value.shape[1] + 2
    rounding = _gamma(k) * min(
        float(np.linalg.norm(left.value)) * float(np.linalg.norm(right.value)),
        spectral_bound(np.abs(left.value)) * float(np.linalg.norm(right.value)),
    )
    carried = left.size * right.error + left.error * (right.size + right.error)
    return Bounded(left.value @ right.value, (carried + rounding) * SLACK + TINY)


def _factor(transfers: Transfers) -> Factor | None:
    A, B = transfers.A, transfers.B
    if transfers.is_map:
        piece = Factor(Bounded(B, 0.0), 0.0, Bounded(A, 0.0))
        return _endless(piece) if transfers.is_endless else _repeated(piece, transfers.n_steps)
    size = _norm_bound(A)
    if transfers.is_endless:
        return _endless(_piece(A, B, 1.0 / size))
    doublings = max(0, math.ceil(math.log2(size * transfers.horizon))) if size > 0 else 0
    if doublings > MOST_DOUBLINGS:
        return None
    piece = _piece(A, B, math.ldexp(transfers.horizon, -doublings))
    return _repeated(piece, 2**doublings)


def _norm_bound(A: Array) -> float:
    """No less than the spectral norm of A, nor than that of |A|."""
    size = np.abs(A)
    if not size.size:
        return 0.0
    return math.sqrt(size.sum(axis=0).max() * size.sum(axis=1).max()) * SLACK


@functools.cache
def gauss_legendre(n: int) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1], each the nearest float64."""
    old, ctx.prec = ctx.prec, 120
    try:
        roots = [arb.legendre_p_root(n, k, weight=True) for k in range(n)]
        nodes = [float(((1 + x) / 2).mid()) for x, _ in roots]
        weights = [float((w / 2).mid()) for _, w in roots]
    finally:
        ctx.prec = old
    return np.array(nodes), np.array(weights)


def _piece(A: Array, B: Array, h: float) -> Factor:
    """The factor over a piece with |A| h <= 1: columns sqrt(w_i) exp(A s_i) B at the nodes s_i."""
    n, m = B.shape
    nodes, weights = gauss_legendre(NODES)
    size, theta = _norm_bound(A), _norm_bound(A) * h
    terms, error = _taylor(A, B, h, size)
    powers = nodes[None, :] ** np.arange(TERMS)[:, None]
    root = np.sqrt(weights * h)
    F = np.tensordot(np.stack(terms), powers * root, axes=(0, 0))  # (state, input, node)
    sizes = np.array([np.linalg.norm(term) for term in terms])
    tail = theta**TERMS / math.factorial(TERMS) * math.exp(theta) * float(np.linalg.norm(B))
    # nodes and weights are rounded too: each by 1 ulp, its power by as many as its exponent
    rounded = (_gamma(2 * TERMS + 8) * (powers * root).T @ (sizes * (1 + np.arange(TERMS)))).sum()
    carried = float(((powers * root).T @ np.array(error)).sum()) + tail * float(root.sum())
    quadrature = (2 * theta) ** (2 * NODES) * math.factorial(NODES) ** 4
    quadrature /= (2 * NODES + 1) * math.factorial(2 * NODES) ** 3
    rest = quadrature * math.exp(2 * theta) * h * float(np.linalg.norm(B)) ** 2
    flow_terms, flow_error = _taylor(A, np.eye(n), h, size)
    flow = np.sum(flow_terms[::-1], axis=0)
    flow_tail = theta**TERMS / math.factorial(TERMS) * math.exp(theta) * math.sqrt(n)
    summing = _gamma(TERMS) * sum(float(np.linalg.norm(term)) for term in flow_terms)
    return Factor(
        Bounded(F.reshape(n, m * NODES), (carried + float(rounded)) * SLACK + TINY),
        rest * SLACK,
        Bounded(flow, (sum(flow_error) + flow_tail + summing) * SLACK + TINY),
    )


def _taylor(A: Array, B: Array, h: float, size: float) -> tuple[list[Array], list[float]]:
    """A^j B h^j / j! and bounds on the Frobenius norms of their errors."""
    terms, errors = [B], [0.0]
    for j in range(1, TERMS):
        last = terms[-1]
        rounding = _gamma(len(A) + 4) * size * float(np.linalg.norm(last))
        terms.append((A @ last) * (h / j))
        errors.append((size * errors[-1] + rounding) * (h / j) * SLACK)
    return terms, errors


def _joined(later: Factor, earlier: Factor) -> Factor:
    """The factor over both pieces: what the earlier one did moves on through the later one."""
    moved = _compose(later.flow, earlier.F)
    F = Bounded(
        np.concatenate([later.F.value, moved.value], axis=1),
        math.hypot(later.F.error, moved.error) * SLACK,
    )
    rest = later.rest + (later.flow.size + later.flow.error) ** 2 * earlier.rest
    flow = _compose(later.flow, earlier.flow)
    return _compressed(Factor(F, rest * SLACK, flow))


def _compressed(factor: Factor) -> Factor:
    """With no more columns than three times the rows, by a QR factorization that is checked."""
    F = factor.F.value
    n, columns = F.shape
    if columns <= 3 * n or not np.isfinite(F).all():
        return factor
    Q, R = np.linalg.qr(F.T)
    residual = np.linalg.norm(F.T - Q @ R)
    residual += _gamma(n + 2) * math.sqrt(n) * np.linalg.norm(R)  # |Q| has norm about sqrt(n)
    skewed = np.linalg.norm(Q.T @ Q - np.eye(n)) + _gamma(columns + 2) * 2 * n
    lost = factor.F.error + float(residual)
    error = (lost + float(skewed) * spectral_bound(R)) * SLACK + TINY
    return Factor(Bounded(R.T, error), (factor.rest + lost**2) * SLACK, factor.flow)


def _repeated(piece: Factor, times: float | int | None) -> Factor | None:
    """The factor over that many pieces, by doubling."""
    whole = piece
    for bit in bin(int(times or 1))[3:]:
        whole = _joined(whole, whole)
        if bit == "1":
            whole = _joined(piece, whole)
        if not np.isfinite(whole.F.value).all():
            return None
    return whole


def _endless(piece: Factor) -> Factor | None:
    """The factor over all time, by doubling until what is left is below rounding."""
    whole = piece
    for _ in range(MOST_DOUBLINGS):
        whole = _joined(whole, whole)
        size = whole.flow.size + whole.flow.error
        if not math.isfinite(size) or size > 1e8:
            return None
        if size < 1e-18:  # W = F F' + flow W flow'
            left = size**2 * (whole.F.size + whole.F.error) ** 2 / (1 - size**2)
            zero = Bounded(np.zeros_like(whole.flow.value), 0.0)
            return Factor(whole.F, (whole.rest + left) * SLACK, zero)
    return None


def _bracket(factor: Factor, aim: Array, aim_error: Array) -> Bracket:
    distance = np.linalg.norm(aim, axis=1)
    certified = _certified(factor, aim, aim_error)
    if certified is not None:
        return Bracket(*certified, aim_error, distance)
    low, reach_error = _from_below(factor, aim, aim_error)
    return Bracket(low, np.full(len(aim), math.inf), reach_error, distance)


def _certified(factor: Factor, aim: Array, aim_error: Array) -> tuple[Array, Array] | None:
    """Both ends of the energies: with X near R^-1 and Y = F'X, E = d'X (Y'Y)^-1 X'd exactly."""
    F = factor.F.value
    n = len(F)
    if F.shape[1] < n:
        return None
    R = np.linalg.qr(F.T, mode="r")
    diagonal = np.abs(np.diag(R))
    if not (diagonal > 1e-15 * diagonal.max(initial=0.0)).all():
        return None
    X = scipy.linalg.solve_triangular(R, np.eye(n), check_finite=False)
    Y = F.T @ X
    gram = Y.T @ Y - np.eye(n)
    size_X, norm_X = spectral_bound(X), float(np.linalg.norm(X))
    norm_Y = float(np.linalg.norm(Y))
    y = factor.F.error * size_X + _gamma(n + 2) * float(np.linalg.norm(F)) * norm_X
    off = float(np.linalg.norm(gram)) + _gamma(len(Y) + 4) * norm_Y**2
    off += 2 * spectral_bound(Y) * y + y**2 + factor.rest * size_X**2
    if not off * SLACK < 0.5:
        return None
    length = np.linalg.norm(aim @ X, axis=1)
    rounding = _gamma(n + 4) * norm_X * np.linalg.norm(aim, axis=1) + size_X * aim_error
    low = np.maximum(length - rounding * SLACK, 0.0) ** 2 / (1 + off * SLACK)
    high = (length + rounding * SLACK) ** 2 / (1 - off * SLACK)
    return low / SLACK_OF_RESULT, high * SLACK_OF_RESULT


SLACK_OF_RESULT = 1 + 1e-13  # rounding of the last few operations


def _from_below(factor: Factor, aim: Array, aim_error: Array) -> tuple[Array, Array]:
    """Lower bounds (p'd)^2 / p'Wp, which hold for any p, and how far from d the input of p leads.

    p is that of the Gramian with its smallest part, which float64 cannot tell from nothing, left
    out: the bound is the energy of what is left of the target.
    """
    F = factor.F.value
    best, reach_error = np.zeros(len(aim)), np.linalg.norm(aim, axis=1)
    if not F.size:
        return best, reach_error
    length = reach_error.copy()
    U, s, _ = scipy.linalg.svd(_square(F), check_finite=False)
    floor = max(4 * factor.F.error, 1e-15 * s[0], 1e-150)  # its square is no underflow
    if not floor < 1e140:
        return best, reach_error
    slack = factor.F.error + _gamma(len(F) + 4) * float(np.linalg.norm(F))
    for cut in (floor, 1e2 * floor, 1e4 * floor):
        p = ((aim @ U) / (s**2 + cut**2)) @ U.T
        size, effort = np.linalg.norm(p, axis=1), np.linalg.norm(p @ F, axis=1)
        gain = np.einsum("ij,ij->i", p, aim)
        sure = gain - (aim_error + _gamma(len(F) + 4) * length) * size * SLACK
        cost = ((effort + slack * size) ** 2 + factor.rest * size**2) * SLACK + TINY
        bound = np.where(sure > 0, sure, 0.0) ** 2 / cost
        better = bound > best
        best = np.where(better, bound, best)
        reach_error = np.where(better, np.linalg.norm(aim - (p @ F) @ F.T, axis=1), reach_error)
    return best, reach_error


def _square(F: Array) -> Array:
    """A square matrix with the left singular vectors and singular values of F, roughly."""
    n, columns = F.shape
    if columns <= n:
        return np.pad(F, ((0, 0), (0, n - columns)))
    return np.asarray(np.linalg.qr(F.T, mode="r")).T
