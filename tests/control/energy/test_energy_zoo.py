"""A zoo of systems that break energies: each decided, and right, or said to be undecided.

What is right is computed another way: ranks of [B AB A^2 B ...] over the rational numbers, energies
by the block exponential in balls or, of maps and infinite horizons, in rational arithmetic.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_mat

from clinode.control.energy.energy import control_energy
from clinode.system import LinearSystem


@dataclass(frozen=True)
class Case:
    A: np.ndarray
    B: np.ndarray
    x0: np.ndarray
    target: np.ndarray
    horizon: float = 1.0
    step: float | None = None


def case(A, B, target=None, x0=None, horizon=1.0, step=None, seed=0):
    A, B = np.asarray(A, dtype=float), np.asarray(B, dtype=float)
    rng = np.random.default_rng(seed)
    target = rng.normal(size=len(A)) if target is None else np.asarray(target, dtype=float)
    x0 = np.zeros(len(A)) if x0 is None else np.asarray(x0, dtype=float)
    return Case(A, B.reshape(len(A), -1), x0, target, horizon, step)


def first(n, m=1):
    return np.eye(n)[:, :m]


def dense(n, seed, scale=1.0, symmetric=False):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return scale * ((A + A.T) / 2 if symmetric else A)


def weights(n, seed, symmetric=True):
    W = np.random.default_rng(seed).random((n, n))
    W = (W + W.T) / 2 if symmetric else W
    return W / (1 + np.abs(np.linalg.eigvals(W)).max())


def jordan(n, value):
    return value * np.eye(n) + np.eye(n, k=1)


def path(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


def ring(n):
    return path(n) + np.eye(n, k=n - 1) + np.eye(n, k=1 - n)


def star(n):
    A = np.zeros((n, n))
    A[0, 1:] = A[1:, 0] = 1.0
    return A


def mirrored(k, seed):
    rng = np.random.default_rng(seed)
    half, bridge, middle = rng.random((k, k)), np.diag(rng.random(k)), rng.random((1, k))
    side = half + half.T
    rows = [[side, bridge, middle.T], [bridge, side, middle.T], [middle, middle, np.zeros((1, 1))]]
    return np.block(rows) / (4 * k) - np.eye(2 * k + 1)


def blocks(*parts):
    n = sum(len(p) for p in parts)
    A, at = np.zeros((n, n)), 0
    for p in parts:
        A[at : at + len(p), at : at + len(p)] = p
        at += len(p)
    return A


def grcar(n):
    return -np.eye(n, k=-1) + sum(np.eye(n, k=k) for k in range(4))


def silent(B, scale):
    return np.concatenate([B[:, :1], scale * B[:, 1:]], axis=1)


ZOO = {
    "one leaky state": case([[-1.0]], [[1.0]]),
    "one unstable state": case([[2.0]], [[1.0]], horizon=5.0),
    "one state, hopelessly unstable": case([[10.0]], [[1.0]], horizon=200.0),
    "integrator": case([[0.0]], [[2.0]]),
    "double integrator": case([[0, 1], [0, 0]], [[0], [1]], [1, 0]),
    "double integrator in no time": case([[0, 1], [0, 0]], [[0], [1]], [1, 0], horizon=1e-6),
    "chain of six integrators": case(np.eye(6, k=1), np.eye(6)[:, 5:]),
    "chain of fourteen integrators": case(np.eye(14, k=1), np.eye(14)[:, 13:]),
    "oscillator": case([[0, 1], [-1, 0]], [[0], [1]], horizon=2 * math.pi),
    "four oscillators, one input": case(
        blocks(*[[[0, w], [-w, 0]] for w in (1, 1.1, 2, 3)]), [[0], [1]] * 4
    ),
    "two equal oscillators, one input": case(
        blocks([[0, 1], [-1, 0]], [[0, 1], [-1, 0]]), [[0], [1], [0], [1]]
    ),
    "skew": case(dense(6, 1) - dense(6, 1).T, first(6)),
    "symmetric network, all driven": case(weights(9, 2) - np.eye(9), np.eye(9)),
    "symmetric network, half driven": case(weights(10, 3) - np.eye(10), first(10, 5)),
    "symmetric network, two driven": case(weights(10, 4) - np.eye(10), first(10, 2)),
    "symmetric network, one driven": case(weights(12, 5) - np.eye(12), first(12)),
    "large symmetric network, three driven": case(weights(24, 6) - np.eye(24), first(24, 3)),
    "large symmetric network, one driven": case(weights(20, 7) - np.eye(20), first(20)),
    "directed network, one driven": case(weights(12, 8, False) - np.eye(12), first(12)),
    "directed network, four driven": case(weights(16, 9, False) - np.eye(16), first(16, 4)),
    "unstable symmetric": case(dense(6, 10, symmetric=True), first(6, 2)),
    "unstable symmetric, long": case(dense(5, 11, 2.0, True), first(5), horizon=10.0),
    "unstable": case(dense(7, 12), first(7, 2)),
    "unstable, from afar": case(dense(7, 13), first(7), x0=100 * np.ones(7)),
    "unstable, long": case(dense(5, 14, 2.0), first(5, 2), horizon=20.0),
    "very unstable": case(dense(4, 15, 50.0), first(4), horizon=2.0),
    "Jordan block": case(jordan(5, -0.5), np.eye(5)[:, 4:]),
    "long Jordan block": case(jordan(12, -1.0), np.eye(12)[:, 11:]),
    "unstable Jordan block": case(jordan(6, 1.0), np.eye(6)[:, 5:], horizon=3.0),
    "Jordan block, wrong end": case(jordan(4, -1.0), first(4)),
    "Jordan block, wrong end, right target": case(jordan(4, -1.0), first(4), [2, 0, 0, 0]),
    "two Jordan blocks of one value": case(
        blocks(jordan(3, -1.0), jordan(2, -1.0)), np.eye(5)[:, [2, 4]].sum(axis=1)
    ),
    "two Jordan blocks, two inputs": case(
        blocks(jordan(3, -1.0), jordan(2, -1.0)), np.eye(5)[:, [2, 4]]
    ),
    "nearly defective": case([[-1, 1], [0, -1 - 2**-50]], [[0], [1]]),
    "nearly repeated": case(np.diag([-1, -1 - 2**-52, -2]), [[1], [1], [1]]),
    "repeated, one input": case(-np.eye(3), [[1], [2], [3]]),
    "repeated, one input, right target": case(-np.eye(3), [[1], [2], [3]], [0.5, 1, 1.5]),
    "repeated, enough inputs": case(-np.eye(3), [[1, 0, 1], [0, 1, 1], [1, 1, 0]]),
    "not normal": case(np.triu(dense(8, 16, 5.0), 1) - np.eye(8), first(8)[::-1]),
    "not normal, all driven": case(np.triu(dense(8, 17, 5.0), 1) - np.eye(8), np.eye(8)),
    "Grcar": case(grcar(10) - 2 * np.eye(10), first(10, 2)),
    "Kahan": case(-np.triu(0.3 ** np.abs(np.subtract.outer(range(9), range(9)))), np.eye(9)[:, 8:]),
    "saturated target": case(
        weights(6, 18) * np.array([[1, 1, 1, 1, 1, 0]]).T - np.eye(6), first(6, 2)
    ),
    "saturated target left alone": case(
        weights(6, 18) * np.array([[1, 1, 1, 1, 1, 0]]).T - np.eye(6), first(6, 2), [1] * 5 + [0]
    ),
    "input hardly heard": case(weights(6, 19) - np.eye(6), silent(first(6, 2), 1e-12)),
    "input all but unheard": case(
        blocks(weights(4, 20), weights(3, 21)) - np.eye(7), silent(np.eye(7)[:, [0, 4]], 1e-100)
    ),
    "input unheard": case(
        blocks(weights(4, 20), weights(3, 21)) - np.eye(7), silent(np.eye(7)[:, [0, 4]], 0.0)
    ),
    "no inputs": case(-np.eye(2), np.zeros((2, 1))),
    "no inputs, at rest": case(-np.eye(2), np.zeros((2, 1)), [0, 0]),
    "disconnected": case(blocks(weights(5, 22), weights(4, 23)) - np.eye(9), first(9, 2)),
    "disconnected, other part at rest": case(
        blocks(weights(5, 22), weights(4, 23)) - np.eye(9), first(9, 2), [1, 2, 3, 4, 5, 0, 0, 0, 0]
    ),
    "disconnected, both driven": case(
        blocks(weights(5, 22), weights(4, 23)) - np.eye(9), np.eye(9)[:, [0, 5]]
    ),
    "isolated integrator left alone": case(
        blocks(weights(3, 24) - np.eye(3), [[0.0]]), first(4), [1, 2, 3, 7], [0, 0, 0, 7]
    ),
    "isolated integrator moved": case(
        blocks(weights(3, 24) - np.eye(3), [[0.0]]), first(4), [1, 2, 3, 8], [0, 0, 0, 7]
    ),
    "bridge of 1e-150": case([[-1, 1e-150], [1, -2]], [[0], [1]], [1, 0]),
    "subnormal bridge": case([[-1, 5e-324], [1, -2]], [[0], [1]], [1, 0]),
    "stiff": case(np.diag([-1e6, -1.0]), [[1], [1]]),
    "very stiff": case([[-1e8, 1e3], [1e3, -1.0]], [[0], [1]]),
    "stiff cascade": case(np.diag([-1.0, -1e2, -1e4]) + np.eye(3, k=-1), first(3)),
    "stiff, all driven": case(np.diag([-1e5, -1e2, -1.0]) + dense(3, 25), np.eye(3)),
    "path from its end": case(path(7) - 2 * np.eye(7), first(7)),
    "path from its middle": case(path(7) - 2 * np.eye(7), np.eye(7)[:, 3:4]),
    "path from its middle, same sides": case(
        path(5) - 2 * np.eye(5), np.eye(5)[:, 2:3], [1, 2, 3, 2, 1]
    ),
    "path with a common divisor": case(path(5) - 2 * np.eye(5), np.eye(5)[:, 1:2]),
    "ring from one node": case(ring(6) - 3 * np.eye(6), first(6)),
    "ring from two nodes": case(ring(7) - 3 * np.eye(7), first(7, 2)),
    "star from its hub": case(star(6) - 3 * np.eye(6), first(6)),
    "star from its hub, leaves alike": case(star(6) - 3 * np.eye(6), first(6), [3] + [0.7] * 5),
    "complete graph": case((1 - np.eye(5)) / 8 - np.eye(5), first(5)),
    "mirror, midline driven": case(mirrored(4, 26), np.eye(9)[:, 8:]),
    "mirror, midline driven, same sides": case(
        mirrored(4, 26), np.eye(9)[:, 8:], [1, 2, 3, 4, 1, 2, 3, 4, 5]
    ),
    "mirror, one side driven": case(mirrored(4, 26), first(9)),
    "for ever, one input": case(weights(8, 27) - np.eye(8), first(8), horizon=math.inf),
    "for ever, directed": case(weights(6, 28, False) - np.eye(6), first(6), horizon=math.inf),
    "for ever, Jordan block": case(jordan(5, -1.0), np.eye(5)[:, 4:], horizon=math.inf),
    "for ever, path from its middle": case(
        path(5) - 2 * np.eye(5), np.eye(5)[:, 2:3], horizon=math.inf
    ),
    "map": case(weights(6, 29), first(6, 2), horizon=9.0, step=1.0),
    "map, too few steps": case(weights(6, 29), first(6, 2), horizon=2.0, step=1.0),
    "map, too few steps, right target": case(
        weights(4, 30), first(4), weights(4, 30)[:, 0], horizon=2.0, step=1.0
    ),
    "map that forgets": case(np.eye(4, k=-1), first(4), horizon=4.0, step=1.0),
    "map that forgets its start": case(
        np.eye(4, k=-1), first(4), x0=[1, 2, 3, 4], horizon=6.0, step=1.0
    ),
    "unstable map": case(dense(4, 31, 2.0), first(4), horizon=30.0, step=1.0),
    "map for ever": case(weights(5, 32), first(5), horizon=math.inf, step=1.0),
}


def _span(c):
    """Columns A^j B over the rational numbers, as rows."""
    n, m = c.B.shape
    A = fmpq_mat(n, n, [fmpq(*float(x).as_integer_ratio()) for x in c.A.ravel()])
    block = fmpq_mat(n, m, [fmpq(*float(x).as_integer_ratio()) for x in c.B.ravel()])
    powers = n if c.step is None or math.isinf(c.horizon) else min(n, round(c.horizon / c.step))
    columns = []
    for _ in range(powers):
        columns += block.transpose().tolist()
        block = A * block
    return columns


def is_reachable(c):
    """Whether some input makes the transfer."""
    columns = _span(c)
    rank = fmpq_mat(columns).rank()
    if rank == len(c.A):
        return True
    # in these cases a start that is not zero stays where it is
    d = [fmpq(*float(x - y).as_integer_ratio()) for x, y in zip(c.target, c.x0, strict=True)]
    return fmpq_mat([*columns, d]).rank() == rank


def least_energy(c, exact_energy):
    """The energy to set states that determine the others."""
    reduced, rank = fmpq_mat(_span(c)).rref()
    rows = [next(j for j in range(len(c.A)) if reduced[i, j] != 0) for i in range(rank)]
    if not rows:
        return arb(0)
    bits = 6000 if (np.abs(c.A[c.A != 0]) < 1e-100).any() else 3000
    return exact_energy(
        c.A, c.B, c.x0, c.target, c.horizon, step=c.step, bits=bits, rows=sorted(rows)
    )


SLOW = (
    "subnormal bridge",
    "large symmetric network, three driven",
    "directed network, four driven",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ZOO]
)
def test_every_energy_of_the_zoo_is_decided_and_right(name, exact_energy):
    c = ZOO[name]
    energy = control_energy(LinearSystem(c.A, c.B, step=c.step), c.x0, c.target, c.horizon)
    assert energy.verdict in ("reliable", "unreachable")
    assert (energy.verdict == "reliable") == is_reachable(c)
    if energy.verdict == "unreachable":
        assert energy.value == math.inf
        assert energy.reach_error > 0
        return
    truth = least_energy(c, exact_energy)
    if truth == 0:
        assert energy.value == 0
        return
    assert truth.rel_accuracy_bits() > 60
    log10 = float((truth.log() / arb(10).log()).mid())
    assert energy.log10 == pytest.approx(log10, abs=1e-6)
    if 1e-300 < energy.value < math.inf:
        assert abs(float((arb(float(energy.value)) / truth - 1).mid())) <= energy.bound
