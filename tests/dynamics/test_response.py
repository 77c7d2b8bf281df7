import math

import numpy as np
import pytest
import torch

from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.response import Impedance, impedance, zap
from clinode.errors import ArgumentError, SolverError
from clinode.system import LinearSystem, Quantity, System


class Resonator(System):
    """C V' = -g V - w + I, tau w' = a V - w."""

    time_unit = "ms"
    states = (Quantity("V", "mV", default=0.0), Quantity("w", "pA", default=0.0))
    inputs = (Quantity("I", "pA"),)
    constants = (
        Quantity("C", "pF"),
        Quantity("g", "nS"),
        Quantity("a", "nS"),
        Quantity("tau", "ms"),
    )

    def __init__(self, C=100.0, g=5.0, a=20.0, tau=100.0):
        super().__init__()
        self.register_constants(C=C, g=g, a=a, tau=tau)

    def vector_field(self, t, x, u):
        V, w = self.split(x).values()
        return self.join(V=(u - self.g * V - w) / self.C, w=(self.a * V - w) / self.tau)


def number(value) -> float:
    assert value is not None
    return float(value)


def response(*constants: float, frequencies=(0.0,)) -> Impedance:
    system = Resonator(*constants)
    return impedance(system, find_equilibria(system, n_starts=1)[0], frequencies)


def closed_form(C, g, a, tau, omega):
    return (1 + 1j * omega * tau) / ((g + 1j * omega * C) * (1 + 1j * omega * tau) + a)


def resonance_closed_form(C, g, a, tau):
    k = C / tau
    bracket = (g + a) ** 2 + 2 * k * (g + a) - (g + k) ** 2
    inside = -1 + math.sqrt(1 + bracket / k**2) if bracket > 0 else -1.0
    return math.sqrt(inside) / tau if inside > 0 else None


@pytest.mark.parametrize(
    ("constants", "resonance", "magnitude", "Q", "natural", "zero_phase"),
    [
        ((100.0, 5.0, 20.0, 100.0), 7.845261, 170.0138, 4.250346, 6.366198, 6.937403),
        ((100.0, 10.0, 10.0, 100.0), 6.540580, 93.3410, 1.866820, None, None),
        ((200.0, 10.0, 30.0, 50.0), 9.773890, 75.0150, 3.000602, 8.384007, 8.115341),
    ],
)
def test_three_frequencies_are_told_apart(constants, resonance, magnitude, Q, natural, zero_phase):
    found = response(*constants)
    hertz = 1000.0  # per ms
    assert number(found.resonance_frequency) * hertz == pytest.approx(
        resonance, abs=1.1e-6
    )  # printed to 1e-6
    assert number(found.resonance_magnitude) * 1000 == pytest.approx(magnitude, abs=6e-5)  # in MOhm
    assert pytest.approx(Q, abs=6e-7) == found.Q
    if natural is None:
        assert found.natural_frequency is None  # a node: resonance without ringing
    else:
        assert number(found.natural_frequency) * hertz == pytest.approx(natural, abs=6e-7)
        assert number(found.zero_phase_frequency) * hertz == pytest.approx(zero_phase, abs=1.1e-6)


@pytest.mark.slow
def test_resonance_agrees_with_its_closed_form_or_does_not_exist():
    rng = np.random.default_rng(0)
    n_resonant = 0
    for _ in range(100):
        C, g, tau = rng.uniform(20, 400), rng.uniform(1, 40), rng.uniform(2, 300)
        a = rng.uniform(-0.9 * g, 60)
        expected = resonance_closed_form(C, g, a, tau)
        frequencies = rng.uniform(0, 0.1, 4)
        found = response(C, g, a, tau, frequencies=frequencies)
        z = closed_form(C, g, a, tau, 2 * np.pi * frequencies)
        np.testing.assert_allclose(found.impedance, z, rtol=1e-10)
        if expected is None:
            assert found.resonance_frequency is None
            assert found.verdict == "no resonance"
            continue
        n_resonant += 1
        assert number(found.resonance_frequency) * 2 * math.pi == pytest.approx(expected, rel=1e-8)
        height = abs(closed_form(C, g, a, tau, expected))
        assert pytest.approx(height * (g + a), rel=1e-8) == found.Q
        if a * tau > C:
            zero = math.sqrt(a * tau / C - 1) / tau / (2 * math.pi)
            assert found.zero_phase_frequency == pytest.approx(zero, rel=1e-8)
        else:
            assert found.zero_phase_frequency is None
    assert 20 < n_resonant < 97


