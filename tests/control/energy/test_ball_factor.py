import numpy as np
import pytest
from flint import acb, arb, ctx, fmpq, fmpq_mat

from clinode.control.energy.ball_factor import eliminate, eliminate_cauchy


@pytest.fixture(autouse=True)
def _precision():
    old, ctx.prec = ctx.prec, 128
    yield
    ctx.prec = old


def hilbert(n):
    return [[arb(1) / (i + j + 1) for j in range(n)] for i in range(n)]


def test_energies_on_the_hilbert_matrix_are_those_of_its_rational_inverse():
    n = 10
    inverse = fmpq_mat([[fmpq(1, i + j + 1) for j in range(n)] for i in range(n)]).inv()
    result = eliminate(hilbert(n), [[arb(1), arb(i)] for i in range(n)])
    assert result.rank == n
    for energy, aim in zip(result.energies, ([1] * n, list(range(n))), strict=True):
        column = fmpq_mat([[x] for x in aim])
        assert energy.contains(arb((column.transpose() * inverse * column)[0, 0]))
        assert energy.rel_accuracy_bits() > 30


def test_generators_give_what_the_whole_cauchy_matrix_gives():
    n = 7
    nodes = [acb(1 + 0.3 * i, 0.5 * i * (-1) ** i) for i in range(n)]
    rng = np.random.default_rng(0)
    effects = [[acb(*rng.normal(size=2)) for _ in range(2)] for _ in range(n)]
    matrix = [
        [
            sum((a * b.conjugate() for a, b in zip(effects[j], effects[k], strict=True)), acb(0))
            / (nodes[j] + nodes[k].conjugate())
            for k in range(n)
        ]
        for j in range(n)
    ]
    aims = [[acb(1, i)] for i in range(n)]
    diagonal = [matrix[j][j].real for j in range(n)]
    whole = eliminate(matrix, aims)
    short = eliminate_cauchy(effects, [1, 1], nodes, diagonal, aims)
    assert whole.rank == short.rank == n
    assert whole.energies[0].overlaps(short.energies[0])
    assert whole.energies[0].rel_accuracy_bits() > 40


def test_balls_too_wide_leave_a_lower_bound():
    n = 16
    exact = fmpq_mat([[fmpq(1, i + j + 1) for j in range(n)] for i in range(n)]).inv()
    ones = fmpq_mat([[1]] * n)
    truth = arb((ones.transpose() * exact * ones)[0, 0])
    ctx.prec = 40
    result = eliminate(hilbert(n), [[arb(1)] for _ in range(n)])
    assert 0 < result.rank < n
    assert result.energies[0].lower() > 1
    assert result.energies[0].lower() < truth
