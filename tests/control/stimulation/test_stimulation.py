import itertools
import json
import math

import numpy as np
import pytest
import torch

from clinode.brain.connectome import simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.brain.populations import WilsonCowan
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.stimulation import stimulate
from clinode.control.stimulation.waveforms import BiphasicPulses, Free
from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.system import LinearSystem, Quantity, System

RESTING = [0.0, 0.0]  # of P and Q: Wilson and Cowan's population is silent


class Switch(System):
    """x' = x - x^3 + u: rest at -1 and 1."""

    states = (Quantity("x", "1", range=(-2.0, 2.0)),)
    inputs = (Quantity("u", "1"),)

    def vector_field(self, t, x, u):
        return x - x**3 + u


class Learned(System):
    """A bounded latent field read out through a nonlinear map, in any coordinates T z."""

    latent = True
    time_unit = "h"
    states = (Quantity("z1", "1", range=(-3.0, 3.0)), Quantity("z2", "1", range=(-3.0, 3.0)))
    inputs = (Quantity("dose", "mg/h"),)
    outputs = (Quantity("MAP", "mmHg"), Quantity("lactate", "mmol/L"))

    def __init__(self, T):
        super().__init__()
        self.register_buffer("T", torch.as_tensor(T, dtype=torch.float64))
        self.register_buffer("back", torch.linalg.inv(self.T))

    def vector_field(self, t, x, u):
        z = x @ self.back.T
        drift = torch.tanh(z.flip(-1)) * torch.tensor([0.5, -0.8]).double() - z
        return (drift + u * torch.tensor([1.0, 0.3]).double()) @ self.T.T

    def output(self, t, x, u):
        z = x @ self.back.T
        return torch.stack([70 + 8 * z[..., 0], torch.exp(z[..., 1])], dim=-1)


@pytest.fixture(scope="module")
def network():
    system = WilsonCowanNetwork(simulate_connectome(4))
    return system, find_equilibria(system)[0]


def test_a_leak_takes_the_least_energy_of_its_closed_form():
    leak = LinearSystem([[-0.5]], [[2.0]], states=["V"], inputs=["I"])
    rest = find_equilibria(leak)[0]
    found = stimulate(leak, rest, {"V": 3.0}, horizon=2.0, waveform=Free(n_pieces=16))
    gramian = 4 * (1 - math.exp(-2 * 0.5 * 2)) / (2 * 0.5)
    assert found.energy == pytest.approx(9 / gramian, rel=1e-3)
    assert found.is_reached
    assert found.distance < 1e-6
    torch.testing.assert_close(found.simulated.states, found.predicted.states, rtol=0, atol=1e-6)
    assert found.verdict == "reaches the target: less than 0.0001 % of the distance is left"


def test_the_linear_prediction_is_off_by_the_square_of_a_small_displacement():
    system = WilsonCowan()
    rest = find_equilibria(system, u=torch.tensor([0.5, 0.0]))[0]
    errors = []
    for eps in (4e-3, 2e-3, 1e-3):
        target = {"E": float(rest.state[0]) + eps}
        found = stimulate(
            system, rest, target, horizon=15.0, refine=False, waveform=Free(n_pieces=5)
        )
        errors.append(float((found.simulated.states - found.predicted.states).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.2)


@pytest.mark.slow
def test_where_the_linear_theory_misleads_the_search_arrives_and_the_words_say_so(network):
    system, rest = network
    target = {"E:lh_precuneus": 0.2}
    limits = StimulusLimits(amplitude=3.0)
    found = stimulate(
        system, rest, target, limits, inputs=["stimulus:lh_precuneus"], horizon="20 ms",
        waveform=Free(n_pieces=8), step=2.5,
    )  # fmt: skip
    assert found.is_reached
    assert found.limits.is_within
    assert found.distance < 1e-3 * found.distance_before
    assert found.distance_unrefined > 0.3 * found.distance_before
    assert found.verdict.startswith("reaches the target")
    assert "linear prediction misleads" in found.verdict
    again = simulate(system, rest.state, [0.0, 20.0], found.signal, method="rosenbrock", rtol=1e-8)
    assert float(again.states[-1, 0]) == pytest.approx(0.2, abs=1e-4)
    silent = [i for i, n in enumerate(system.input_names) if n != "stimulus:lh_precuneus"]
    assert (found.signal.values[:, silent] == 0).all()


@pytest.mark.parametrize("amplitude", [0.2, pytest.param(1.5, marks=pytest.mark.slow)])
def test_a_switch_is_thrown_where_the_amplitude_allows(amplitude):
    system = Switch()
    equilibria = find_equilibria(system)
    low, high = sorted((e for e in equilibria if e.is_stable), key=lambda e: float(e.state))
    found = stimulate(
        system, low, high, StimulusLimits(amplitude=amplitude), horizon=6.0,
        waveform=Free(n_pieces=8), step=0.75,
    )  # fmt: skip
    assert found.limits.is_within
    if amplitude > 2 / math.sqrt(27):  # the fold of x - x^3 + u
        assert found.is_reached
        assert found.verdict.startswith("reaches")
    else:
        assert not found.is_reached
        assert "at the limit of amplitude" in found.verdict


@pytest.mark.slow
def test_biphasic_pulses_stay_within_the_limits_of_an_electrode(network):
    system, rest = network
    limits = StimulusLimits(amplitude=4.0, charge=4.0, balanced=True, energy=60.0)
    pulses = BiphasicPulses(frequency="130 Hz", width="1 ms", gap="0.2 ms")
    found = stimulate(
        system, rest, {"E:lh_precuneus": 0.05}, limits, horizon=30.0, waveform=pulses,
        inputs=["stimulus:lh_precuneus"],
    )  # fmt: skip
    assert found.limits.is_within
    balance = [row.value for row in found.limits.rows if row.limit == "balance"]
    assert balance[0] < 1e-14
    assert found.distance < found.distance_before
    table = found.to_pandas()
    assert len(table) == 201
    assert {"E:lh_precuneus predicted", "E:lh_precuneus simulated"} < set(table.columns)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_a_slew_limit_makes_lines_of_a_free_stimulus(network):
    system, rest = network
    limits = StimulusLimits(amplitude=2.0, slew=0.5)
    found = stimulate(system, rest, {"E:lh_precuneus": 0.03}, limits, horizon=30.0)
    assert found.signal.hold == "linear"
    assert found.limits.is_within
    assert found.is_reached


@pytest.mark.slow
def test_a_learned_system_is_steered_alike_in_any_latent_coordinates():
    values = []
    for T in ([[1.0, 0.0], [0.0, 1.0]], [[2.0, -1.0], [0.5, 3.0]]):
        system = Learned(T)
        rest = find_equilibria(system)[0]
        found = stimulate(
            system, rest, {"MAP": 80.0}, StimulusLimits(one_sided=True), horizon=4.0,
            waveform=Free(n_pieces=8), step=0.5,
        )  # fmt: skip
        assert found.is_reached
        assert float(found.simulated.outputs[-1, 0]) == pytest.approx(80.0, abs=0.01)
        assert found.signal.values.min() >= 0
        values.append(found.signal.values)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-3)


