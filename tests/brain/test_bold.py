import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from clinode.brain.bold import BalloonWindkessel, record_bold, recorded, with_bold
from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import JansenRitNetwork, StuartLandauNetwork, WilsonCowanNetwork
from clinode.dynamics import simulate
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, Signal, UnitError
from clinode.units import check_dimensions

REGIONS = ("left", "right")


def by_hand(t, y, activity):
    """One region, Friston 2003, in s."""
    s, f, v, q = y
    leaving = v ** (1 / 0.32)
    extracted = (1 - 0.66 ** (1 / f)) / 0.34
    return [
        activity(t) - 0.65 * s - 0.41 * (f - 1),
        s,
        (f - leaving) / 0.98,
        (f * extracted - leaving * q / v) / 0.98,
    ]


def bold_by_hand(v, q):
    return 0.02 * (7 * 0.34 * (1 - q) + 2 * (1 - q / v) + (2 * 0.34 - 0.2) * (1 - v))


def pulse(t):
    return 0.3 if 1.0 <= t < 3.0 else 0.0


@pytest.mark.parametrize(("time_unit", "per"), [("s", 1.0), ("ms", 1e3)])
def test_blood_follows_a_pulse_as_an_independent_integration_does(time_unit, per):
    blood = BalloonWindkessel(REGIONS, time_unit=time_unit)
    u = Signal([0.0, 1.0 * per, 3.0 * per], [[0.0, 0.0], [0.3, 0.0], [0.0, 0.0]])
    times = np.arange(0.0, 21.0, 2.0)
    run = simulate(blood, blood.initial_state(), times * per, u, method="rk4", step=0.1 * per)
    exact, y = [[0.0, 1, 1, 1]], [0.0, 1.0, 1.0, 1.0]
    for start, stop in itertools.pairwise(times):
        for a, b in ((start, min(stop, start + 1)), (start + 1, stop)):  # ends at the pulse's
            y = solve_ivp(by_hand, (a, b), y, args=(pulse,), rtol=1e-10, atol=1e-12).y[:, -1]
        exact.append(y)
    exact = np.array(exact)
    np.testing.assert_allclose(run.states[:, ::2][:, 1:], exact[:, 1:], atol=1e-6)
    np.testing.assert_allclose(run.outputs[:, 0], bold_by_hand(*exact[:, 2:].T), atol=1e-8)
    np.testing.assert_allclose(run.outputs[:, 1], 0.0, atol=1e-15)
    assert 0.01 < float(run.outputs[:, 0].max()) < 0.03  # a per cent or two
    assert float(run.outputs[:, 0].min()) < -1e-3  # the undershoot


@pytest.mark.parametrize("seed", range(3))
def test_constant_activity_gives_the_closed_form(seed):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-0.1, 0.5, 2)
    alpha, rho, gamma, epsilon = rng.uniform([0.2, 0.2, 0.3, 0.4], [0.5, 0.5, 0.6, 1.2])
    blood = BalloonWindkessel(REGIONS, alpha=alpha, rho=rho, gamma=gamma, epsilon=epsilon)
    f = 1 + epsilon * z / gamma
    v = f**alpha
    q = v * (1 - (1 - rho) ** (1 / f)) / rho
    x = torch.tensor(np.concatenate([np.zeros(2), f, v, q]))
    rate = blood.vector_field(0.0, x, torch.tensor(z))
    torch.testing.assert_close(rate, torch.zeros(8).double(), rtol=0, atol=1e-14)
    signal = 0.02 * (2.38 * (1 - q) + 2 * (1 - q / v) + 0.48 * (1 - v))
    np.testing.assert_allclose(blood.output(0.0, x, torch.tensor(z)), signal, rtol=1e-12)


def test_later_constants_of_the_signal_are_those_of_the_paper():
    blood = BalloonWindkessel.stephan2007(REGIONS)
    found = [float(getattr(blood, name)) for name in ("k1", "k2", "k3", "rho", "V0")]
    np.testing.assert_allclose(found, [2.77264, 0.572, -0.43, 0.4, 0.04])
    assert float(blood.kappa) == 0.65


def test_units_agree_whatever_drives_the_blood():
    check_dimensions(BalloonWindkessel(REGIONS, time_unit="ms", activity_unit="mV"))
    connectome = simulate_connectome(4)
    for network, name in (
        (WilsonCowanNetwork(connectome), "E"),
        (JansenRitNetwork(connectome), "EEG"),
    ):
        check_dimensions(with_bold(network, name))
    with pytest.raises(UnitError, match="do not agree"):
        with_bold(JansenRitNetwork(connectome), "EEG", BalloonWindkessel(connectome.labels))
    with pytest.raises(ArgumentError, match="did you mean 'EEG'"):
        with_bold(JansenRitNetwork(connectome), "EE")
    with pytest.raises(ArgumentError, match="'s' or 'ms'"):
        BalloonWindkessel(REGIONS, time_unit="h")


