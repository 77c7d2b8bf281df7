import json

import control
import numpy as np
import pytest
import torch

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.brain.populations import WilsonCowan
from clinode.control.stimulation.adaptive import adaptive_stimulation
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.policies import (
    Level,
    Measurement,
    OnDemand,
    Oscillation,
    Proportional,
    RecedingHorizon,
)
from clinode.control.stimulation.waveforms import BiphasicPulses, Pulses
from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.linearize import linearize
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System

CYCLING = torch.tensor([1.25, 0.0]).double()  # P and Q of Wilson and Cowan's limit cycle
START = torch.tensor([0.2, 0.1]).double()


class StuartLandau(System):
    """The normal form of a Hopf bifurcation, with noise."""

    states = (Quantity("x", "1"), Quantity("y", "1"))
    inputs = (Quantity("u", "1"),)

    def vector_field(self, t, x, u):
        X, Y = self.split(x).values()
        growth = 0.2 - X * X - Y * Y
        return self.join(x=growth * X - Y + u, y=growth * Y + X)

    def noise(self, t, x, u):
        return 0.02 * torch.ones_like(x)


def cycling(policy, duration=400.0, interval=20.0, **more):
    return adaptive_stimulation(
        WilsonCowan(), START, policy, duration=duration, interval=interval, u=CYCLING,
        inputs=["P"], **({"n_samples": 8} | more),
    )  # fmt: skip


