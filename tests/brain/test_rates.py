import mpmath
import pytest
import torch
from torch.func import grad

from clinode.brain.rates import bounded_exp, linoid, log_ratio


def derivative(function, order):
    for _ in range(order):
        function = grad(function)
    return function


def exact(function, x: float, order: int) -> float:
    with mpmath.workdps(60):
        at = mpmath.mpf(x)
        return float(mpmath.diff(function, at, order) if order else function(at))


@pytest.mark.parametrize(("order", "error"), [(0, 1e-15), (1, 1e-14), (2, 1e-12), (3, 1e-10)])
def test_the_rate_of_a_gate_and_its_derivatives_are_those_of_its_formula(order, error):
    places = torch.linspace(-30, 30, 41).double()[torch.arange(41) != 20]  # not 0 itself
    near = torch.tensor([-1.0001, -0.9999, -1e-5, 1e-12, 0.9999, 1.0001]).double()
    for x in torch.cat([places, near]).tolist():
        expected = exact(lambda z: z / (1 - mpmath.exp(-z)), x, order)
        found = derivative(linoid, order)(torch.tensor(x, dtype=torch.float64)).item()
        assert found == pytest.approx(expected, rel=error, abs=error)


def test_the_rate_of_a_gate_has_the_derivatives_of_its_limit_where_its_formula_is_0_over_0():
    zero = torch.tensor(0.0).double()
    found = [derivative(linoid, order)(zero).item() for order in range(5)]
    assert found == pytest.approx([1, 1 / 2, 1 / 6, 0, -1 / 30], abs=1e-15)  # Bernoulli numbers


@pytest.mark.parametrize("function", [linoid, bounded_exp])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_and_three_derivatives_are_finite_at_any_argument(function, dtype):
    for x in [-1e8, -750.0, -100.0, 0.0, 49.9, 50.0, 50.1, 750.0, 1e6]:
        for order in range(4):
            assert derivative(function, order)(torch.tensor(x, dtype=dtype)).isfinite()


def test_a_saturated_exponential_still_pulls():
    assert grad(bounded_exp)(torch.tensor(1e5)) > 1e20
    x = torch.linspace(-40, 50, 200).double()
    torch.testing.assert_close(bounded_exp(x), x.exp(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_distance_of_two_time_constants_is_smooth_where_they_are_equal(order):
    for x in [1e-6, 0.1, 0.81, 0.82, 0.99999, 1.00001, 1.22, 1.23, 50.0]:
        expected = exact(lambda z: mpmath.log(z) / (z - 1), x, order)
        found = derivative(log_ratio, order)(torch.tensor(x, dtype=torch.float64)).item()
        assert found == pytest.approx(expected, rel=1e-12)
    assert log_ratio(torch.tensor(1.0)) == 1
    assert grad(log_ratio)(torch.tensor(1.0)).item() == pytest.approx(-1 / 2)