def test_a_target_that_is_met_needs_no_stimulus(network):
    system, rest = network
    found = stimulate(system, rest, rest.state, horizon=10.0)
    assert found.is_reached
    assert found.energy == 0.0


def test_a_target_that_no_input_moves_is_undecided():
    apart = LinearSystem([[-1.0, 0.0], [0.0, -2.0]], [[1.0], [0.0]])
    found = stimulate(apart, find_equilibria(apart)[0], {"x2": 1.0}, horizon=1.0)
    assert not found.is_reached
    assert found.verdict.startswith("undecided: to first order these inputs do not move")


def test_delays_are_in_the_check_only():
    system = WilsonCowanNetwork(simulate_connectome(4), speed=10.0)
    rest = find_equilibria(system)[0]
    target = {"E:" + system.connectome.labels[1]: float(rest.state[1]) + 0.005}
    with pytest.raises(ArgumentError, match="refine=False designs at zero delay"):
        stimulate(system, rest, target, horizon=20.0)
    found = stimulate(system, rest, target, horizon=20.0, refine=False, step=0.5)
    assert found.n_iterations == 0
    assert 0 < found.distance < found.distance_before


@pytest.mark.slow
def test_more_targets_than_gradients_are_taken_for_are_reached_as_well(network, monkeypatch):
    from clinode.control.stimulation import approach

    monkeypatch.setattr(approach, "EXACT", 0)
    system, rest = network
    target = {"E:lh_precuneus": 0.03, "E:rh_precuneus": 0.04}
    target = {name: value for name, value in target.items() if name in system.state_names}
    found = stimulate(system, rest, target, StimulusLimits(amplitude=3.0), horizon=30.0)
    assert found.is_reached


def test_the_horizon_is_the_slowest_time_constant_unless_it_is_given(network):
    system, rest = network
    found = stimulate(system, rest, {"E:lh_precuneus": 0.02}, refine=False)
    assert found.horizon == pytest.approx(1 / float(rest.eigenvalues.real.abs().min()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": {"E:lh_precunius": 0.1}}, "did you mean 'E:lh_precuneus'"),
        ({"target": {}}, "target names nothing"),
        ({"target": torch.zeros(3)}, r"expected \(8,\) states"),
        ({"target": {"E:lh_precuneus": math.nan}}, "not finite"),
        ({"horizon": -1.0}, "horizon must be positive"),
        ({"inputs": ["stimulus:lh_precunius"]}, "did you mean 'stimulus:lh_precuneus'"),
        ({"waveform": "square"}, "no waveform is called 'square'"),
        ({"step": 1e-5}, "too fast for the horizon"),
        ({"step": -1.0}, "step must be positive"),
        (
            {"limits": StimulusLimits(slew=1.0), "waveform": Free()},
            "the slew limit excludes every stimulus",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(network, change, words):
    system, rest = network
    asked = {"target": {"E:lh_precuneus": 0.1}, "horizon": 20.0} | change
    with pytest.raises(ArgumentError, match=words):
        stimulate(system, rest, **asked)


def test_states_of_a_learned_system_are_no_target():
    system = Learned(np.eye(2))
    rest = find_equilibria(system)[0]
    with pytest.raises(ArgumentError, match="arbitrary coordinates"):
        stimulate(system, rest, torch.zeros(2))
    with pytest.raises(ArgumentError, match="coordinates are arbitrary"):
        stimulate(system, rest, {"z1": 0.3})
