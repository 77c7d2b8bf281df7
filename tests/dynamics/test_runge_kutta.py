import functools
import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch

from clinode.dynamics.runge_kutta import (
    BULGE,
    ERROR,
    NODES,
    STAGES,
    dormand_prince,
    dormand_prince_curve,
    error_ratio,
    hermite_curve,
    initial_step,
    interpolate,
    root_mean_square,
    step_factor,
)

double = functools.partial(torch.tensor, dtype=torch.float64)
MATRIX = np.zeros((7, 7))
for row, entries in enumerate(STAGES, start=1):
    MATRIX[row, : len(entries)] = entries
C, B = np.array(NODES), MATRIX[6]
LOWER = B - np.array(ERROR)


def conditions(b: np.ndarray) -> dict[int, list[Any]]:
    """Residuals of the order conditions (Hairer, Norsett & Wanner 1993, II.2) by order."""
    A, c = MATRIX, C
    Ac = A @ c
    return {
        1: [b.sum() - 1],
        2: [b @ c - 1 / 2],
        3: [b @ c**2 - 1 / 3, b @ Ac - 1 / 6],
        4: [
            b @ c**3 - 1 / 4,
            b @ (c * Ac) - 1 / 8,
            b @ (A @ c**2) - 1 / 12,
            b @ (A @ Ac) - 1 / 24,
        ],
        5: [
            b @ c**4 - 1 / 5,
            b @ (c**2 * Ac) - 1 / 10,
            b @ (Ac**2) - 1 / 20,
            b @ (c * (A @ c**2)) - 1 / 15,
            b @ (A @ c**3) - 1 / 20,
            b @ (c * (A @ Ac)) - 1 / 30,
            b @ (A @ (c * Ac)) - 1 / 40,
            b @ (A @ A @ c**2) - 1 / 60,
            b @ (A @ A @ Ac) - 1 / 120,
        ],
    }


def test_the_coefficients_satisfy_the_order_conditions():
    np.testing.assert_allclose(MATRIX.sum(axis=1), C, atol=1e-14)
    for order, residuals in conditions(B).items():
        np.testing.assert_allclose(residuals, 0, atol=1e-14, err_msg=f"order {order}")
    lower = conditions(LOWER)
    for order in (1, 2, 3, 4):
        np.testing.assert_allclose(lower[order], 0, atol=1e-14)
    assert np.abs(lower[5]).max() > 1e-4


def test_the_middle_of_the_quartic_is_the_one_of_scipy():
    middle = scipy.integrate.RK45.P @ (0.5 ** np.arange(1, 5))
    # x + theta (rise + (1 - theta)(start + theta (end + (1 - theta) bulge))) at theta = 1/2
    unit = np.eye(7)
    start = unit[0] - B
    end = B - unit[6] - start
    ours = 0.5 * (B + 0.5 * (start + 0.5 * (end + 0.5 * np.array(BULGE))))
    np.testing.assert_allclose(ours, middle, atol=1e-14)


def rate(t, x):
    return torch.stack([x[..., 1], torch.sin(t) - x[..., 0] ** 3 - 0.3 * x[..., 1]], dim=-1)


def test_local_errors_of_step_estimate_and_curve_fall_with_their_orders():
    widths = double([0.12, 0.08, 0.06, 0.04])
    start = double([0.7, -0.2])
    exact = scipy.integrate.solve_ivp(
        lambda t, x: rate(double(t), torch.tensor(x)).numpy(),
        (0.3, 0.7),
        start.numpy(),
        rtol=1e-13,
        atol=1e-14,
        method="DOP853",
        max_step=0.02,
        dense_output=True,
    ).sol
    t, x = torch.full((4,), 0.3, dtype=torch.float64), start.expand(4, 2)
    step = dormand_prince(rate, t, widths, x, rate(t, x))
    cubic = hermite_curve(widths, x, step.x, step.stages)
    quartic = dormand_prince_curve(widths, x, step.x, step.stages)
    theta = torch.full((4,), 0.37, dtype=torch.float64)

    def order(found, at):
        truth = torch.tensor(exact((t + at * widths).numpy()).T)
        return slope_of((found - truth).norm(dim=-1))

    def slope_of(errors):
        return np.polyfit(widths.log().numpy(), errors.log().numpy(), 1)[0]

    assert 5.8 < order(step.x, 1.0) < 7  # its leading term is small
    assert order(interpolate(theta, x, step.x, quartic), 0.37) == pytest.approx(5, abs=0.3)
    assert order(interpolate(theta, x, step.x, cubic), 0.37) == pytest.approx(4, abs=0.3)
    assert order(interpolate(theta, x, step.x, ()), 0.37) == pytest.approx(2, abs=0.3)
    assert slope_of(step.error.norm(dim=-1)) == pytest.approx(5, abs=0.3)
    ends = interpolate(torch.ones(4).double(), x, step.x, quartic)
    torch.testing.assert_close(ends, step.x, rtol=0, atol=1e-15)


def test_a_root_mean_square_of_huge_and_of_tiny_values_does_not_overflow_or_vanish():
    values = double([[3e200, 4e200], [3e-200, 4e-200], [0.0, 0.0]])
    expected = double([1e200, 1e-200, 0.0]) * math.sqrt(12.5)
    torch.testing.assert_close(root_mean_square(values), expected)
    assert root_mean_square(torch.tensor([1.0, math.nan])).isnan()


def test_a_row_of_the_error_is_its_own():
    error = double([[1e-6, 3e-6], [1e-3, 0.0]])
    x, after = double([[1.0, -2.0], [0.0, 0.0]]), double([0.5, 3.0])
    ratio = error_ratio(error, x, after.expand(2, 2), rtol=1e-6, atol=1e-9)
    tolerance = np.array([1e-9 + 1e-6 * 1.0, 1e-9 + 1e-6 * 3.0])
    first = math.sqrt(((np.array([1e-6, 3e-6]) / tolerance) ** 2).mean())
    assert ratio[0].item() == pytest.approx(first)
    zero = error_ratio(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), 1e-6, 0.0)
    assert zero.tolist() == [0.0]


def test_the_step_grows_after_small_errors_and_shrinks_after_large_or_unknown_ones():
    ratio = double([1e-12, 1.0, 1e3, 1e30, math.inf, math.nan])
    factor = step_factor(ratio, torch.ones(6).double(), order=5)
    assert 1 < factor[0] <= 10
    assert factor[1].item() == pytest.approx(0.9)
    assert 0.2 <= factor[2] < 0.9
    assert factor[3:].tolist() == [0.2, 0.2, 0.2]


def test_the_first_step_stays_within_the_span_and_is_of_the_size_of_the_time_constant():
    t, span = torch.zeros(4).double(), double([5.0, 5.0, 1e-9, 5.0])
    x = double([[1.0], [1.0], [1.0], [0.0]])
    rates = double([[1.0], [1e6], [1.0], [1.0]])
    first = initial_step(lambda t, x: -rates * x, t, x, -rates * x, span, 1e-6, 1e-9, 5)
    assert 1e-3 < first[0] < 1
    assert 1e-9 < first[1] <= 1e-6
    assert first[2].item() <= 1e-9
    assert 0 < first[3] <= 5
