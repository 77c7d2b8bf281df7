"""A zoo of linear systems whose controllable dimension is known, and who gets it wrong.

`scripts/benchmarks/control.py` prints `table()` from here.
"""

import functools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from flint import fmpq, fmpq_mat

from clinode.brain.connectome import Connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.control.controllability.controllability import controllability
from clinode.dynamics import find_equilibria, linearize
from clinode.system import LinearSystem, Quantity


def driven(n, *nodes):
    return np.eye(n)[:, list(nodes)]


def path(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


def ring(n):
    return np.roll(np.eye(n), 1, axis=1) + np.roll(np.eye(n), -1, axis=1)


def star(n):
    A = np.zeros((n, n))
    A[0, 1:] = A[1:, 0] = 1.0
    return A


def jordan(n, value=-1.0):
    return value * np.eye(n) + np.eye(n, k=1)


def rotation(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def rotated(A, B, seed=0):
    Q = rotation(len(A), seed)
    return Q @ A @ Q.T, Q @ B


def planted(n, dimension, m, seed, shift=0.0):
    """A random system whose last n - dimension directions nothing moves, behind a rotation."""
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n, n)) + shift * np.eye(n), rng.normal(size=(n, m))
    A[dimension:, :dimension], B[dimension:] = 0.0, 0.0
    return rotated(A, B, seed)


def mirrored(h, seed, is_symmetric=True):
    """Two equal hemispheres and a midline region, which is driven."""
    rng = np.random.default_rng(seed)
    inner, across = rng.uniform(size=(2, h, h))
    to_midline, from_midline = rng.uniform(size=(2, h))
    A = np.zeros((2 * h + 1, 2 * h + 1))
    A[:h, :h] = A[h:-1, h:-1] = inner
    A[:h, h:-1] = A[h:-1, :h] = across
    A[-1, :-1], A[:-1, -1] = np.tile(to_midline, 2), np.tile(from_midline, 2)
    A = (A + A.T) / 2 if is_symmetric else A
    return A / 2 - 2 * np.eye(len(A)), driven(len(A), 2 * h)


def exactly(A, B):
    """Rank of [B, AB, ...] over the rational numbers that the entries are."""
    a, b = (fmpq_mat([[fmpq(*x.as_integer_ratio()) for x in row] for row in M]) for M in (A, B))
    columns = []
    for _ in range(len(A)):
        columns += list(zip(*b.tolist(), strict=True))
        b = a * b
    return fmpq_mat([list(column) for column in columns]).rank()


def connectome_like(n, seed):
    rng = np.random.default_rng(seed)
    places = rng.uniform(size=(n, 3))
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    W = np.exp(-4 * distance) * rng.lognormal(size=(n, n))
    W = np.triu(W, 1) + np.triu(W, 1).T
    return W / (1 + np.abs(np.linalg.eigvalsh(W)).max()) - np.eye(n)


