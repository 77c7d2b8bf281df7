"""Oracles: kernels in closed form, their integrals by quadrature, Campbell's theorem by samples."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.func import grad

from clinode.brain import (
    AlphaSynapse,
    DualExponentialSynapse,
    ExponentialSynapse,
    FluctuatingConductance,
    NMDASynapse,
    ShortTermPlasticity,
    poisson_input,
)
from clinode.dynamics import simulate
from clinode.system import Signal

double = functools.partial(torch.tensor, dtype=torch.float64)


def exponential(t, tau):
    return math.exp(-t / tau)


def alpha(t, tau):
    return t / tau * math.exp(1 - t / tau)


def dual_exponential(t, tau_r, tau_d):
    if tau_r == tau_d:
        return alpha(t, tau_r)
    peak = tau_r * tau_d / (tau_d - tau_r) * math.log(tau_d / tau_r)

    def difference(age):
        return math.exp(-age / tau_d) - math.exp(-age / tau_r)

    return difference(t) / difference(peak)


KERNELS = [
    (ExponentialSynapse, exponential, {"tau": 3.0}),
    (AlphaSynapse, alpha, {"tau": 2.5}),
    (DualExponentialSynapse, dual_exponential, {"tau_r": 0.7, "tau_d": 6.0}),
    (DualExponentialSynapse, dual_exponential, {"tau_r": 6.0, "tau_d": 0.7}),
    (DualExponentialSynapse, dual_exponential, {"tau_r": 2.0, "tau_d": 2.0}),
    (NMDASynapse, dual_exponential, {"tau_r": 2.0, "tau_d": 80.0}),
]


def after(synapse, spikes, times, V=-70.0):
    """Its trajectory after impulses at given times."""
    amounts = torch.zeros(len(spikes), 2, dtype=torch.float64)
    amounts[:, 0] = 1.0
    signal = Signal([0.0], [[0.0, V]], impulses=(spikes, amounts))
    x0 = torch.zeros(synapse.n_states, dtype=torch.float64)
    return simulate(synapse, x0, times, signal, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("synapse", "kernel", "constants"), KERNELS)
def test_a_spike_opens_a_synapse_along_its_kernel_and_spikes_add_up(synapse, kernel, constants):
    times = torch.linspace(0, 40, 81, dtype=torch.float64)
    spikes = [0.0, 3.25, 3.5]
    found = after(synapse(g=1.0, **constants), spikes, times).states[1:, -1]
    expected = [
        sum(kernel(t - spike, **constants) for spike in spikes if t > spike)
        for t in times[1:].tolist()
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("synapse", "kernel", "constants"), KERNELS)
def test_the_peak_of_a_kernel_is_one(synapse, kernel, constants):
    times = torch.linspace(0, 40, 4001, dtype=torch.float64)
    assert max(kernel(t, **constants) for t in times.tolist()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("synapse", "kernel", "constants"), KERNELS[:-1])
def test_the_moments_of_poisson_input_are_campbells_integrals(synapse, kernel, constants):
    rate, g = 0.35, 1.7
    moments = synapse(g=g, **constants).poisson_moments(rate)
    for power, found in [(1, moments.mean), (2, moments.variance)]:
        integral, _ = quad(lambda t, p=power: kernel(t, **constants) ** p, 0, 200, limit=200)
        assert found.item() == pytest.approx(g**power * rate * integral, rel=1e-6)


@pytest.mark.parametrize(("synapse", "kernel", "constants"), KERNELS[:3])
def test_campbells_moments_are_those_of_sampled_spikes(synapse, kernel, constants):
    generator = torch.Generator().manual_seed(5)
    rate, n = 0.5, 4000
    times, _ = poisson_input(torch.full((n, 1), rate), 60.0, generator).impulses
    ages = 60 - times[times.isfinite()]
    values = torch.zeros_like(times)
    values[times.isfinite()] = double([kernel(age, **constants) for age in ages.tolist()])
    sample = values.sum(-1)
    moments = synapse(g=1.0, **constants).poisson_moments(rate)
    error = (moments.variance / n).sqrt().item()
    assert sample.mean().item() == pytest.approx(moments.mean.item(), abs=4 * error)
    # the fourth moment of shot noise is near a Gaussian's
    assert sample.var().item() == pytest.approx(moments.variance.item(), rel=6 / math.sqrt(n))


def test_equal_time_constants_leave_the_gradient_of_the_kernel_finite():
    def peak_slope(tau_r):
        cell = DualExponentialSynapse(tau_d=2.0).with_constants(tau_r=tau_r.reshape(1))
        return cell(0.0, double([1.0, 0.0]), double([0.0, -70.0]))[1]

    slopes = [grad(peak_slope)(double(tau)).item() for tau in (1.9999, 2.0, 2.0001)]
    assert slopes[1] == pytest.approx((slopes[0] + slopes[2]) / 2, rel=1e-6)


def test_the_current_drives_the_cell_towards_the_reversal_potential():
    u = double([[0.0, -70.0], [0.0, 0.0], [0.0, 20.0]])
    found = ExponentialSynapse(g=2.0, E=0.0).output(0.0, double([0.5]), u)
    assert found.tolist() == [[70, 1], [0, 1], [-20, 1]]


def test_half_of_the_nmda_channels_are_blocked_at_minus_20_millivolts():
    synapse = NMDASynapse(g=1.0)
    half = math.log(1 / 3.57) / 0.062
    assert half == pytest.approx(-20.5, abs=0.05)
    assert synapse.unblocked(double([half])).item() == pytest.approx(0.5)
    V = torch.linspace(-100, 60, 33, dtype=torch.float64).unsqueeze(-1)
    expected = 1 / (1 + 1.0 / 3.57 * np.exp(-0.062 * V.numpy()))  # Jahr and Stevens 1990
    np.testing.assert_allclose(synapse.unblocked(V), expected, rtol=1e-14)
    assert NMDASynapse(Mg=0.0).unblocked(double([-100.0])) == 1
    assert grad(lambda v: synapse.unblocked(v).sum())(double([-1e5])).isfinite().all()


def test_the_nmda_current_grows_as_the_cell_depolarizes_though_its_drive_shrinks():
    u = torch.stack([torch.zeros(2), torch.tensor([-70.0, -30.0])], -1).double()
    currents = NMDASynapse().output(0.0, double([0.0, 1.0]), u)[:, 0]
    assert currents[1] > 2 * currents[0]


# Many synapses as noise


def test_the_fluctuating_conductance_has_the_moments_of_the_spikes_that_it_replaces():
    synapse = ExponentialSynapse(g=0.4, E=0.0, tau=3.0)
    noisy = synapse.diffusion(2.5)
    mean, variance = synapse.poisson_moments(2.5)
    assert noisy.g_mean == mean
    assert noisy.g_std.item() == pytest.approx(variance.sqrt().item())
    x, u = double([0.0]), double([-70.0])
    leak = grad(lambda s: noisy(0.0, s, u).sum())(x)  # -1 / tau
    diffusion = noisy.noise(0.0, x, u)
    # stationary variance of dx = leak x dt + diffusion dW
    assert (diffusion**2 / (-2 * leak)).item() == pytest.approx(variance.item())
    assert noisy(0.0, mean, u).item() == pytest.approx(0)


def test_the_neocortical_conductances_have_their_published_constants():
    both = FluctuatingConductance.excitatory(), FluctuatingConductance.inhibitory()
    names = ("g_mean", "g_std", "E", "tau")
    found = [[getattr(one, name).item() for name in names] for one in both]
    np.testing.assert_allclose(found, [[12.1, 3.0, 0.0, 2.728], [57.3, 6.6, -75.0, 10.49]])


# Short-term plasticity

TYPES = [
    ShortTermPlasticity.facilitating,
    ShortTermPlasticity.depressing,
    ShortTermPlasticity.recovering,
]


@pytest.mark.parametrize("make", TYPES)
@pytest.mark.parametrize("rate", [0.001, 0.02, 0.2])
def test_under_a_rate_plasticity_rests_at_its_closed_form(make, rate):
    synapse = make()
    U, rec, facil = (getattr(synapse, n).item() for n in ("U", "tau_rec", "tau_facil"))
    u = U * (1 + facil * rate) / (1 + U * facil * rate)
    x = 1 / (1 + u * rec * rate)
    state, drive = double([x, u]), double([rate])
    assert synapse(0.0, state, drive).abs().max() < 1e-15
    assert synapse.output(0.0, state, drive).item() == pytest.approx(u * x * rate)


@pytest.mark.parametrize("make", TYPES)
def test_release_follows_the_field_between_spikes_and_its_input_term_at_them(make):
    synapse = make()
    spikes = [0.0, 10.0, 12.0, 50.0, 51.0, 200.0]
    rest, spike = double([0.0]), double([1.0])
    state, expected = synapse.initial_state(), []
    for i, time in enumerate(spikes):
        if i:
            state = simulate(synapse, state, [spikes[i - 1], time], rtol=1e-9, atol=1e-12).states[
                -1
            ]
        expected.append(state.prod().item())
        state = state + synapse(0.0, state, spike) - synapse(0.0, state, rest)
    np.testing.assert_allclose(synapse.release(double(spikes)), expected, rtol=1e-7)


@pytest.mark.parametrize("make", TYPES)
def test_a_regular_train_settles_at_the_fixed_point_of_its_recursion(make):
    synapse, gap = make(), 25.0
    U, rec, facil = (getattr(synapse, n).item() for n in ("U", "tau_rec", "tau_facil"))
    e, f = math.exp(-gap / rec), math.exp(-gap / facil)
    u = U / (1 - (1 - U) * f)
    x = (1 - e) / (1 - (1 - u) * e)
    released = synapse.release(torch.arange(400, dtype=torch.float64) * gap)
    assert released[-1].item() == pytest.approx(u * x, rel=1e-9)
    assert released[0].item() == pytest.approx(U)


def test_a_facilitating_synapse_releases_more_at_its_second_spike_and_a_depressing_less():
    pair = double([0.0, 20.0])
    first, second = ShortTermPlasticity.facilitating().release(pair)
    assert second > 1.5 * first
    first, second = ShortTermPlasticity.depressing().release(pair)
    assert second < first


def test_release_is_batched_over_trains_and_constants_and_is_differentiable():
    synapse = ShortTermPlasticity(U=double([[0.1], [0.5]]))
    trains = double([[0.0, 5.0, 9.0], [0.0, 50.0, 51.0]])
    found = synapse.release(trains)
    one = [ShortTermPlasticity(U=U).release(trains[i]) for i, U in enumerate((0.1, 0.5))]
    torch.testing.assert_close(found, torch.stack(one))
    assert synapse.release(trains[:, :0]).shape == (2, 0)
    slope = grad(lambda t: ShortTermPlasticity().release(t)[-1])(trains[0])
    assert slope.isfinite().all()
