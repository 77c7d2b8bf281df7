"""Minimum energies by another way: the exponential of one block matrix in ball arithmetic."""

import math

import numpy as np
import pytest
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat


def rational(x):
    return fmpq(*float(x).as_integer_ratio())


def among(W, d, rows):
    """d' W^-1 d over these rows, as a ball."""
    rows = range(d.nrows()) if rows is None else rows
    part = type(W)([[W[i, j] for j in rows] for i in rows])
    aim = type(d)([[d[i, 0]] for i in rows])
    return arb((aim.transpose() * part.solve(aim))[0, 0])


def block_exponential(A, B, x0, target, T, rows):
    """d' W^-1 d from exp([[-A, B B'], [0, A']] T); Van Loan 1978."""
    n = len(A)
    Bm = arb_mat(n, B.shape[1], B.ravel().tolist())
    Q = (Bm * Bm.transpose()).tolist()
    M = [[-float(x) for x in A[i]] + Q[i] for i in range(n)]
    M += [[0.0] * n + [float(x) for x in A[:, i]] for i in range(n)]
    E = (arb_mat(M) * arb(T)).exp().tolist()
    flow = arb_mat([row[n:] for row in E[n:]]).transpose()
    W = flow * arb_mat([row[n:] for row in E[:n]])
    d = arb_mat(n, 1, list(target)) - flow * arb_mat(n, 1, list(x0))
    return among(W, d, rows)


def stiff(A, B, x0, target, T, rows):
    """The same from A W + W A' = exp(A T) B B' exp(A T)' - B B', where -A T is beyond exp."""
    n = len(A)
    a, one = arb_mat(A.tolist()), np.eye(n)
    Bm = arb_mat(n, B.shape[1], B.ravel().tolist())
    flow = (a * arb(T)).exp()
    right = flow * Bm * (flow * Bm).transpose() - Bm * Bm.transpose()
    both = arb_mat(np.kron(A, one).tolist()) + arb_mat(np.kron(one, A).tolist())
    W = arb_mat(n, n, both.solve(arb_mat(n**2, 1, right.entries())).entries())
    d = arb_mat(n, 1, list(target)) - flow * arb_mat(n, 1, list(x0))
    return among(W, d, rows)


def sum_over_steps(A, B, x0, target, n_steps, rows):
    """The same of a map, in exact rational arithmetic."""
    n, m = B.shape
    Aq = fmpq_mat(n, n, [rational(x) for x in A.ravel()])
    Bq = fmpq_mat(n, m, [rational(x) for x in B.ravel()])
    state = fmpq_mat(n, 1, [rational(x) for x in x0])
    W = fmpq_mat(n, n)
    for _ in range(n_steps):
        W, state = Aq * W * Aq.transpose() + Bq * Bq.transpose(), Aq * state
    d = fmpq_mat(n, 1, [rational(x) for x in target]) - state
    return among(W, d, rows)


def for_ever(A, B, target, is_map, rows):
    """The same over an infinite horizon: the Lyapunov or Stein equation, solved exactly."""
    n, m = B.shape
    a = [[rational(x) for x in row] for row in A]
    Bq = fmpq_mat(n, m, [rational(x) for x in B.ravel()])
    Q = Bq * Bq.transpose()
    system = [[fmpq(0)] * n**2 for _ in range(n**2)]
    for i in range(n):
        for j in range(n):
            row = system[i * n + j]
            if is_map:
                row[i * n + j] += 1
                for k in range(n):
                    for p in range(n):
                        row[k * n + p] -= a[i][k] * a[j][p]
            else:
                for k in range(n):
                    row[k * n + j] -= a[i][k]
                    row[i * n + k] -= a[j][k]
    solved = fmpq_mat(system).solve(fmpq_mat(n**2, 1, Q.entries()))
    W = fmpq_mat(n, n, solved.entries())
    d = fmpq_mat(n, 1, [rational(x) for x in target])
    return among(W, d, rows)


def exact_energy_of(A, B, x0, target, horizon, step=None, bits=1500, rows=None):
    """A ball around the energy; with `rows`, that of states that determine the others."""
    old, ctx.prec = ctx.prec, bits
    try:
        if math.isinf(horizon):
            return for_ever(A, B, target, step is not None, rows)
        if step is not None:
            return sum_over_steps(A, B, x0, target, round(horizon / step), rows)
        by = stiff if np.abs(A).max() * horizon > 1e4 else block_exponential
        return by(A, B, x0, target, horizon, rows)
    finally:
        ctx.prec = old


@pytest.fixture(scope="session")
def exact_energy():
    """Function (A, B, x0, target, horizon) -> ball around the energy."""
    return exact_energy_of
