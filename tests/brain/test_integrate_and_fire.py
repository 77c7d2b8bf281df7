"""Oracles: closed forms at randomly drawn constants, and independent integration."""

import functools
import math

import numpy as np
import pytest
import torch
from torch.func import jacrev

from clinode.brain import (
    LIF,
    AdaptiveLinear,
    AdEx,
    Izhikevich,
    NoisyLIF,
    Theta,
    lif_rate,
    siegert_rate,
    spike_rate,
)
from clinode.dynamics import simulate
from clinode.dynamics.equilibria import find_equilibria

double = functools.partial(torch.tensor, dtype=torch.float64)


def assert_close(found, expected, relative):
    torch.testing.assert_close(found, expected, rtol=relative, atol=0)


# The passive membrane


def test_a_thousand_passive_membranes_charge_along_their_exponential():
    generator = torch.Generator().manual_seed(3)

    def draw(low, high):
        return low + (high - low) * torch.rand(1000, 1, generator=generator, dtype=torch.float64)

    C, g_L, E_L, I = draw(50, 500), draw(2, 40), draw(-80, -60), draw(-100, 400)
    cell = LIF(C=C, g_L=g_L, E_L=E_L, V_th=1e3)
    times = torch.linspace(0, 60, 13, dtype=torch.float64)
    found = simulate(cell, double([-65.0]), times, I, rtol=1e-10, atol=1e-10).states.squeeze(-1)
    V_inf = E_L + I / g_L
    expected = V_inf + (-65 - V_inf) * torch.exp(-times * g_L / C)
    assert_close(found, expected, 1e-8)


# The membrane with adaptation


def test_the_linear_neuron_rests_and_spirals_as_its_closed_form_says(drawn):
    c = drawn.uniform(4, C=(50, 300), g_L=(1, 30), E_L=(-80, -50), a=(-0.9, 40), tau_w=(5, 300))
    I = drawn.uniform(5, I=(-200, 400))["I"]
    cell = AdaptiveLinear(**{name: value.unsqueeze(-1) for name, value in c.items()})
    g, a, C, tau = (c[name] for name in ("g_L", "a", "C", "tau_w"))
    V = c["E_L"] + I / (g + a)
    rest = torch.stack([V, a * (V - c["E_L"])], -1)
    assert cell(0.0, rest, I.unsqueeze(-1)).abs().max() < 1e-10
    jacobian = jacrev(lambda x: cell(0.0, x, I.unsqueeze(-1)).sum(0))(rest).movedim(0, 1)
    found = torch.linalg.eigvals(jacobian)
    expected = np.linalg.eigvals(
        np.stack([np.stack([-g / C, -1 / C], -1), np.stack([a / tau, -1 / tau], -1)], -2)
    )
    np.testing.assert_allclose(
        np.sort_complex(found.numpy().round(10)), np.sort_complex(expected.round(10)), atol=3e-10
    )
    spirals = (g / C - 1 / tau) ** 2 < 4 * a / (C * tau)
    assert ((found.imag.abs().max(-1).values > 0) == spirals).all()
    assert 50 < spirals.sum() < 240


@pytest.mark.parametrize("a", [-2.0, 0.1, 6.0])
def test_an_equilibrium_of_the_linear_neuron_is_labelled_node_or_focus(a):
    g, C, tau = 5.0, 100.0, 100.0
    (rest,) = find_equilibria(AdaptiveLinear(C=C, g_L=g, a=a, tau_w=tau), 30.0)
    V = -70 + 30 / (g + a)
    np.testing.assert_allclose(rest.state, [V, a * (V + 70)], rtol=1e-10)
    spirals = (g / C - 1 / tau) ** 2 < 4 * a / (C * tau)
    assert rest.kind == ("stable focus" if spirals else "stable node")


# The adaptive exponential neuron


def adex(drawn):
    return drawn.uniform(
        6, C=(100, 400), g_L=(5, 40), E_L=(-80, -60), V_T=(-55, -45), Delta_T=(0.5, 4),
        tau_w=(20, 300), a=(-2, 20),
    )  # fmt: skip