def test_response_of_any_stable_linear_system_is_that_of_python_control():
    control = pytest.importorskip("control")
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = int(rng.integers(2, 9))
        A = rng.normal(size=(n, n))
        A -= (np.linalg.eigvals(A).real.max() + rng.uniform(0.05, 1)) * np.eye(n)
        B, C, D = rng.normal(size=(n, 2)), rng.normal(size=(3, n)), rng.normal(size=(3, 2))
        system = LinearSystem(A, B, C, D)
        rest = find_equilibria(system, n_starts=1)[0]
        frequencies = np.geomspace(1e-3, 10, 40)
        found = impedance(system, rest, frequencies, input="u2", output="y3")
        oracle = control.frequency_response(system.to_control(), 2 * np.pi * frequencies)
        expected = np.asarray(oracle.complex)[2, 1]
        np.testing.assert_allclose(found.impedance, expected, rtol=1e-10, atol=1e-12)
        dense = impedance(system, rest, np.linspace(0, 20, 20001), input="u2", output="y3")
        highest = float(dense.magnitude.max())
        if found.resonance_magnitude is None:
            assert highest <= max(abs(found.steady), abs(D[2, 1])) * (1 + 1e-12)
        else:
            assert found.resonance_magnitude >= highest * (1 - 1e-12)
            assert found.resonance_magnitude <= highest * (1 + 1e-3)


def test_gradient_of_the_resonance_is_that_of_its_closed_form():
    start = {"C": 100.0, "g": 5.0, "a": 20.0, "tau": 100.0}
    leaves = {
        name: torch.tensor([value], dtype=torch.float64, requires_grad=True)
        for name, value in start.items()
    }
    system = Resonator().with_constants(**leaves)
    found = impedance(system, find_equilibria(system, n_starts=1)[0], [0.01])
    assert found.resonance_frequency is not None
    (2 * math.pi * found.resonance_frequency).backward()
    for name, leaf in leaves.items():
        h = 1e-5 * start[name]
        shifted = [
            number(resonance_closed_form(*(start | {name: start[name] + s}).values()))
            for s in (h, -h)
        ]
        assert number(leaf.grad) == pytest.approx((shifted[0] - shifted[1]) / (2 * h), rel=1e-6)


def test_the_hodgkin_huxley_membrane_rings_at_its_hopf_frequency_near_the_bifurcation(published):
    system = published.HodgkinHuxley()
    rest = next(one for one in find_equilibria(system, u=9.774, n_starts=8) if one.is_stable)
    found = impedance(system, rest, [0.05])
    assert number(found.natural_frequency) * 1000 == pytest.approx(93.302, abs=0.02)
    assert number(found.resonance_frequency) * 1000 == pytest.approx(93.302, abs=0.02)
    assert found.output.name == "V"


@pytest.mark.slow
def test_zap_recording_gives_the_impedance_of_a_linear_membrane():
    system = Resonator()
    rest = find_equilibria(system, n_starts=1)[0]
    recorded = zap(system, rest, (0.001, 0.03), duration=1200.0, amplitude=5.0)
    exact = impedance(system, rest, recorded.frequencies)
    inner = (recorded.frequencies > 0.002) & (recorded.frequencies < 0.025)
    error = (recorded.impedance - exact.impedance).abs() / exact.magnitude
    assert float(error[inner].max()) < 0.01
    assert recorded.deviation < 1e-4  # it is linear
    assert number(recorded.resonance_frequency) == pytest.approx(
        number(exact.resonance_frequency), rel=0.02
    )


@pytest.mark.slow
def test_zap_tells_when_its_amplitude_is_not_small(published):
    system = published.MorrisLecar()
    rest = find_equilibria(system, u=60.0, n_starts=16)[0]
    small = zap(system, rest, (0.002, 0.03), duration=500.0, amplitude=0.1)
    large = zap(system, rest, (0.002, 0.03), duration=500.0, amplitude=8.0)
    assert small.deviation < 0.02
    assert large.deviation > 5 * small.deviation


def test_an_unstable_equilibrium_has_no_steady_response(published):
    system = published.MorrisLecar()
    unstable = [one for one in find_equilibria(system, u=150.0) if not one.is_stable]
    with pytest.raises(SolverError, match="does not settle"):
        impedance(system, unstable[0], [0.01])


def test_names_and_frequencies_are_checked():
    system = Resonator()
    rest = find_equilibria(system, n_starts=1)[0]
    with pytest.raises(ArgumentError, match="there are 'V', 'w'"):
        impedance(system, rest, [0.01], output="v")
    with pytest.raises(ArgumentError, match="from 0 on"):
        impedance(system, rest, [-0.01])
    with pytest.raises(ArgumentError, match="low < high"):
        zap(system, rest, (0.04, 0.01), duration=1000.0, amplitude=1.0)


def test_a_table_carries_units():
    found = response(frequencies=[0.0, 0.01])
    assert list(found.to_pandas().columns) == [
        "frequency (1/ms)",
        "magnitude (mV / (pA))",
        "phase (rad)",
    ]
    assert found.to_dict()["verdict"] == "resonant"
