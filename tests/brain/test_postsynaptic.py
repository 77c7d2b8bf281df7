"""Oracles: the steady state and the time constant of a membrane in closed form."""

import functools

import numpy as np
import pytest
import torch
from torch.func import jacrev

from clinode.brain import (
    LIF,
    DualExponentialSynapse,
    ExponentialSynapse,
    HodgkinHuxley,
    NMDASynapse,
    ShortTermPlasticity,
    conductance_input,
    current_input,
    poisson_input,
)
from clinode.dynamics import simulate
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError
from clinode.system import Signal, connect
from clinode.units import UnitError, check_dimensions

double = functools.partial(torch.tensor, dtype=torch.float64)


def one_spike(at: float) -> Signal:
    return Signal([0.0], [[0.0, 0.0]], impulses=([at], [[0.0, 1.0]]))


def test_conductance_input_shortens_the_time_constant_and_current_input_does_not():
    rng = np.random.default_rng(0)
    for _ in range(200):
        C, g_L, g, tau = rng.uniform(50, 400), rng.uniform(3, 30), rng.uniform(0.5, 9), 5.0
        E_L, E, rate = rng.uniform(-80, -65), rng.uniform(-75, 0), rng.uniform(0.02, 0.3)
        neuron = LIF(C=C, g_L=g_L, E_L=E_L, V_th=1e3)
        synapse = ExponentialSynapse(g=g, E=E, tau=tau)
        u = double([0.0, rate])  # a steady rate: a steady conductance
        open_ = g * rate * tau
        shunted, added = conductance_input(neuron, synapse), current_input(neuron, synapse, V=E_L)
        V_inf = (g_L * E_L + open_ * E) / (g_L + open_)
        V_sum = E_L + open_ * (E - E_L) / g_L
        for cell, V, conductance in ((shunted, V_inf, g_L + open_), (added, V_sum, g_L)):
            rest = double([V, rate * tau])
            assert cell(0.0, rest, u).abs().max() < 1e-12
            jacobian = jacrev(lambda x, cell=cell, u=u: cell(0.0, x, u))(rest)
            expected = sorted([-conductance / C, -1 / tau])
            found = torch.linalg.eigvals(jacobian).real.tolist()
            assert sorted(found) == pytest.approx(expected, rel=1e-10)


def test_a_weak_synapse_is_the_same_in_both_forms():
    neuron = LIF()
    times = torch.linspace(0, 40, 81, dtype=torch.float64)
    peaks = []
    for g in (0.01, 10.0):
        synapse = ExponentialSynapse(g=g)
        paths = [
            simulate(cell, cell.initial_state(), times, one_spike(5.0)).states[:, 0]
            for cell in (conductance_input(neuron, synapse), current_input(neuron, synapse))
        ]
        peaks.append([(path - path[0]).max().item() for path in paths])
    weak, strong = peaks
    assert weak[0] == pytest.approx(weak[1], rel=2e-3)
    assert strong[0] < 0.95 * strong[1]  # its driving force shrinks as it works


def test_a_current_decays_into_a_membrane_along_the_difference_of_two_exponentials():
    C, g_L, g, tau = 200.0, 10.0, 1.0, 5.0
    cell = current_input(LIF(C=C, g_L=g_L), ExponentialSynapse(g=g, tau=tau), V=-70.0)
    times = torch.linspace(0, 80, 81, dtype=torch.float64)
    found = simulate(cell, cell.initial_state(), times, one_spike(0.0), rtol=1e-9).states[:, 0]
    tau_m = C / g_L
    amplitude = g * 70.0 / C / (1 / tau - 1 / tau_m)
    expected = -70 + amplitude * (torch.exp(-times / tau_m) - torch.exp(-times / tau))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_an_inhibitory_conductance_at_rest_moves_nothing_but_shunts_what_comes():
    neuron = LIF(V_th=1e3)
    synapse = DualExponentialSynapse(g=20.0, E=-70.0)
    cell = conductance_input(neuron, synapse)
    silent = find_equilibria(cell, double([0.0, 0.3]))[0].state[0].item()
    assert silent == pytest.approx(-70, abs=1e-9)
    driven = find_equilibria(cell, double([100.0, 0.3]))[0].state[0].item()
    assert -70 < driven < -70 + 100 / 10  # less than without the conductance


def test_spikes_arrive_and_make_spikes():
    generator = torch.Generator().manual_seed(1)
    cell = conductance_input(LIF(), NMDASynapse(g=12.0))
    spikes = poisson_input([0.0, 0.3], 100.0, generator)
    trace = simulate(cell, cell.initial_state(), [0.0, 100.0], spikes)
    assert len(trace.events) > 3
    assert set(trace.events["name"]) == {"cell.spike"}


def test_a_synapse_that_tires_gets_through_what_its_closed_form_says():
    plastic = ShortTermPlasticity.depressing()
    parts = {"release": plastic, "synapse": ExponentialSynapse(g=1.0, tau=5.0)}
    both = connect(parts, [("release.released", "synapse.spikes")])
    assert both.input_names == ("release.spikes", "synapse.V")
    U, rec, facil = (getattr(plastic, n).item() for n in ("U", "tau_rec", "tau_facil"))
    rate = 0.02
    u = U * (1 + facil * rate) / (1 + U * facil * rate)
    x = 1 / (1 + u * rec * rate)
    state = double([x, u, u * x * rate * 5.0])
    assert both(0.0, state, double([rate, -70.0])).abs().max() < 1e-15


@pytest.mark.parametrize("form", [conductance_input, current_input])
def test_the_units_of_a_driven_neuron_agree(form):
    check_dimensions(form(LIF(), NMDASynapse()))


def test_a_density_takes_no_current_of_a_whole_cell():
    with pytest.raises(UnitError, match="pA"):
        conductance_input(HodgkinHuxley(), ExponentialSynapse())


def test_what_has_no_voltage_cannot_be_driven():
    with pytest.raises(ArgumentError, match="'V'"):
        conductance_input(ExponentialSynapse(), ExponentialSynapse())
