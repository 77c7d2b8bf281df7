"""Oracles: closed forms; rest, thresholds and rates of Hodgkin-Huxley by an independent solver."""

import functools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch.func import grad, jacrev

from clinode.brain import FitzHughNagumo, HodgkinHuxley, MorrisLecar
from clinode.dynamics.equilibria import find_equilibria

double = functools.partial(torch.tensor, dtype=torch.float64)


def hodgkin_huxley_in_numpy(t, x, I):
    """Written once more from the paper, for LSODA; x is (4, current) flattened."""
    V, m, h, n = x.reshape(4, -1)
    a_n = 0.01 * (V + 55) / -np.expm1(-(V + 55) / 10)
    a_m = 0.1 * (V + 40) / -np.expm1(-(V + 40) / 10)
    a_h, b_h = 0.07 * np.exp(-(V + 65) / 20), 1 / (1 + np.exp(-(V + 35) / 10))
    b_n, b_m = 0.125 * np.exp(-(V + 65) / 80), 4 * np.exp(-(V + 65) / 18)
    current = I - 120 * m**3 * h * (V - 50) - 36 * n**4 * (V + 77) - 0.3 * (V + 54.387)
    rates = (a_m * (1 - m) - b_m * m, a_h * (1 - h) - b_h * h, a_n * (1 - n) - b_n * n)
    return np.concatenate([current, *rates])


def spike_times(I: float, end: float, x0) -> np.ndarray:
    """Upward crossings of 0 mV."""

    def crossing(t, x, I):
        return x[0]

    crossing.direction = 1  # pyright: ignore[reportFunctionMemberAccess]  # scipy's way
    solved = solve_ivp(
        hodgkin_huxley_in_numpy,
        (0, end),
        x0,
        "LSODA",
        args=(I,),
        events=crossing,
        rtol=1e-9,
        atol=1e-10,
    )
    return solved.t_events[0]


@pytest.fixture(scope="module")
def rest() -> np.ndarray:
    equilibria = find_equilibria(HodgkinHuxley())
    assert len(equilibria) == 1
    assert equilibria[0].is_stable
    return equilibria[0].state.numpy()


# Hodgkin and Huxley


def test_the_squid_axon_rests_at_minus_65_millivolts(rest):
    assert rest[0] == pytest.approx(-64.99638, abs=5e-6)
    torch.testing.assert_close(
        HodgkinHuxley().initial_state(), torch.tensor(rest), rtol=0, atol=1e-4
    )


def test_the_field_of_the_axon_is_that_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(500, 4, generator=generator, dtype=torch.float64)
    x[:, 0] = -100 + 160 * x[:, 0]
    u = 40 * torch.rand(500, 1, generator=generator, dtype=torch.float64)
    expected = hodgkin_huxley_in_numpy(0, x.T.numpy().ravel(), u.squeeze(-1).numpy())
    found = HodgkinHuxley()(0.0, x, u).T.numpy().ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("I", "hertz"), [(10.0, 68.324), (20.0, 86.470)])
def test_the_axon_fires_at_the_rate_of_an_independent_solution(I, hertz, rest):
    times = spike_times(I, 250.0, rest)
    assert 1e3 / np.diff(times)[-4:].mean() == pytest.approx(hertz, abs=2e-3)


def test_the_smallest_step_that_makes_one_spike_and_the_smallest_that_makes_many(rest):
    # 2.2403 and 6.2500, bisected elsewhere to 1e-4; "many" is eight spikes in 600 ms
    assert [len(spike_times(I, 50.0, rest)) for I in (2.2402, 2.2404)] == [0, 1]
    few, many = (len(spike_times(I, 600.0, rest)) for I in (6.2495, 6.2505))
    assert few < 8 <= many


@pytest.mark.parametrize(("rate", "V"), [("alpha_n", -55.0), ("alpha_m", -40.0)])
def test_rates_that_are_0_over_0_have_all_derivatives_to_the_third(rate, V):
    A, V_0 = {"alpha_n": (0.01, -55), "alpha_m": (0.1, -40)}[rate]

    def exact(v):
        return A * (v - V_0) / (1 - mpmath.exp(-(v - V_0) / 10))

    def along(v):
        return getattr(HodgkinHuxley().rates(v.unsqueeze(-1)), rate).squeeze(-1)

    function = along
    for order in range(4):
        for place in (V, V - 1e-7, V + 1e-4, V - 9.99, V + 10.01):
            found = function(torch.tensor(place, dtype=torch.float64)).item()
            with mpmath.workdps(50):
                # the limit itself is approached from a distance that leaves its derivatives exact
                at = mpmath.mpf(place) + (mpmath.mpf(10) ** -18 if place == V else 0)
                expected = float(mpmath.diff(exact, at, order, h=mpmath.mpf(10) ** -8))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-13)
        function = grad(function)