def _graphs():
    for n in (5, 6, 9):
        for node in range((n + 1) // 2):  # Parlangeli & Notarstefano 2012: gcd rule
            yield (
                f"path {n}, node {node + 1}",
                path(n),
                driven(n, node),
                n + 1 - math.gcd(node + 1, n + 1),
            )
        yield f"ring {n}", ring(n), driven(n, 0), n // 2 + 1
        yield f"star {n} from its hub", star(n), driven(n, 0), 2
        yield f"star {n} from a leaf", star(n), driven(n, 1), 3
        yield f"complete {n}", np.ones((n, n)) - np.eye(n), driven(n, 0), 2
    yield "ring 6, nodes 1 and 2", ring(6), driven(6, 0, 1), 6
    yield "ring 6, nodes 1 and 4", ring(6), driven(6, 0, 3), 4
    yield (
        "ring 9, nodes 1 and 4",
        ring(9),
        driven(9, 0, 3),
        8,
    )  # 9 divides 2 * 3 * 3: one mode a pair
    yield "path 60 from its end", path(60), driven(60, 0), 60
    cube = np.array([[float((i ^ j).bit_count() == 1) for j in range(16)] for i in range(16)])
    yield "cube of 4 dimensions", cube, driven(16, 0), 5
    yield "cube, all driven alike", cube, np.ones((16, 1)), 1


def _planted():
    for n, dimension, m, seed in [(6, 3, 1, 0), (20, 15, 2, 1), (40, 21, 1, 2), (60, 45, 3, 3)]:
        yield f"planted {dimension} of {n}", *planted(n, dimension, m, seed), dimension
    yield "planted, unstable", *planted(30, 20, 1, 4, shift=20.0), 20
    yield "planted, stable", *planted(30, 29, 1, 5, shift=-20.0), 29


def _defective():
    for k in (1, 3, 6):
        yield f"Jordan 6, entry {k}", jordan(6), driven(6, k - 1), k
        yield f"Jordan 6 rotated, entry {k}", *rotated(jordan(6), driven(6, k - 1)), k
    yield "Jordan 12 rotated", *rotated(jordan(12, 0.5), driven(12, 11)), 12
    yield "Jordan 12 rotated, one lost", *rotated(jordan(12, 0.5), driven(12, 10)), 11
    two = np.kron(np.eye(2), jordan(3))
    yield "two equal Jordan blocks, one input", two, driven(6, 2) + driven(6, 5), 3
    yield "two equal Jordan blocks, two inputs", two, driven(6, 2, 5), 6
    yield "equal decays", -np.eye(4), np.array([[1.0], [2.0], [3.0], [4.0]]), 1
    yield "20 integrators in a row", np.eye(20, k=1), driven(20, 19), 20
    yield "two integrators side by side", np.zeros((2, 2)), np.array([[1.0], [2.0]]), 1


def _nonnormal():
    grcar = sum(np.eye(30, k=k) for k in range(4)) - np.eye(30, k=-1)
    yield "Grcar 30", grcar, driven(30, 29), 30
    wilkinson = np.eye(20, k=1)
    wilkinson[-1] = -np.poly(np.arange(1.0, 21.0))[:0:-1]
    yield "companion of Wilkinson's polynomial", wilkinson, driven(20, 19), 20
    rng = np.random.default_rng(7)
    layers = np.tril(rng.integers(-3, 4, size=(16, 16)), -1) * (rng.uniform(size=(16, 16)) < 0.4)
    A = layers - np.eye(16)
    yield "feedforward 16, equal decays", A, driven(16, 0), exactly(A, driven(16, 0))
    A = layers - np.diag(1.0 + np.arange(16) / 4)
    yield "feedforward 16", A, driven(16, 0), exactly(A, driven(16, 0))
    L = np.tril(rng.integers(-2, 3, size=(10, 10)), -1) + np.eye(10)
    A, B = np.triu(rng.integers(-3, 4, size=(10, 10))), rng.integers(-3, 4, size=(10, 1))
    A[7:, :7], B[7:] = 0, 0
    A = L @ A @ np.rint(np.linalg.inv(L))
    yield "integers behind a skew basis", A, L @ B, exactly(A, (L @ B).astype(float))


def _networks():
    A, B = mirrored(6, 0)
    yield "mirrored hemispheres", A, B, 7
    A, B = mirrored(6, 1, is_symmetric=False)
    yield "mirrored hemispheres, directed", A, B, 7
    A, B = mirrored(5, 2, is_symmetric=False)
    n = len(A)
    both = np.block([[A, -np.eye(n)], [0.5 * np.eye(n), -np.eye(n)]])
    yield "mirrored hemispheres, E and I", both, np.concatenate([B, 0 * B]), 12
    A, B = mirrored(6, 3)
    A[0, 0] += 0.01
    yield "hemispheres, not quite mirrored", A, B, 13
    for n in (68, 100):
        yield f"network of {n}, one node", connectome_like(n, n), driven(n, 0), n
    A = connectome_like(20, 1)
    A[12:, :12] = A[:12, 12:] = 0.0
    yield "network in two parts", A, driven(20, 0), 12
    A = connectome_like(20, 2)
    A[5] = A[:, 5] = 0.0
    yield "network with an isolated node", A, driven(20, 0), 19
    A = connectome_like(20, 3)
    A[15:, :15] = 0.0
    yield "network with an upstream part", A, driven(20, 0), 15
    yield "inputs connected to nothing", path(5), np.zeros((5, 1)), 0
    yield "equal pair driven equally", np.array([[-1.0, 0.3], [0.3, -1.0]]), np.ones((2, 1)), 1


def _stiff():
    for spread in (3, 6):
        rates = 10.0 ** np.arange(-spread, spread + 1)
        n = len(rates)
        yield f"decays over {2 * spread} decades", -np.diag(rates), np.ones((n, 1)), n
        ladder = -np.diag(rates) + np.diag(rates[1:], k=-1)
        yield f"cascade over {2 * spread} decades", ladder, driven(n, 0), n
    slow = np.array([[-1.0, 0.4], [0.4, -1.0]]) * 1e-3
    A = np.zeros((3, 3))
    A[:2, :2], A[:2, 2], A[2, 2] = slow, 1e-3, -1e5
    yield "slow equal pair behind a fast state", A, driven(3, 2), 2
    A[0, 0] *= 1.01
    yield "slow unequal pair behind a fast state", A, driven(3, 2), 3


def _maps():
    yield "shift register", np.eye(8, k=-1), driven(8, 0), 8
    A, B = planted(20, 12, 1, 8)
    yield "planted map", A / 10, B, 12
    yield (
        "rotation by 90 degrees, twice",
        np.kron(np.eye(2), [[0.0, -1.0], [1.0, 0.0]]),
        np.ones((4, 1)),
        2,
    )


def _saturated():
    """A chain of Wilson-Cowan regions, the third of which is held down."""
    chain = torch.tensor(path(5) * np.arange(1.0, 6.0))
    connectome = Connectome(weights=chain, labels=("a", "b", "c", "d", "e"))
    for drive, dimension in ((0.75, 10), (-40.0, 4), (-1000.0, 4)):
        P = torch.tensor([0.75, 0.75, drive, 0.75, 0.75])
        brain = WilsonCowanNetwork(connectome, P=P)
        rest = find_equilibria(brain, n_starts=4)[0]
        yield (
            f"chain with P_c = {drive:g}",
            brain,
            linearize(brain, rest, ["stimulus:a"]),
            dimension,
        )


@functools.cache
def zoo():
    """(name, LinearSystem, nonlinear System or None, dimension), each."""
    animals = []
    for family in (_graphs, _planted, _defective, _nonnormal, _networks, _stiff, _maps):
        step = 1.0 if family is _maps else None
        for name, A, B, dimension in family():
            animals.append((name, LinearSystem(A.copy(), B.copy(), step=step), None, dimension))
    for name, brain, linear, dimension in _saturated():
        animals.append((name, linear, brain, dimension))
    volts, amounts = Quantity("V", "V"), Quantity("N", "mol")
    A = np.array([[-10.0, 1e14], [1e-16, -1.0]])  # a charge in V and an amount in mol
    linear = LinearSystem(A, [[1.0], [0.0]], states=[volts, amounts])
    animals.append(("two units far apart", linear, None, 2))
    return animals


def _rank_of_control(linear):
    """What python-control's ctrb and NumPy's rank say."""
    import control

    if not linear.n_inputs:
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(np.linalg.matrix_rank(control.ctrb(linear.A.numpy(), linear.B.numpy())))


@functools.cache
def table():
    """One row a system: what is true, what is answered here, and what the rank of ctrb says."""
    rows = []
    for name, linear, system, dimension in zoo():
        found = controllability(linear, system=system)
        rows.append(
            {
                "system": name,
                "n": linear.n_states,
                "dimension": dimension,
                "clinode": found.dimension,
                "ctrb": _rank_of_control(linear),
                "verdict": found.verdict,
            }
        )
    return pd.DataFrame(rows)


def test_every_decided_dimension_is_right_and_nearly_all_are_decided():
    answers = table()
    decided = answers[answers["clinode"].notna()]
    assert len(answers) >= 60
    assert (decided["clinode"] == decided["dimension"]).all(), decided[
        decided["clinode"] != decided["dimension"]
    ].to_string()
    assert len(decided) >= 0.95 * len(answers)


def test_the_rank_of_the_controllability_matrix_misses_many():
    answers = table()
    assert (answers["ctrb"] != answers["dimension"]).sum() >= 10
    small = answers[(answers["n"] <= 6) & ~answers["system"].str.contains("units|slow|planted")]
    assert (small["ctrb"] == small["dimension"]).all(), small.to_string()


@pytest.mark.parametrize("name", ["planted 21 of 40", "mirrored hemispheres", "Jordan 6, entry 3"])
def test_observability_of_the_transposed_system_is_the_same(name):
    (linear, dimension) = next((a[1], a[3]) for a in zoo() if a[0] == name)
    dual = LinearSystem(linear.A.mT, np.eye(len(linear.A)), linear.B.mT)
    assert controllability(dual).observability.dimension == dimension
