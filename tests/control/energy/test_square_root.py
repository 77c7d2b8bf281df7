import math

import numpy as np
import pytest
from flint import arb

from clinode.control.energy.full_control import full_control_energies
from clinode.control.energy.square_root import spectral_bound, square_root_energies
from clinode.control.energy.transfers import state_transfers
from clinode.system import LinearSystem


@pytest.mark.parametrize("seed", range(12))
def test_brackets_hold_the_energy_whatever_the_system(seed, exact_energy):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 9)), int(rng.integers(1, 4))
    A = rng.normal(size=(n, n)) * rng.choice([0.1, 1.0, 3.0])
    if seed % 3 == 0:
        A = np.triu(A)
    B, T = rng.normal(size=(n, m)), float(rng.choice([0.01, 1.0, 6.0]))
    x0, target = rng.normal(size=(2, n))
    bracket = square_root_energies(state_transfers(LinearSystem(A, B), x0, target, T))
    assert bracket is not None
    truth = exact_energy(A, B, x0, target, T, bits=2000)
    assert arb(float(bracket.low[0])) <= truth
    assert truth <= arb(float(bracket.high[0]))


@pytest.mark.parametrize("T", [1e-3, 1.0, 50.0, math.inf])
def test_the_closed_form_with_full_control_brackets_the_energy(T, exact_energy):
    rng = np.random.default_rng(0)
    W = rng.random((5, 5))
    A, B = (W + W.T) / 12 - np.eye(5), 2.0 * np.eye(5)[:, [3, 1, 0, 2, 4]]
    x0, target = rng.normal(size=(2, 5))
    bracket = full_control_energies(state_transfers(LinearSystem(A, B), x0, target, T))
    assert bracket is not None
    truth = exact_energy(A, B, 0 * x0 if math.isinf(T) else x0, target, T)
    low, high = float(bracket.low[0]), float(bracket.high[0])
    assert arb(low) <= truth
    assert truth <= arb(high)
    assert high / low - 1 < 1e-10


@pytest.mark.parametrize(
    "B", [np.diag([1.0, 2.0]), np.array([[1.0, 1.0], [1.0, -1.0]]), [[1.0], [0]]]
)
def test_other_inputs_have_no_such_closed_form(B):
    linear = LinearSystem(-np.eye(2), B)
    assert full_control_energies(state_transfers(linear, 0.0, 1.0, 1.0)) is None


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (40, 40)])
def test_the_bound_on_a_norm_is_above_it(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    norm = np.linalg.norm(matrix, 2)
    assert norm <= spectral_bound(matrix) <= math.sqrt(shape[0]) * norm
