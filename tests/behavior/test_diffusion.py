import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

from clinode.behavior import DDM
from clinode.errors import ArgumentError

DOUBLE = torch.float64


def series(t, v, a, w, n=400):
    """Density at the lower bound by the plain series for long times, with many terms."""
    k = np.arange(1, n)
    rates = (k * math.pi / a) ** 2 / 2
    total = (k * np.sin(k * math.pi * w) * np.exp(-rates * t)).sum()
    return math.pi / a**2 * math.exp(-v * a * w - v**2 * t / 2) * total


@pytest.mark.parametrize("seed", range(8))
def test_the_density_is_that_of_hundreds_of_terms(seed):
    draw = np.random.default_rng(seed)
    for _ in range(10):
        v, a, w = draw.uniform(-8, 8), draw.uniform(0.4, 3), draw.uniform(0.05, 0.95)
        t = draw.uniform(0.01, 3) * a**2
        model = DDM(v, a, w, 0.2)
        found = [float(model.log_prob(t + 0.2, choice).exp()) for choice in (0.0, 1.0)]
        expected = [series(t, v, a, w), series(t, -v, a, 1 - w)]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_published_figures_of_probability_time_and_density():
    model = DDM(1.0, 2.0, 0.5, 0.0)
    assert float(model.probability(1.0)) == pytest.approx(0.88079708, abs=5e-9)
    assert float(model.mean_decision_time()) == pytest.approx(0.76159416, abs=5e-9)
    for t, choice, density in ((0.5, 0, 0.11881060), (1.0, 0, 0.05102599), (0.5, 1, 0.87789818)):
        assert float(model.log_prob(t, float(choice)).exp()) == pytest.approx(density, abs=5e-9)
    model = DDM(2.0, 1.0, 0.3, 0.0)
    assert float(model.probability(1.0)) == pytest.approx(0.71184366, abs=5e-9)
    assert float(model.mean_decision_time()) == pytest.approx(0.20592183, abs=5e-9)


@pytest.mark.parametrize("seed", range(6))
def test_distribution_functions_are_the_integrals_of_densities(seed):
    draw = np.random.default_rng(seed)
    v, a, w = draw.uniform(-10, 10), draw.uniform(0.3, 2), draw.uniform(0.03, 0.97)
    model = DDM(v, a, w, 0.0)
    for end in np.array([0.03, 0.39, 0.41, 3.0]) * a**2:
        for choice in (0.0, 1.0):
            points = [0.4 * a**2] if end > 0.4 * a**2 else None
            area = quad(
                lambda t, c=choice: float(model.log_prob(t, c).exp()),
                0,
                end,
                epsabs=1e-12,
                limit=200,
                points=points,
            )[0]
            assert float(model.cdf(end, choice)) == pytest.approx(area, abs=1e-9)
    assert float(model.cdf(math.inf, 1.0) + model.cdf(math.inf, 0.0)) == pytest.approx(1, abs=1e-12)


def test_tails_keep_their_logarithm_and_its_gradients():
    for v, a, w, after in (
        (1.0, 2.0, 0.5, 1e-4),
        (20.0, 1.0, 0.9, 1e-4),
        (-20.0, 1.0, 0.1, 5.0),
        (0.0, 0.5, 0.5, 40.0),
        (10.0, 2.0, 0.99, 1e-3),
    ):
        given = [torch.tensor(x, dtype=DOUBLE, requires_grad=True) for x in (v, a, w, 0.3)]
        for choice in (0.0, 1.0):
            value = DDM(*given).log_prob(0.3 + after, choice)
            assert bool(value.isfinite())
            gradients = torch.autograd.grad(value, given)
            assert all(bool(g.isfinite()) for g in gradients)


def test_gradients_are_those_of_finite_differences_on_both_sides_of_the_meeting_time():
    given = [torch.tensor(x, dtype=DOUBLE, requires_grad=True) for x in (0.7, 1.3, 0.4, 0.2)]
    rt = torch.tensor([0.3, 0.8, 0.88, 2.0], dtype=DOUBLE)
    choice = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=DOUBLE)
    assert torch.autograd.gradcheck(lambda *p: DDM(*p).log_prob(rt, choice), given)
    assert torch.autograd.gradcheck(lambda *p: DDM(*p).cdf(rt, choice), given)


def test_no_drift_is_no_special_case():
    near, at = DDM(1e-9, 1.5, 0.3, 0.0), DDM(0.0, 1.5, 0.3, 0.0)
    assert float(at.probability(1.0)) == pytest.approx(0.3, abs=1e-12)
    assert float(at.mean_decision_time()) == pytest.approx(1.5**2 * 0.3 * 0.7, abs=1e-12)
    torch.testing.assert_close(near.cdf(0.7, 1.0), at.cdf(0.7, 1.0), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "given", [{"drift_spread": 0.9}, {"start_range": 0.3}, {"non_decision_range": 0.2}]
)
def test_variability_between_trials_is_a_mixture(given):
    generator = torch.Generator().manual_seed(2)
    model = DDM(0.8, 1.6, 0.45, 0.4, **given)
    drawn = model.sample(3000, generator)
    for choice in (0.0, 1.0):
        own = drawn.rt[drawn.choice == choice]
        share = float(model.cdf(60.0, choice))
        assert len(own) / 3000 == pytest.approx(share, abs=4 * math.sqrt(0.25 / 3000))
        test = kstest(own.numpy(), lambda t, c=choice, s=share: model.cdf(t, c).numpy() / s)
        assert test.pvalue > 1e-3
    times = np.linspace(0.6, 3.0, 4001)
    density = model.log_prob(times, 1.0).exp().numpy()
    area = np.trapezoid(density, times)
    assert area == pytest.approx(float(model.cdf(3.0, 1.0) - model.cdf(0.6, 1.0)), abs=1e-5)


def test_samples_follow_the_distribution_function():
    generator = torch.Generator().manual_seed(0)
    model = DDM([1.0, -2.0], 1.5, 0.4, 0.25)
    drawn = model.sample(5000, generator)
    assert drawn.rt.shape == (5000, 2)
    for k, v in enumerate((1.0, -2.0)):
        one = DDM(v, 1.5, 0.4, 0.25)
        for choice in (0.0, 1.0):
            own = drawn.rt[:, k][drawn.choice[:, k] == choice]
            share = float(one.probability(choice))
            test = kstest(own.numpy(), lambda t, m=one, c=choice, s=share: m.cdf(t, c).numpy() / s)
            assert test.pvalue > 1e-3


def test_parameters_broadcast_against_trials():
    rt = torch.tensor([0.4, 0.6, 0.9], dtype=DOUBLE)
    many = DDM(torch.tensor([[0.5], [1.5]]), 1.2, 0.5, 0.2).log_prob(rt, 1.0)
    assert many.shape == (2, 3)
    torch.testing.assert_close(many[1], DDM(1.5, 1.2, 0.5, 0.2).log_prob(rt, 1.0))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bound": -1.0}, "bound must be finite and above 0"),
        ({"start": 1.0}, "start must be finite and above 0 and below 1"),
        ({"non_decision": -0.1}, "non_decision must be finite and above"),
        ({"drift": math.nan}, "drift must be finite"),
        ({"start": 0.1, "start_range": 0.3}, "start_range leaves"),
        ({"non_decision": 0.05, "non_decision_range": 0.2}, "reaches below"),
    ],
)
def test_parameters_out_of_range_are_refused(given, told):
    with pytest.raises(ArgumentError, match=told):
        DDM(**given)