def test_the_rheobase_of_adex_is_its_saddle_node_in_closed_form(drawn):
    c = adex(drawn)
    rise = 1 + c["a"] / c["g_L"]
    V = c["V_T"] + c["Delta_T"] * rise.log()
    I = (c["g_L"] + c["a"]) * (c["V_T"] - c["E_L"] - c["Delta_T"] + c["Delta_T"] * rise.log())
    start = drawn.near(torch.stack([V, c["a"] * (V - c["E_L"]), I], -1), 7, (0.5, 5.0, 20.0))
    point = drawn.Bifurcation(AdEx(), c, torch.linalg.det)
    found = point.solve(start, scale=1.0)
    assert_close(found[:, -1], I, 1e-7)
    slope = point.gradients(found)
    assert_close(slope["V_T"], c["g_L"] + c["a"], 1e-6)
    assert_close(slope["E_L"], -(c["g_L"] + c["a"]), 1e-6)
    assert_close(slope["Delta_T"], (c["g_L"] + c["a"]) * (rise.log() - 1), 1e-6)


def test_where_adaptation_is_strong_and_slow_adex_turns_at_its_hopf_point_first(drawn):
    c = adex(drawn)
    tau_m = c["C"] / c["g_L"]
    ratio = tau_m / c["tau_w"]
    some = c["a"] / c["g_L"] > ratio
    c = {name: value[some] for name, value in c.items()}
    assert len(c["a"]) > 50
    ratio = ratio[some]
    rise = (1 + ratio).log()
    V = c["V_T"] + c["Delta_T"] * rise
    body = c["V_T"] - c["E_L"] - c["Delta_T"] + c["Delta_T"] * rise
    I = (c["g_L"] + c["a"]) * body + c["Delta_T"] * c["g_L"] * (c["a"] / c["g_L"] - ratio)
    start = drawn.near(torch.stack([V, c["a"] * (V - c["E_L"]), I], -1), 8, (0.5, 5.0, 20.0))
    point = drawn.Bifurcation(AdEx(), c, torch.trace)
    found = point.solve(start, scale=1.0)
    assert_close(found[:, -1], I, 1e-7)
    saddle_node = (c["g_L"] + c["a"]) * (
        c["V_T"] - c["E_L"] - c["Delta_T"] + c["Delta_T"] * (1 + c["a"] / c["g_L"]).log()
    )
    assert (found[:, -1] < saddle_node).all()


def test_published_adex_turns_a_tenth_of_a_picoampere_before_its_saddle_node(drawn):
    constants = {n: getattr(AdEx(), n) for n in ("C", "g_L", "E_L", "V_T", "Delta_T", "tau_w", "a")}
    start = double([[-50.0, 80.0, 627.0]])
    values = [
        drawn.Bifurcation(AdEx(), constants, test).solve(start, 1.0)[0, -1].item()
        for test in (torch.linalg.det, torch.trace)
    ]
    assert values == pytest.approx([627.3111, 627.1825], abs=5e-5)


# Izhikevich's neuron


def test_izhikevichs_neuron_folds_and_turns_where_its_closed_forms_say(drawn):
    c = drawn.uniform(9, a=(0.005, 0.2), b=(0.02, 0.4))
    a, b = c["a"], c["b"]
    v = -(5 - b) / 0.08
    I = (5 - b) ** 2 / 0.16 - 140
    fold = drawn.Bifurcation(Izhikevich(), c, torch.linalg.det)
    found = fold.solve(drawn.near(torch.stack([v, b * v, I], -1), 10, (2.0, 1.0, 1.0)), scale=5.0)
    torch.testing.assert_close(found[:, -1], I, rtol=1e-7, atol=1e-8)
    assert_close(fold.gradients(found)["b"], -(5 - b) / 0.08, 1e-6)

    v = (a - 5) / 0.08
    I = (b - 5) * v - 0.04 * v**2 - 140
    turn = drawn.Bifurcation(Izhikevich(), c, torch.trace)
    found = turn.solve(drawn.near(torch.stack([v, b * v, I], -1), 11, (2.0, 1.0, 1.0)), scale=5.0)
    torch.testing.assert_close(found[:, -1], I, rtol=1e-7, atol=1e-8)
    for i in range(0, len(I), 10):  # a true Hopf point where b > a, else a neutral saddle
        system = Izhikevich(a=a[i].item(), b=b[i].item())
        jacobian = jacrev(lambda x, s=system, u=found[i, -1:]: s(0.0, x, u))(found[i, :-1])
        values = torch.linalg.eigvals(jacobian)
        assert (values.imag.abs().max() > 0) == (b[i] > a[i])
        if b[i] > a[i]:
            omega = (a[i] * (b[i] - a[i])).sqrt().item()
            assert values.imag.abs().max().item() == pytest.approx(omega, rel=1e-6)