def test_a_warm_axon_gates_faster_by_its_temperature_factor():
    x = torch.tensor([-30.0, 0.2, 0.4, 0.5], dtype=torch.float64)
    u = torch.zeros(1, dtype=torch.float64)
    cold, warm = HodgkinHuxley()(0.0, x, u), HodgkinHuxley(phi=3.0)(0.0, x, u)
    torch.testing.assert_close(warm, cold * torch.tensor([1.0, 3, 3, 3], dtype=torch.float64))


# Morris and Lecar


def test_the_three_published_sets_are_reachable_by_name():
    assert MorrisLecar.hopf().phi.item() == 0.04
    assert MorrisLecar.snic().phi.item() == 1 / 15
    assert MorrisLecar.homoclinic().phi.item() == 0.23
    assert {s().V3.item() for s in (MorrisLecar.snic, MorrisLecar.homoclinic)} == {12.0}


def steady_current(cell, V):
    """I at which V is an equilibrium of Morris and Lecar, in closed form."""
    c = {quantity.name: getattr(cell, quantity.name).item() for quantity in cell.constants}
    m = (1 + math.tanh((V - c["V1"]) / c["V2"])) / 2
    w = (1 + math.tanh((V - c["V3"]) / c["V4"])) / 2
    calcium = c["g_Ca"] * m * (V - c["E_Ca"])
    return c["g_L"] * (V - c["E_L"]) + calcium + c["g_K"] * w * (V - c["E_K"])


def test_equilibria_of_the_class_one_set_are_the_roots_of_its_steady_current():
    cell, grid = MorrisLecar.snic(), np.linspace(-80, 60, 4001)
    values = np.array([steady_current(cell, V) for V in grid]) - 30.0
    signs = np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1]))
    roots = [brentq(lambda V: steady_current(cell, V) - 30.0, grid[i], grid[i + 1]) for i in signs]
    found = find_equilibria(cell, 30.0)
    assert sorted(e.state[0].item() for e in found) == pytest.approx(roots, abs=1e-9)
    assert len(roots) == 3


def test_the_class_two_set_loses_stability_at_its_published_hopf_points():
    cell = MorrisLecar.hopf()
    for V, I in [(-25.270105, 93.857618), (7.800664, 212.018816)]:
        assert steady_current(cell, V) == pytest.approx(I, abs=1e-5)
        w = (1 + math.tanh((V - 2) / 30)) / 2
        state, u = double([V, w]), double([I])
        trace = jacrev(lambda x, u=u: cell(0.0, x, u))(state).trace()
        assert trace.item() == pytest.approx(0, abs=1e-6)


# FitzHugh and Nagumo


def test_fitzhugh_nagumo_turns_at_its_two_hopf_points(drawn):
    c = drawn.uniform(12, a=(0.3, 1.2), b=(0.1, 0.95), tau=(3, 30))
    for sign in (-1, 1):
        v = sign * (1 - c["b"] / c["tau"]).sqrt()
        w = (v + c["a"]) / c["b"]
        I = w - v + v**3 / 3
        start = drawn.near(torch.stack([v, w, I], -1), 13, (0.05, 0.05, 0.05))
        found = drawn.Bifurcation(FitzHughNagumo(), c, torch.trace).solve(start, scale=0.5)
        torch.testing.assert_close(found[:, -1], I, rtol=1e-7, atol=1e-8)


def test_published_fitzhugh_nagumo_turns_at_a_third(drawn):
    constants = {name: getattr(FitzHughNagumo(), name) for name in ("a", "b", "tau")}
    for start, I in [((-1.0, -0.4, 0.3), 0.33128134), ((1.0, 2.0, 1.4), 1.41871866)]:
        point = drawn.Bifurcation(FitzHughNagumo(), constants, torch.trace)
        found = point.solve(double([start]), scale=0.5)
        assert found[0, -1].item() == pytest.approx(I, abs=5e-9)
        assert abs(found[0, 0].item()) == pytest.approx(0.96747093, abs=5e-9)


def test_fitzhugh_nagumo_has_an_imaginary_pair_at_its_hopf_point():
    rng = np.random.default_rng(2)
    for _ in range(200):
        a, b, tau = rng.uniform(0.3, 1.2), rng.uniform(0.1, 1.5), rng.uniform(3, 30)
        if b >= min(tau, 1.0) * 0.98:  # beyond, the point is no Hopf point
            continue
        cell, v = FitzHughNagumo(a=a, b=b, tau=tau), -math.sqrt(1 - b / tau)
        w = (v + a) / b
        I = w - v + v**3 / 3
        state, u = double([v, w]), double([I])
        jacobian = jacrev(lambda x, cell=cell, u=u: cell(0.0, x, u))(state)
        assert cell(0.0, state, u).abs().max().item() < 1e-14
        values = torch.linalg.eigvals(jacobian)
        omega = math.sqrt(1 / tau - (b / tau) ** 2)
        np.testing.assert_allclose(values.real, 0, atol=1e-8)
        np.testing.assert_allclose(values.imag.abs(), omega, rtol=1e-7)
