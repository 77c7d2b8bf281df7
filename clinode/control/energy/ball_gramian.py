"""Gramians in ball arithmetic from the powers of A: any A, repeated eigenvalues or not.

Over a short piece exp(A s) B = sum_j A^j B s^j / j!, so W is one product of the columns A^j B with
a Hilbert matrix; longer horizons by doubling, W(2t) = W(t) + exp(A t) W(t) exp(A' t). What the
series and an infinite horizon leave out is bounded and added to the balls.
"""

import math

from flint import arb, arb_mat, ctx

from .transfers import Array, Transfers

LONGEST_PIECE = 4.0  # |A| h that the series still takes in one go
MOST_DOUBLINGS = 400


def ball_gramian(transfers: Transfers, bits: int) -> tuple[arb_mat, arb_mat]:
    """W of the targets, and the aims: end minus where the system drifts by itself, one a column.

    Raises:
        ArithmeticError: An infinite horizon, and powers of A that do not die out in sight.
    """
    old = ctx.prec
    try:
        size = max(norm_bound(transfers.A), 1e-300)
        growth = 0.0 if transfers.is_endless or transfers.is_map else size * transfers.horizon
        ctx.prec = bits + 40 + int(3 * min(growth, 64 * LONGEST_PIECE))
        W, moved = _whole(transfers, size)
        ends = exact_matrix(transfers.ends) - _repeated_rows(
            transfers.end_rest, len(transfers.ends)
        )
        aims = ends.transpose()
        if transfers.readout is not None:
            C = exact_matrix(transfers.readout)
            W, moved = C * W * C.transpose(), C * moved
        return W, aims - moved
    finally:
        ctx.prec = old


def exact_matrix(values: Array) -> arb_mat:
    """Float64 numbers as balls of radius 0."""
    rows, columns = values.shape
    return arb_mat(rows, columns, [float(x) for x in values.ravel()])


def exact_moves(transfers: Transfers) -> arb_mat:
    """Starts as deviations, one a column; zero where the horizon is infinite."""
    if transfers.is_endless:
        return arb_mat(transfers.n_states, len(transfers.starts))
    rest = _repeated_rows(transfers.rest, len(transfers.starts))
    return (exact_matrix(transfers.starts) - rest).transpose()


def norm_bound(A: Array) -> float:
    """No less than the spectral norm, to a few bits."""
    size = abs(A)
    if not size.size:
        return 0.0
    return math.sqrt(size.sum(axis=0).max() * size.sum(axis=1).max()) * (1 + 1e-9)


def _repeated_rows(row: Array, times: int) -> arb_mat:
    return arb_mat(times, len(row), [float(x) for x in row] * times)


def _whole(transfers: Transfers, size: float) -> tuple[arb_mat, arb_mat]:
    A, B, starts = exact_matrix(transfers.A), exact_matrix(transfers.B), exact_moves(transfers)
    if transfers.is_map:
        if transfers.is_endless:
            return _endless(B * B.transpose(), A), starts
        return _steps(A, B * B.transpose(), int(transfers.n_steps or 1), starts)
    if transfers.is_endless:
        h = math.ldexp(1.0, math.floor(math.log2(1 / size)))
        W, _ = _piece(A, B, h, size, starts)
        return _endless(W, (A * h).exp()), starts
    return finite_gramian(A, B, transfers.horizon, size, starts)


def finite_gramian(
    A: arb_mat, B: arb_mat, horizon: float, size: float, starts: arb_mat
) -> tuple[arb_mat, arb_mat]:
    """W over a finite horizon in continuous time, and where the starts (state, pair) drift.

    Args:
        A: (state, state).
        B: (state, input).
        horizon: T.
        size: No less than the spectral norm of A.
        starts: Deviations.
    """
    doublings = max(0, math.ceil(math.log2(max(size * horizon, 1e-300) / LONGEST_PIECE)))
    h = math.ldexp(horizon, -doublings)
    W, moved = _piece(A, B, h, size, starts)
    if not doublings:
        return W, moved
    flow = (A * h).exp()
    for _ in range(doublings):
        W, flow = W + flow * W * flow.transpose(), flow * flow
    return W, flow * starts


def _piece(
    A: arb_mat, B: arb_mat, h: float, size: float, starts: arb_mat
) -> tuple[arb_mat, arb_mat]:
    """W(h), and where the starts drift in that time."""
    n, m = B.nrows(), B.ncols()
    theta = size * h
    terms = _n_terms(theta)
    effects = [B]
    for j in range(1, terms):
        effects.append((A * effects[-1]) * (arb(h) / j))
    tail = arb(theta) ** terms / arb(terms).gamma() / terms * arb(theta).exp()  # theta^K e^theta/K!
    hilbert = arb_mat(
        terms, terms, [arb(h) / (i + j + 1) for i in range(terms) for j in range(terms)]
    )
    flat = [effect.entries() for effect in effects]
    by_term = arb_mat(n * m, terms, [x for entry in zip(*flat, strict=True) for x in entry])
    weighted = arb_mat(n, m * terms, (by_term * hilbert).entries())
    W = weighted * arb_mat(n, m * terms, by_term.entries()).transpose()
    whole = _frobenius(B)
    left_out = arb(h) * whole**2 * tail * (2 * arb(theta).exp() + tail)
    return _widened(W, left_out), _drift(A, starts, h, terms, tail)


def _drift(A: arb_mat, starts: arb_mat, h: float, terms: int, tail: arb) -> arb_mat:
    moved = term = starts
    for j in range(1, terms):
        term = (A * term) * (arb(h) / j)
        moved = moved + term
    return _widened(moved, tail * _frobenius(starts))


def _n_terms(theta: float) -> int:
    """Terms of exp(theta) that leave out less than one part in 2^prec."""
    terms, log_size = 1, 0.0
    while terms < 2 * theta or log_size > -(ctx.prec + 8) * math.log(2):
        log_size += math.log(max(theta, 1e-300) / terms)
        terms += 1
    return terms


def _steps(A: arb_mat, Q: arb_mat, n_steps: int, starts: arb_mat) -> tuple[arb_mat, arb_mat]:
    W, flow = Q, A
    for bit in bin(n_steps)[3:]:
        W, flow = W + flow * W * flow.transpose(), flow * flow
        if bit == "1":
            W, flow = Q + A * W * A.transpose(), A * flow
    return W, flow * starts


def _endless(W: arb_mat, flow: arb_mat) -> arb_mat:
    for _ in range(MOST_DOUBLINGS):
        size = _frobenius(flow)
        if size < arb(2) ** -(ctx.prec // 2 + 8):
            return _widened(W, size**2 * _frobenius(W) / (1 - size**2))
        if not size < arb(2) ** ctx.prec:
            break
        W, flow = W + flow * W * flow.transpose(), flow * flow
    raise ArithmeticError("the powers of A do not die out")


def _frobenius(matrix: arb_mat) -> arb:
    """No less than the Frobenius norm."""
    return sum((x * x for x in matrix.entries()), arb(0)).sqrt().abs_upper()


def _widened(matrix: arb_mat, radius: arb) -> arb_mat:
    ball = arb(0, radius.abs_upper())
    return arb_mat(matrix.nrows(), matrix.ncols(), [x + ball for x in matrix.entries()])
