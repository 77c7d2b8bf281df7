import math

import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

from clinode.control.stimulation.bounded_least_squares import BoundedProblem


def drawn(seed):
    """Effects and wants of very different sizes, with bounds of the size that they make."""
    rng = np.random.default_rng(seed)
    S = rng.normal(size=(3, 2, 6)) * 10 ** rng.uniform(-3, 3)
    d = rng.normal(size=3) * 10 ** rng.uniform(-3, 3)
    return S, d, 10 ** rng.uniform(-1, 1) * np.abs(d).max() / np.abs(S).max()


def box(largest, one_sided=False, energy=math.inf):
    allowed = np.full((2, 12), largest)
    if one_sided:
        allowed[:, 6:] = 0.0
    return BoundedProblem(np.concatenate([np.eye(6), -np.eye(6)]), allowed, np.ones(6), energy)


def stacked(S, d, ridge):
    matrix = np.vstack([S.reshape(3, -1), math.sqrt(ridge) * np.eye(12)])
    return matrix, np.concatenate([d, np.zeros(12)])


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_box_is_that_of_bounded_variable_least_squares(seed, one_sided):
    S, d, largest = drawn(seed)
    ridge = 1e-4 * np.linalg.norm(S) ** 2
    found, price = box(largest, one_sided).solve(S, d, ridge)
    low = 0.0 if one_sided else -largest
    best = lsq_linear(*stacked(S, d, ridge), (low, largest), method="bvls", tol=1e-14).x
    np.testing.assert_allclose(found.ravel(), best, atol=1e-6 * largest)
    assert price == ridge


@pytest.mark.parametrize("seed", range(3))
def test_an_energy_is_that_of_a_general_solver(seed):
    S, d, largest = drawn(seed)
    ridge = 1e-4 * np.linalg.norm(S) ** 2
    matrix, wanted = stacked(S, d, ridge)
    free, _ = box(largest).solve(S, d, ridge)
    energy = 0.4 * (free**2).sum()
    found, price = box(largest, energy=energy).solve(S, d, ridge)
    size = d @ d
    best = minimize(
        lambda x: ((matrix @ x - wanted) ** 2).sum() / size,
        0.3 * free.ravel(),
        jac=lambda x: 2 * matrix.T @ (matrix @ x - wanted) / size,
        bounds=[(-largest, largest)] * 12,
        constraints=[{"type": "ineq", "fun": lambda x: 1 - x @ x / energy}],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    ours = ((matrix @ found.ravel() - wanted) ** 2).sum() / size
    assert ours == pytest.approx(best.fun, rel=1e-5, abs=1e-12)
    assert (found**2).sum() <= energy
    assert (found**2).sum() == pytest.approx(energy, rel=1e-3)
    assert price > ridge


def test_without_bounds_it_is_the_ridge_solution():
    S, d, _ = drawn(7)
    ridge = 1e-6 * np.linalg.norm(S) ** 2
    matrix, wanted = stacked(S, d, ridge)
    problem = BoundedProblem(np.zeros((0, 6)), np.zeros((2, 0)), np.ones(6), math.inf)
    found, _ = problem.solve(S, d, ridge)
    best = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    np.testing.assert_allclose(found.ravel(), best, rtol=1e-8, atol=1e-10 * np.abs(best).max())


def test_damping_stays_near():
    S, d, largest = drawn(3)
    near = np.full((2, 6), 0.2 * largest)
    found, _ = box(largest).solve(S, d, 1e-9 * np.linalg.norm(S) ** 2,
                                  1e9 * np.linalg.norm(S) ** 2, near)  # fmt: skip
    np.testing.assert_allclose(found, near, atol=1e-6 * largest)
