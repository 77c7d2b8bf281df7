import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, root

from clinode.brain.populations import (
    JansenRit,
    SNICOscillator,
    ThetaPopulation,
    WilsonCowan,
)
from clinode.dynamics.cycles import find_limit_cycle
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError
from clinode.units import check_dimensions


def jacobian(system, x, u):
    x, u = torch.as_tensor(x).double(), torch.as_tensor(u).double()
    return torch.func.jacrev(lambda x: system.vector_field(0.0, x, u))(x).numpy()


# Wilson-Cowan


def wilson_cowan(x, P, Q, k, shift=True):
    """The equations in plain numpy, in units of tau; k(a, theta) is the saturation."""

    def S(v, a, theta):
        return 1 / (1 + np.exp(-a * (v - theta))) - shift / (1 + np.exp(a * theta))

    E, I = x
    return np.array(
        [
            -E + (k(1.3, 4.0) - E) * S(16 * E - 12 * I + P, 1.3, 4.0),
            -I + (k(2.0, 3.7) - I) * S(15 * E - 3 * I + Q, 2.0, 3.7),
        ]
    )


def from_above(a, theta):
    return 1 - 1 / (1 + np.exp(a * theta))


SATURATIONS = {
    "asymptote": ({"k": from_above}, (0.2017484, 0.1068894), 4.995894),
    "one": ({"k": lambda a, theta: 1.0}, (0.2023651, 0.1079719), 5.003411),
}


@pytest.mark.parametrize("convention", SATURATIONS)
def test_wilson_and_cowan_oscillate_around_their_focus(convention):
    _, focus, period = SATURATIONS[convention]
    system, u = WilsonCowan(convention=convention), torch.tensor([1.25, 0.0]).double()
    (found,) = find_equilibria(system, u=u)
    assert found.kind == "unstable focus"
    np.testing.assert_allclose(found.state, focus, atol=5e-8)
    cycle = find_limit_cycle(system, [0.1, 0.1], u=u)
    assert float(cycle.period) == pytest.approx(10 * period, abs=1e-5)
    if convention == "asymptote":
        np.testing.assert_allclose(10 * found.eigenvalues[0], 0.11555 + 1.87003j, atol=6e-6)