@pytest.mark.parametrize(("a", "hopf"), [(0.02, 3.7975), (0.1, 3.9375)])
def test_published_types_of_izhikevich_turn_before_their_saddle_node_at_4(a, hopf):
    v = (a - 5) / 0.08
    jacobian = jacrev(lambda x: Izhikevich(a=a)(0.0, x, double([hopf])))(double([v, 0.2 * v]))
    assert jacobian.trace().item() == pytest.approx(0, abs=1e-12)
    assert Izhikevich(a=a)(0.0, double([v, 0.2 * v]), double([hopf])).abs().max() < 1e-12


def test_the_types_of_cortical_neuron_have_their_published_constants():
    types = {
        "regular_spiking": (0.02, 0.2, -65, 8),
        "intrinsically_bursting": (0.02, 0.2, -55, 4),
        "chattering": (0.02, 0.2, -50, 2),
        "fast_spiking": (0.1, 0.2, -65, 2),
        "low_threshold_spiking": (0.02, 0.25, -65, 2),
        "resonator": (0.1, 0.26, -65, 2),
    }
    for name, expected in types.items():
        cell = getattr(Izhikevich, name)()
        found = [getattr(cell, constant).item() for constant in "abcd"]
        assert found == pytest.approx(expected), name


# The theta neuron


@pytest.mark.parametrize("I", [0.01, 0.25, 1.0, 1.7])
def test_the_theta_neuron_turns_at_the_square_root_of_its_input_over_pi(I):
    # the mean of 1 / velocity over a turn; a periodic function, so a grid is exact
    theta = torch.linspace(-math.pi, math.pi, 4097, dtype=torch.float64)[:-1].unsqueeze(-1)
    slowness = 1 / Theta()(0.0, theta, double([I]))
    period = 2 * math.pi * slowness.mean().item()
    assert 1 / period == pytest.approx(math.sqrt(I) / math.pi, rel=1e-12)


def test_the_theta_neuron_rests_in_a_node_and_a_saddle_below_its_onset():
    found = find_equilibria(Theta(), -0.25)
    expected = 2 * math.atan(0.5)  # tan(theta / 2) = -+sqrt(-I)
    angles = [math.remainder(e.state.item(), 2 * math.pi) for e in found]
    assert sorted(angles) == pytest.approx([-expected, expected], abs=1e-9)
    assert [e.is_stable for e in found] == [True, False]
    assert angles[0] < 0


# Spikes, by simulation


@pytest.mark.slow
def test_a_leaky_neuron_fires_at_its_closed_form():
    generator = torch.Generator().manual_seed(14)

    def draw(low, high):
        return low + (high - low) * torch.rand(40, 1, generator=generator, dtype=torch.float64)

    C, g_L, t_ref = draw(80, 300), draw(5, 20), draw(0, 4)
    V_th, V_r = draw(-55, -45), draw(-68, -58)
    cell = LIF(C=C, g_L=g_L, V_th=V_th, V_r=V_r, t_ref=t_ref)
    I = g_L * (V_th + 70) * draw(1.05, 3.0)
    trace = simulate(cell, V_r, [0.0, 200.0], I, rtol=1e-8)
    found = spike_rate(trace)
    expected = lif_rate(-70 + I / g_L, tau=C / g_L, V_th=V_th, V_r=V_r, t_ref=t_ref)
    enough = found * 200 > 2
    assert enough.sum() > 20
    np.testing.assert_allclose(found[enough], expected.squeeze(-1)[enough], rtol=1e-6)


@pytest.mark.slow
def test_adex_resets_and_adapts_at_each_spike():
    cell = AdEx()
    trace = simulate(cell, cell.initial_state(), [0.0, 120.0], 1000.0)
    gaps = np.diff(trace.events["time"])
    assert len(gaps) > 2
    assert (np.diff(gaps) > 0).all()  # each spike adds b to w, and the next comes later


@pytest.mark.slow
def test_where_the_upstroke_of_adex_is_cut_changes_next_to_nothing():
    V_peak = double([[-20.0], [0.0], [20.0], [40.0]])
    cell = AdEx(V_peak=V_peak)
    trace = simulate(cell, cell.initial_state(), [0.0, 45.0], 800.0, rtol=1e-8)
    spikes = trace.event_times.reshape(4, 2)
    # what is left of the upstroke from V on takes C / g_L exp(-(V - V_T) / Delta_T)
    left = 281 / 30 * torch.exp(-(V_peak[:, 0] + 50.4) / 2)
    torch.testing.assert_close(
        spikes[:, 0] + left, spikes[:1, 0].expand(4) + left[0], rtol=0, atol=1e-9
    )
    assert (spikes[:, 1] - spikes[0, 1]).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("V_peak", [-20.0, 20.0])