def strength(run):
    return float(run.trajectory.states[len(run.trajectory.times) // 2 :, 0].std())


@pytest.mark.slow
def test_stimulation_on_demand_suppresses_an_oscillation_with_less_than_continuous_energy():
    rule = OnDemand(biomarker=Oscillation("E", 30.0), threshold=0.02, amplitude=0.7, release=0.005)
    free = cycling(lambda now: 0.0, duration=600.0)
    demanded = cycling(rule, duration=600.0, interval=10.0)
    continuous = cycling(lambda now: 0.7, duration=600.0)
    assert strength(free) > 0.05  # it oscillates
    assert strength(demanded) < 0.3 * strength(free)
    assert demanded.energy < 0.85 * continuous.energy
    assert demanded.share_on == pytest.approx(demanded.energy / continuous.energy)
    assert demanded.amplitudes.unique().tolist() == [0.0, 0.7]


def test_proportional_stimulation_stills_an_oscillation_for_almost_nothing():
    rest = float(find_equilibria(WilsonCowan(), u=CYCLING)[0].state[0])
    rule = Proportional(biomarker=Level("E"), setpoint=rest, gain=-4.0, two_sided=True)
    run = cycling(rule, duration=160.0, interval=2.0, n_samples=1)
    assert strength(run) < 1e-3
    assert run.energy < 1e-3 * 0.7**2 * 160.0  # of a continuous stimulus that stills it


def test_receding_horizon_holds_an_unstable_rest_for_almost_nothing():
    system = WilsonCowan()
    rest = find_equilibria(system, u=CYCLING)[0]
    assert not rest.is_stable
    limits = StimulusLimits(amplitude=0.3)
    policy = RecedingHorizon(
        linearize(system, rest, inputs=["P"]), interval=5.0, n_intervals=10, weight=100.0,
        limits=limits,
    )  # fmt: skip
    run = cycling(policy, duration=100.0, interval=5.0, limits=limits, n_samples=4)
    torch.testing.assert_close(run.trajectory.states[-1], rest.state, rtol=0, atol=1e-4)
    assert run.energy < 1e-2 * 100.0
    assert run.limits.is_within


def test_a_plan_without_active_limits_is_the_linear_quadratic_regulator():
    A, B = np.array([[0.3, 1.0], [-0.5, 0.1]]), np.array([[0.0], [1.0]])
    h, price = 0.25, 0.7
    policy = RecedingHorizon(LinearSystem(A, B), interval=h, n_intervals=7, weight=[2.0, 1.0],
                             energy=price)  # fmt: skip
    discrete = control.c2d(control.ss(A, B, np.eye(2), 0), h)
    K, _, _ = control.dlqr(discrete.A, discrete.B, np.diag([2.0, 1.0]) * h, np.eye(1) * price * h)
    x = np.array([0.4, -1.1])
    asked = policy(measured([0.0], [x], np.zeros((0, 1)), h))
    np.testing.assert_allclose(asked.numpy(), -K @ x, rtol=1e-6)


def measured(times, outputs, amplitudes, interval):
    return Measurement(
        torch.tensor(times).double(),
        torch.tensor(np.array(outputs)).double(),
        tuple(f"y{i + 1}" for i in range(np.shape(outputs)[1])),
        torch.tensor(amplitudes).double(),
        interval,
    )


def test_the_state_is_found_from_one_output_at_the_last_decisions():
    A, B, C = [[0.0, 1.0], [-2.0, -0.3]], [[0.0], [1.0]], [[1.0, 0.0]]
    linear = LinearSystem(A, B, C, offset=([0.5, 0.0], [0.0], [3.0]))
    policy = RecedingHorizon(linear, interval=0.3)
    found = []

    def asked(now):
        found.append(policy.state(now))
        return float(np.sin(len(found)))

    run = adaptive_stimulation(linear, [1.0, -0.4], asked, duration=1.8, interval=0.3)
    at_decisions = run.trajectory.states[::16].numpy() - [0.5, 0.0]
    for k in range(2, 6):  # one output shows two states at two decisions
        np.testing.assert_allclose(found[k], at_decisions[k], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_policy_asks_the_limits_are_kept(seed):
    generator = torch.Generator().manual_seed(seed)
    limits, more = [
        (StimulusLimits(amplitude=0.8, energy=3.0), {}),
        (StimulusLimits(amplitude=0.8, slew=0.03, energy=5.0), {}),
        (
            StimulusLimits(amplitude=0.8, charge=0.5, balanced=True, energy=0.5),
            {"carrier": BiphasicPulses(frequency="200 Hz", width="1 ms", ratio=2.0)},
        ),
        (
            StimulusLimits(slew=2.0, one_sided=True, energy=0.6),
            {"carrier": Pulses(frequency="100 Hz", width="2 ms", ramp="0.5 ms")},
        ),
    ][seed]

    def policy(now):
        return 3 * torch.randn(1, generator=generator, dtype=torch.float64)

    run = cycling(policy, duration=160.0, n_samples=1, limits=limits, **more)
    assert run.limits.is_within, run.verdict
    assert run.energy > 0.5 * limits.energy  # and what is allowed is used
    assert "the limits held back" in run.verdict


@pytest.mark.parametrize("slew", [None, 0.05])
def test_interval_by_interval_is_the_same_as_at_once(slew):
    rule = Proportional(biomarker=Level("E"), setpoint=0.15, gain=-4.0, two_sided=True)
    run = cycling(rule, duration=60.0, limits=StimulusLimits(slew=slew), rtol=1e-8, atol=1e-10)
    whole = simulate(WilsonCowan(), START, run.trajectory.times, run.signal, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(run.trajectory.states, whole.states, rtol=0, atol=1e-7)
    assert run.trajectory.times[-1] == 60.0
    asked = -4.0 * (run.trajectory.outputs[::8, 0][:-1] - 0.15)
    torch.testing.assert_close(run.asked[:, 0], asked)


@pytest.mark.slow
def test_noise_comes_from_the_generator_and_a_loop_tames_the_oscillation_in_it():
    def run(gain):
        rule = Proportional(biomarker=Level("x"), setpoint=0.0, gain=gain, two_sided=True)
        return adaptive_stimulation(
            StuartLandau(), [0.4, 0.0], rule, duration=24.0, interval=0.4, n_samples=2,
            method="milstein", step=0.1, generator=torch.Generator().manual_seed(3),
        )  # fmt: skip

    tamed, free = run(-1.0), run(0.0)
    assert strength(tamed) < 0.3 * strength(free)
    torch.testing.assert_close(run(-1.0).trajectory.states, tamed.trajectory.states, rtol=0, atol=0)


def test_hysteresis_goes_on_until_the_release():
    rule = OnDemand(biomarker=Level("y1"), threshold=1.0, amplitude=2.0, release=0.5)
    off, on = np.zeros((1, 1)), 2 * np.ones((1, 1))
    assert float(rule(measured([0.0], [[0.7]], off, 1.0))) == 0.0
    assert float(rule(measured([0.0], [[0.7]], on, 1.0))) == 2.0
    assert float(rule(measured([0.0], [[0.4]], on, 1.0))) == 0.0
    assert float(rule(measured([0.0], [[1.0]], off, 1.0))) == 2.0


def test_an_oscillation_is_measured_as_its_standard_deviation_over_a_full_window():
    times = np.arange(0, 10, 0.01)
    samples = measured(
        times, np.sin(2 * np.pi * times)[:, None] + 3.0, off := np.zeros((1, 1)), 1.0
    )
    assert Oscillation("y1", 4.0)(samples) == pytest.approx(np.sqrt(0.5), rel=1e-2)
    early = measured(times[:50], np.sin(times[:50])[:, None], off, 1.0)
    assert Oscillation("y1", 4.0)(early) == 0.0


def test_a_run_says_what_it_did():
    rule = OnDemand(biomarker=Level("E"), threshold=0.2, amplitude=-0.5)
    run = cycling(rule, duration=100.0)
    assert run.verdict.startswith("stimulated ")
    assert run.to_pandas().columns.tolist() == ["time (ms)", "P asked", "P given"]
    json.dumps(run.to_dict())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cycling(lambda now: 0.0, duration=50.0), "no whole number of intervals"),
        (lambda: cycling(lambda now: float("nan")), "decision 0 is not finite"),
        (
            lambda: cycling(OnDemand(biomarker=Level("e"), threshold=1.0, amplitude=1.0)),
            "no output is called 'e'",
        ),
        (
            lambda: cycling(lambda now: 0.0, limits=StimulusLimits(balanced=True)),
            r"carrier=BiphasicPulses\(...\), whose pulses keep both",
        ),
        (
            lambda: cycling(
                lambda now: 0.0,
                limits=StimulusLimits(balanced=True),
                carrier=Pulses(frequency=0.1, width=1.0),
            ),
            "are not balanced",
        ),
        (
            lambda: cycling(
                lambda now: 0.0,
                limits=StimulusLimits(slew=1.0),
                carrier=Pulses(frequency=0.1, width=1.0),
            ),
            "vertical edges",
        ),
        (
            lambda: adaptive_stimulation(
                WilsonCowanNetwork(simulate_connectome(4), speed=5.0),
                torch.zeros(8),
                lambda now: 0.0,
                duration=1.0,
                interval=1.0,
            ),
            "has delays",
        ),
        (
            lambda: RecedingHorizon(LinearSystem([[0.5]], [[0.0]]), interval=1.0),
            "no regulator stabilises",
        ),
        (
            lambda: OnDemand(biomarker=Level("E"), threshold=0.1, amplitude=1.0, release=0.2),
            "above the threshold",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