@pytest.mark.parametrize("convention", [*SATURATIONS, "logistic"])
def test_wilson_cowan_rates_are_those_of_the_paper(convention):
    how = {"k": lambda a, theta: 1.0, "shift": False}
    how = SATURATIONS[convention][0] if convention in SATURATIONS else how
    rng = np.random.default_rng(0)
    system = WilsonCowan(convention=convention)
    for x, u in zip(rng.uniform(0, 0.5, (50, 2)), rng.uniform(-1, 3, (50, 2)), strict=True):
        found = 10 * system.vector_field(0.0, torch.tensor(x), torch.tensor(u))
        np.testing.assert_allclose(found, wilson_cowan(x, *u, **how), atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_period_of_wilson_cowan_is_that_of_a_long_integration(seed):
    P = np.random.default_rng(seed).uniform(1.1, 1.7)
    cycle = find_limit_cycle(WilsonCowan(), [0.1, 0.1], u=torch.tensor([P, 0.0]).double())

    def upward(t, x):
        return x[0] - 0.2

    upward.direction = 1  # pyright: ignore[reportFunctionMemberAccess]
    found = solve_ivp(
        lambda t, x: wilson_cowan(x, P, 0.0, from_above),
        (0, 150), [0.1, 0.1], events=upward, rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    assert float(cycle.period) == pytest.approx(10 * np.diff(found.t_events[0])[-1], rel=1e-7)


def test_silence_stays_silent_unless_the_response_is_not_shifted():
    silent, nothing = torch.zeros(2).double(), torch.zeros(2).double()
    assert WilsonCowan().vector_field(0.0, silent, nothing).abs().max() < 1e-17
    assert WilsonCowan(convention="logistic").vector_field(0.0, silent, nothing).min() > 0


def test_an_unknown_convention_is_refused_with_the_known_ones():
    with pytest.raises(ArgumentError, match="there are 'asymptote', 'one', 'logistic'"):
        WilsonCowan(convention="1972")


# Jansen-Rit


def sigmoid(v):
    return 5 / (1 + np.exp(0.56 * (6 - v)))


def column(y, C):
    """The equilibrium with y1 - y2 = y and the p that it needs, in closed form."""
    y0 = 3.25 / 100 * sigmoid(y)
    y2 = 22 / 50 * 0.25 * C * sigmoid(0.25 * C * y0)
    p = 100 / 3.25 * (y + y2) - 0.8 * C * sigmoid(C * y0)
    return np.array([y0, y + y2, y2, 0, 0, 0]), p


def hopf_points(C):
    """(p, Hz) where a pair of eigenvalues along the explicit equilibria becomes imaginary."""
    system = JansenRit(C=C)

    def leading(y):
        x, p = column(y, C)
        eigenvalues = np.linalg.eigvals(jacobian(system, x, [p]))
        pairs = eigenvalues[eigenvalues.imag > 0.1]
        return pairs[pairs.real.argmax()] if len(pairs) else -1e9 + 0j

    grid = np.linspace(-5, 12, 341)
    values = [leading(y).real for y in grid]
    found = []
    for a, b, fa, fb in zip(grid, grid[1:], values, values[1:], strict=False):
        if fa * fb < 0 and abs(fa) < 1e3 and abs(fb) < 1e3:
            y = brentq(lambda y: leading(y).real, a, b, xtol=1e-13)
            if abs(leading(y).real) < 1e-6:  # else another pair took the lead there
                found.append((column(y, C)[1], leading(y).imag / (2 * math.pi)))
    return found


def fold_points(C):
    grid = np.linspace(-5, 12, 4001)

    def slope(y):
        return (column(y + 1e-6, C)[1] - column(y - 1e-6, C)[1]) / 2e-6

    values = [slope(y) for y in grid]
    pairs = zip(grid, grid[1:], values, values[1:], strict=False)
    return [column(brentq(slope, a, b), C)[1] for a, b, fa, fb in pairs if fa * fb < 0]


def test_jansen_rit_has_the_hopf_points_and_folds_of_grimbert_and_faugeras():
    found = sorted(hopf_points(135.0))
    np.testing.assert_allclose([p for p, _ in found], [-12.1475, 89.8291, 315.6964], atol=6e-5)
    np.testing.assert_allclose([f for _, f in found], [7.239, 10.377, 11.164], atol=6e-4)
    np.testing.assert_allclose(sorted(fold_points(135.0)), [-41.30141, 113.58627], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_jansen_rit_rests_where_its_explicit_input_says(seed):
    rng = np.random.default_rng(seed)
    C, y = rng.uniform(100, 160), rng.uniform(0, 9)
    x, p = column(y, C)
    found = find_equilibria(JansenRit(C=C), u=p, n_starts=512)
    grid = np.linspace(-10, 30, 20001)
    n_roots = np.count_nonzero(np.diff(np.sign([column(y, C)[1] - p for y in grid])))
    assert len(found) == n_roots
    assert min(np.abs(one.state.numpy() - x).max() for one in found) < 1e-7


def test_the_alpha_rhythm_comes_at_the_paper_s_input():
    cycle = find_limit_cycle(JansenRit(), [0.1, 22.0, 14.0, 0.0, 0.0, 0.0], u=220.0)
    assert 9 < 1 / float(cycle.period) < 12
    system, x = JansenRit(), torch.arange(6.0).double()
    assert system.output(0.0, x, torch.zeros(1).double()).tolist() == [-1.0]


# Theta population


@pytest.mark.parametrize("seed", range(5))
def test_uncoupled_theta_neurons_fire_at_the_mean_of_their_own_rates(seed):
    rng = np.random.default_rng(seed)
    eta, Delta, I, tau = rng.uniform(-3, 3), rng.uniform(0.2, 2), rng.uniform(-2, 2), 7.0
    system = ThetaPopulation(tau=tau, Delta=Delta, eta=eta, J=0.0)
    found = find_equilibria(system, u=I)
    rate = next(float(one.state[0]) for one in found if one.is_stable)

    def share(s):  # eta' = s^2, so that the square root has no kink
        return 2 * s * s * Delta / (math.pi * ((s * s - eta - I) ** 2 + Delta**2))

    mean = quad(share, 0, 50, limit=400, points=[max(eta + I, 0.01) ** 0.5])[0]
    tail = 2 * Delta / math.pi / 50  # of s^-2 beyond
    assert rate == pytest.approx((mean + tail) / (math.pi * tau), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_coupled_theta_neurons_rest_where_their_rate_feeds_itself(seed):
    rng = np.random.default_rng(seed)
    eta, J = rng.uniform(-6, 0), rng.uniform(5, 20)

    def closed(r):  # rate of the uncoupled population under its own recurrent drive
        drive = eta + J * r
        return math.sqrt(drive + math.hypot(drive, 1)) / (math.sqrt(2) * math.pi) - r

    box = {"r": (0.0, 10.0), "v": (-5.0, 5.0)}
    found = find_equilibria(ThetaPopulation(tau=1.0, eta=eta, J=J), box=box)
    rates = [float(one.state[0]) for one in found if one.state[0] > 0]
    grid = np.linspace(1e-6, 10, 200_001)
    values = np.array([closed(r) for r in grid])
    crossings = np.nonzero(np.diff(np.sign(values)))[0]
    expected = [brentq(closed, grid[i], grid[i + 1], xtol=1e-14) for i in crossings]
    np.testing.assert_allclose(sorted(rates), expected, rtol=1e-8)


# SNIC


@pytest.mark.parametrize("seed", range(3))
def test_beyond_a_snic_the_frequency_is_the_root_of_the_distance(seed):
    rng = np.random.default_rng(seed)
    mu, tau = 10 ** rng.uniform(-2, -0.3), rng.uniform(0.5, 5)
    cycle = find_limit_cycle(SNICOscillator(tau=tau), [0.9, 0.3], u=mu)
    assert 1 / float(cycle.period) == pytest.approx(math.sqrt(mu) / (math.pi * tau), rel=1e-7)
    np.testing.assert_allclose(cycle.states.norm(dim=-1), 1, atol=1e-7)


@pytest.mark.parametrize("mu", [-0.5, -0.1, -1e-3])
def test_before_a_snic_rest_recovers_at_the_root_of_the_distance(mu):
    node, saddle, _ = sorted(
        find_equilibria(SNICOscillator(kappa=2.0), u=mu),
        key=lambda one: float(one.eigenvalues.real.sum()),
    )
    rates = sorted([*node.eigenvalues.real.tolist(), *saddle.eigenvalues.real.tolist()])
    along = 2 * math.sqrt(-mu)
    np.testing.assert_allclose(rates, sorted([-4, -4, -along, along]), atol=1e-7)


def test_constants_may_be_trained_through_an_equilibrium():
    theta = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([0.5, 0.0]).double()
    (rest,) = find_equilibria(WilsonCowan().with_constants(theta_e=theta), u=u)
    (found,) = torch.autograd.grad(rest.state[0], theta)

    def moved(step):
        system = WilsonCowan(theta_e=4.0 + step)
        solved = root(
            lambda x: system.vector_field(0.0, torch.tensor(x), u).numpy(),
            rest.state.detach().numpy(),
            tol=1e-13,
        )
        return solved.x[0]

    assert float(found) == pytest.approx((moved(1e-4) - moved(-1e-4)) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("make", [WilsonCowan, JansenRit, ThetaPopulation, SNICOscillator])
def test_units_agree(make):
    check_dimensions(make())