def slow_network():
    network = StuartLandauNetwork(simulate_connectome(4), a=0.05, K=0.2)
    start = torch.tensor([0.3, 0.1, -0.1, 0.2, 0, 0.1, 0, -0.2]).double()
    return network, start


@pytest.mark.slow
def test_a_network_and_its_blood_are_one_system():
    network, start = slow_network()
    both = with_bold(network, "x")
    x0 = torch.cat([start, BalloonWindkessel(network.states[0].labels).initial_state()])
    run = simulate(both, x0, torch.linspace(0, 12, 7), method="rk4", step=0.1)
    assert run.outputs.shape == (7, 4)
    assert both.output_names[0] == "bold.BOLD:lh_precuneus"
    alone = simulate(network, start, torch.linspace(0, 12, 121), method="rk4", step=0.1)
    recorded_later = record_bold(alone, "x", repetition_time=2.0)
    np.testing.assert_allclose(recorded_later.outputs, run.outputs, atol=2e-5)
    assert float(run.outputs.abs().max()) > 5e-3


def trajectory_of(times):
    """Two regions that do something smooth, as if it had been simulated."""
    t = torch.as_tensor(times, dtype=torch.float64)
    pace, phase = torch.tensor([[0.5, 1.3], [0.9, 0.2]]).double()
    values = 0.2 + 0.15 * torch.sin(t.unsqueeze(-1) * pace + phase)
    block = (Quantity("rate", "1", REGIONS),)
    system = LinearSystem(
        torch.zeros(2, 2), torch.eye(2), states=block, outputs=block, C=torch.eye(2)
    )
    run = simulate(system, values[0], t[:2], method="euler", step=10.0)
    return replace(run, times=t, states=values, outputs=values, time_unit="s")


def test_samples_lie_at_repetition_times_and_converge_with_the_step():
    whole = trajectory_of(np.linspace(3.0, 25.0, 441))
    coarse, fine = (
        record_bold(whole, "rate", repetition_time=2.0, step=step) for step in (0.2, 0.05)
    )
    np.testing.assert_allclose(fine.times, np.arange(3.0, 25.1, 2.0))
    y, exact = [0.0, 1.0, 1.0, 1.0], [0.0]
    for start in np.arange(3.0, 25.0, 2.0):

        def drive(t):
            return 0.2 + 0.15 * np.sin(0.5 * t + 0.9)

        y = solve_ivp(by_hand, (start, start + 2), y, args=(drive,), rtol=1e-9, atol=1e-11).y[:, -1]
        exact.append(bold_by_hand(y[2], y[3]))
    far, near = (np.abs(run.outputs[:, 0].numpy() - exact).max() for run in (coarse, fine))
    assert near < 2e-6
    assert far < 6e-5  # of a signal of 0.02
    assert fine.output_quantities[0].labels == REGIONS


def test_pieces_give_what_the_whole_gives():
    times = np.linspace(0.0, 16.0, 321)
    whole = record_bold(trajectory_of(times), "rate", repetition_time=2.0, step=0.1)
    first = record_bold(trajectory_of(times[:161]), "rate", repetition_time=2.0, step=0.1)
    second = record_bold(
        trajectory_of(times[160:]), "rate", repetition_time=2.0, step=0.1, start=first.states[-1]
    )
    joined = torch.cat([first.outputs, second.outputs[1:]])
    torch.testing.assert_close(joined, whole.outputs, rtol=0, atol=1e-13)


def test_many_trajectories_are_recorded_at_once():
    network, start = slow_network()
    several = torch.stack([start, 2 * start])
    run = simulate(network, several, torch.linspace(0, 6, 31), method="rk4", step=0.2)
    found = record_bold(run, "x", repetition_time=2.0, step=0.2)
    assert found.outputs.shape == (2, 4, 4)
    alone = simulate(network, several[1], torch.linspace(0, 6, 31), method="rk4", step=0.2)
    one = record_bold(alone, "x", repetition_time=2.0, step=0.2)
    torch.testing.assert_close(found.outputs[1], one.outputs, rtol=0, atol=1e-12)


def test_what_cannot_be_recorded_is_refused():
    run = trajectory_of(np.linspace(0.0, 5.0, 51))
    for call, words in (
        (lambda: record_bold(run, "rates", 2.0), "did you mean 'rate'"),
        (lambda: record_bold(run, "rate", 6.0), "shorter than one repetition time"),
        (lambda: record_bold(run, "rate", 0.0), "must be positive"),
        (lambda: recorded(run, "x"), "no block of this trajectory"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()


def test_a_vessel_that_runs_empty_is_an_error_and_no_number():
    blood = BalloonWindkessel(REGIONS)
    with pytest.raises(SolverError, match="not finite"):
        simulate(blood, blood.initial_state(), [0.0, 10.0], -2.0, method="rk4", step=0.05)
    empty = torch.tensor([0.0, 0, -0.1, 1, 1, 1, 1, 1]).double()
    assert blood.vector_field(0.0, empty, torch.zeros(2).double())[6].isnan()
