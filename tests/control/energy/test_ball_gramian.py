import math

import numpy as np
import pytest
from flint import arb, ctx

from clinode.control.energy.ball_gramian import ball_gramian
from clinode.control.energy.transfers import state_transfers
from clinode.system import LinearSystem


@pytest.fixture(autouse=True)
def _precision():
    old, ctx.prec = ctx.prec, 400
    yield
    ctx.prec = old


@pytest.mark.parametrize("T", [0.25, 1.0, 40.0])
def test_the_gramian_of_a_double_integrator_is_enclosed_tightly(T):
    linear = LinearSystem([[0.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]])
    W, aims = ball_gramian(state_transfers(linear, [1.0, 2.0], [3.0, 4.0], T), 200)
    t = arb(T)
    for found, exact in zip(W.entries(), [t**3 / 3, t**2 / 2, t**2 / 2, t], strict=True):
        assert found.overlaps(exact)
        assert found.rel_accuracy_bits() > 190
    for found, exact in zip(aims.entries(), [2 - 2 * t, arb(2)], strict=True):
        assert found.overlaps(exact)


@pytest.mark.parametrize(("a", "T"), [(-3.0, 2.0), (2.0, 30.0), (-1e5, 1.0), (-0.5, math.inf)])
def test_the_gramian_of_one_state_is_its_closed_form(a, T):
    W, _ = ball_gramian(state_transfers(LinearSystem([[a]], [[2.0]]), 0.0, 1.0, T), 150)
    exact = -4 / arb(2 * a) if math.isinf(T) else 4 * (arb(2 * a) * T).expm1() / (2 * a)
    assert W[0, 0].overlaps(exact)
    assert W[0, 0].rel_accuracy_bits() > 130


@pytest.mark.parametrize("n_steps", [1, 5, 64])
def test_the_gramian_of_a_map_is_a_geometric_sum(n_steps):
    linear = LinearSystem([[0.5]], [[3.0]], step=0.25)
    W, aims = ball_gramian(state_transfers(linear, 1.0, 1.0, 0.25 * n_steps), 150)
    assert W[0, 0].overlaps(9 * (1 - arb(0.25) ** n_steps) / arb(0.75))
    assert aims[0, 0].overlaps(1 - arb(0.5) ** n_steps)


def test_powers_that_do_not_die_out_are_an_error_not_a_number():
    transfers = state_transfers(LinearSystem(-np.eye(2), np.eye(2)), 0.0, 1.0, math.inf)
    object.__setattr__(transfers, "A", np.diag([1e-3, -1.0]))
    with pytest.raises(ArithmeticError, match="die out"):
        ball_gramian(transfers, 64)
