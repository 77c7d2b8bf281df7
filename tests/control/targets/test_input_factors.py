"""Factors of every single input's Gramian, against Lyapunov equations, sums and energies."""

import math

import numpy as np
import pytest
import scipy.linalg

from clinode.control.energy.energy import control_energy
from clinode.control.targets.input_factors import input_factors, output_energies
from clinode.errors import ArgumentError
from clinode.system import LinearSystem


def drawn(seed, n=8, m=3, decay=1.8):
    draws = np.random.default_rng(seed)
    A = draws.normal(size=(n, n)) / math.sqrt(n) - decay * np.eye(n)
    return A, draws.normal(size=(n, m)), draws.normal(size=(2, n))


@pytest.mark.parametrize("seed", range(5))
def test_over_all_time_they_solve_the_lyapunov_equation(seed):
    A, B, _ = drawn(seed)
    for i, F in enumerate(input_factors(A, B, math.inf)):
        expected = scipy.linalg.solve_continuous_lyapunov(A, -np.outer(B[:, i], B[:, i]))
        np.testing.assert_allclose(F @ F.T, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("horizon", [0.01, 1.0, 7.3])
def test_over_a_horizon_they_are_the_integral(horizon):
    A, B, C = drawn(3, decay=0.0)  # unstable: a finite horizon may be
    n = len(A)
    for i, F in enumerate(input_factors(A, B, horizon, C)):
        block = np.block([[-A, np.outer(B[:, i], B[:, i])], [np.zeros_like(A), A.T]])
        exponential = scipy.linalg.expm(block * horizon)
        expected = C @ (exponential[n:, n:].T @ exponential[:n, n:]) @ C.T
        np.testing.assert_allclose(F @ F.T, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_of_a_map_they_are_the_sum(steps):
    A, B, C = drawn(4)
    A = A / 1.1 / np.abs(np.linalg.eigvals(A)).max()
    powers = [C @ np.linalg.matrix_power(A, k) @ B for k in range(steps)]
    for i, F in enumerate(input_factors(A, B, float(steps), C, steps)):
        expected = sum(np.outer(M[:, i], M[:, i]) for M in powers)
        np.testing.assert_allclose(F @ F.T, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("seed", range(6))
def test_energies_to_outputs_are_those_that_are_certified(seed):
    A, B, C = drawn(seed, n=12)
    aim = np.random.default_rng(seed).normal(size=2)
    low, high = output_energies(input_factors(A, B, 2.0, C), aim)
    np.testing.assert_array_equal(low, high)
    for i, energy in enumerate(low):
        linear = LinearSystem(A, B[:, [i]], C)
        certified = control_energy(linear, 0.0, aim, 2.0, outputs=True)
        assert certified.verdict == "reliable"
        assert energy == pytest.approx(float(certified.value), rel=1e-6)


def test_energies_that_float64_cannot_tell_are_bounded_from_below():
    A, B, _ = drawn(0, n=30, m=1)
    aim = np.ones(30)
    low, high = output_energies(input_factors(A, B, 1.0), aim)
    certified = control_energy(LinearSystem(A, B), 0.0, aim, 1.0)
    assert certified.verdict == "reliable"
    assert 1e10 < low[0] <= float(certified.value)
    assert high[0] == math.inf


def test_an_input_that_moves_nothing_costs_more_than_anything():
    silent = input_factors(-np.eye(3), np.zeros((3, 1)), 1.0, np.ones((1, 3)))
    low, high = output_energies(silent, np.ones(1))
    assert low[0] == high[0] == math.inf


@pytest.mark.parametrize("horizon", [math.inf, 1e6])
def test_effects_beyond_float64_are_refused(horizon):
    with pytest.raises(ArgumentError, match="grow beyond float64"):
        input_factors(np.array([[1.0]]), np.ones((1, 1)), horizon)
