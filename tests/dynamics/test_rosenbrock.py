import numpy as np
import pytest
import torch

from clinode.dynamics.rosenbrock import (
    COUPLING,
    GAMMA,
    NODES,
    STAGES,
    TIME,
    derivatives,
    forward_derivatives,
    rodas4,
    rodas4_curve,
)
from clinode.dynamics.runge_kutta import dormand_prince, interpolate


def classical_form() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """alpha, gamma and b of a Rosenbrock method in its usual form (Hairer & Wanner 1996, IV.7)."""
    A, C = np.zeros((6, 6)), np.zeros((6, 6))
    for i in range(5):
        A[i + 1, : len(STAGES[i])], C[i + 1, : len(COUPLING[i])] = STAGES[i], COUPLING[i]
    gamma = np.linalg.inv(np.eye(6) / GAMMA - C)
    return A @ gamma, gamma, (A[5] + np.eye(6)[5]) @ gamma


def test_the_coefficients_satisfy_the_order_conditions_and_are_stiffly_accurate():
    alpha, gamma, b = classical_form()
    beta = alpha + gamma
    a, g, B = alpha.sum(axis=1), gamma.sum(axis=1), beta.sum(axis=1)
    np.testing.assert_allclose(a, NODES, atol=1e-13)
    np.testing.assert_allclose(g, TIME, atol=1e-13)
    residuals = [
        b.sum() - 1,
        b @ B - 1 / 2,
        b @ a**2 - 1 / 3,
        b @ beta @ B - 1 / 6,
        b @ a**3 - 1 / 4,
        b @ (a * (alpha @ B)) - 1 / 8,
        b @ beta @ a**2 - 1 / 12,
        b @ beta @ beta @ B - 1 / 24,
    ]
    np.testing.assert_allclose(residuals, 0, atol=1e-12)
    # R(inf) = 1 - b' beta^-1 1 = 0: what is infinitely fast is gone after one step
    assert abs(1 - b @ np.linalg.solve(beta, np.ones(6))) < 1e-12


def rate(t, x):
    swing = torch.sin(t) - x[..., 0] ** 3 - 0.3 * x[..., 1]
    return torch.stack([x[..., 1] * torch.cos(t), swing], dim=-1)


def test_local_errors_fall_with_their_orders_in_a_field_that_depends_on_time():
    widths = torch.tensor([0.1, 0.05, 0.025], dtype=torch.float64)
    t = torch.full((3,), 0.3, dtype=torch.float64)
    x = torch.tensor([0.7, -0.2], dtype=torch.float64).expand(3, 2)
    step = rodas4(rate, t, widths, x, rate(t, x))

    def order(found, fraction):
        exact, time, slope, width = x, t, rate(t, x), fraction * widths / 32
        for _ in range(32):
            part = dormand_prince(rate, time, width, exact, slope)
            exact, slope, time = part.x, part.slope, time + width
        error = (found - exact).norm(dim=-1)
        return np.polyfit(widths.log().numpy(), error.log().detach().numpy(), 1)[0]

    curve = rodas4_curve(widths, x, step.x, step.stages)
    assert order(step.x, 1.0) == pytest.approx(5, abs=0.3)
    theta = torch.full((3,), 0.4, dtype=torch.float64)
    assert order(interpolate(theta, x, step.x, curve), 0.4) == pytest.approx(4, abs=0.3)


def test_one_step_of_any_width_brings_an_infinitely_fast_state_to_its_slow_manifold():
    t, h = torch.zeros(3).double(), torch.tensor([1e-3, 1.0, 1e3]).double()
    x = torch.full((3, 1), 5.0).double()
    step = rodas4(lambda t, x: -1e12 * (x - 2), t, h, x, -1e12 * (x - 2))
    torch.testing.assert_close(step.x, torch.full((3, 1), 2.0).double(), rtol=0, atol=1e-7)


def test_both_ways_of_differentiating_are_those_of_torch_func_and_can_be_differentiated():
    generator = torch.Generator().manual_seed(3)
    t = torch.rand(4, generator=generator).double()
    x = torch.randn(4, 2, generator=generator).double().requires_grad_()
    expected = torch.func.vmap(torch.func.jacfwd(rate, argnums=1))(t, x)
    in_time = torch.func.vmap(torch.func.jacfwd(rate, argnums=0))(t, x)
    for how in (derivatives, forward_derivatives):
        jacobian, drift = how(rate, t, x)
        torch.testing.assert_close(jacobian, expected)
        torch.testing.assert_close(drift, in_time)
        (gradient,) = torch.autograd.grad(jacobian[:, 1, 0].sum(), x)
        torch.testing.assert_close(gradient[:, 0], -6 * x[:, 0])
    constant = derivatives(lambda t, x: torch.ones(x.shape).double(), t, x)
    assert not any(part.any() for part in constant)