def test_fixed_steps_do_not_run_over_the_upstroke_of_adex(V_peak):
    # beyond its reset the exponential grows by dozens of orders within one step
    cell = AdEx(V_peak=V_peak)
    exact = simulate(cell, cell.initial_state(), [0.0, 50.0], 800.0, rtol=1e-8)
    late = []
    for step in (0.2, 0.05):
        found = simulate(cell, cell.initial_state(), [0.0, 50.0], 800.0, method="rk4", step=step)
        late.append(np.abs(found.events["time"] - exact.events["time"]).max())
        assert (found.states[-1] - exact.states[-1]).abs().max() < step
    assert late[1] < 0.5 * late[0] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("atol", [1e-3, 1e-8])
def test_the_theta_neuron_spikes_once_a_turn_at_its_closed_form_times(atol):
    # theta = 2 arctan(sqrt(I) tan(sqrt(I) t)): it passes pi, 3 pi, .. at odd halves of a turn
    I = double([[0.01], [0.6], [0.97], [1.0], [1.03], [3.0], [100.0]])
    turn, n_spikes = math.pi / I.sqrt(), 5
    times = torch.cat([0 * turn, n_spikes * turn], dim=-1)
    found = simulate(Theta(), double([[0.0]]), times, I, rtol=0.0, atol=atol)
    expected = turn * (torch.arange(n_spikes) + 0.5)
    assert (found.events.groupby("trajectory").size() == n_spikes).all()
    off = (found.event_times.reshape(expected.shape) - expected).abs()
    slowest = (2 * I).clamp(max=2.0)  # speed of theta
    assert (off * slowest < 30 * atol).all()


@pytest.mark.parametrize("method", ["rosenbrock", "rk4"])
def test_no_method_misses_spikes_of_a_theta_neuron_that_turns_evenly(method):
    how = {"step": 8 * math.pi} if method == "rk4" else {}  # eight turns in a step
    found = simulate(Theta(), [0.0], [0.0, 16 * math.pi], 1.0, method=method, **how)
    np.testing.assert_allclose(found.events["time"], math.pi * (np.arange(16) + 0.5), rtol=1e-6)


@pytest.mark.slow
def test_the_rate_in_noise_is_that_of_a_simulation_of_it():
    # seen only once a step, a path crosses the threshold as if it were 0.5826 standard deviations
    # of a step higher (Siegmund 1979), so here it is that much lower
    generator = torch.Generator().manual_seed(15)
    n_sets, n_copies, dt, tau, t_ref = 10, 400, 0.02, 20.0, 2.0
    mu = -58 + 12 * torch.rand(n_sets, 1, generator=generator, dtype=torch.float64)
    sigma = 2 + 6 * torch.rand(n_sets, 1, generator=generator, dtype=torch.float64)
    V_th, V_r, duration, settle = -50.0, -60.0, 600.0, 100.0
    cell = NoisyLIF(sigma=sigma.unsqueeze(1))
    u = 10 * (mu + 70)
    shift = 0.5826 * sigma * math.sqrt(dt / tau)
    V = torch.full((n_sets, n_copies, 1), -60.0, dtype=torch.float64)
    silent, counts = torch.zeros_like(V), torch.zeros(n_sets, n_copies, 1, dtype=torch.float64)
    for step in range(int(duration / dt)):
        noise = torch.randn(V.shape, generator=generator, dtype=torch.float64)
        drift = cell(0.0, V, u.unsqueeze(1))
        moved = V + dt * drift + math.sqrt(dt) * cell.noise(0.0, V, u.unsqueeze(1)) * noise
        V = torch.where(silent > 0, V, moved)
        spiked = V >= V_th - shift.unsqueeze(1)
        counts += spiked * (step * dt >= settle)
        V = torch.where(spiked, V_r, V)
        silent = torch.where(spiked, t_ref, silent - dt)
    rates = counts.squeeze(-1) / (duration - settle)
    found, error = rates.mean(-1), rates.std(-1) / math.sqrt(n_copies)
    expected = siegert_rate(mu, sigma, tau=tau, V_th=V_th, V_r=V_r, t_ref=t_ref).squeeze(-1)
    assert ((found - expected).abs() <= 0.02 * expected + 3 * error).all()
