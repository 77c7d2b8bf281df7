import math

import numpy as np
import pytest
import torch

from clinode.brain import AdEx, Izhikevich
from clinode.dynamics.onset import firing_onset
from clinode.dynamics.resetting import firing_periods, resets
from clinode.system import Event, Quantity, System


class LIF(System):
    """Lapicque 1907; Burkitt 2006, Biol Cybern 95:1."""

    time_unit = "ms"
    states = (Quantity("V", "mV", range=(-80.0, -40.0), default=-70.0),)
    inputs = (Quantity("I", "pA", range=(0.0, 600.0)),)
    constants = (Quantity("t_ref", "ms"), Quantity("V_th", "mV"))

    def __init__(self):
        super().__init__()
        self.register_constants(t_ref=2.0, V_th=-50.0)

    def vector_field(self, t, x, u):
        return (u - 10.0 * (x + 70.0)) / 200.0

    def threshold(self, t, x):
        return x - self.V_th

    def after_spike(self, x):
        return torch.zeros_like(x) - 60.0

    events = (Event("spike", threshold, after_spike, refractory="t_ref", held=("V",)),)


class Quadratic(System):
    """V' = V^2 + I, from `peak` to `reset`."""

    states = (Quantity("V", "1", range=(-2.0, 2.0), default=-1.0),)
    inputs = (Quantity("I", "1", range=(-1.0, 1.0)),)
    constants = (Quantity("peak", "1"), Quantity("reset", "1"))

    def __init__(self, reset: float):
        super().__init__()
        self.register_constants(peak=20.0, reset=reset)

    def vector_field(self, t, x, u):
        return x**2 + u

    def threshold(self, t, x):
        return x - self.peak

    def after_spike(self, x):
        return torch.zeros_like(x) + self.reset

    events = (Event("spike", threshold, after_spike),)


@pytest.mark.slow
def test_integrate_and_fire_loses_its_rest_to_the_threshold_with_its_logarithm():
    onset = firing_onset(LIF(), "I")
    assert onset.kind == "threshold"
    assert float(onset.value) == pytest.approx(10 * 20, rel=1e-9)  # g (V_th - E)
    assert (onset.frequency_law, onset.expected_law) == ("log", "log")
    assert onset.law.coefficient == pytest.approx(1 / 20, rel=0.02)  # 1 / tau
    assert onset.agrees


@pytest.mark.slow
def test_intervals_of_integrate_and_fire_match_their_closed_form():
    system = LIF()
    lost = firing_onset(system, "I").rest_ends
    values, periods = firing_periods(system, "I", 0.0, lost, 600.0)
    end = -70 + values / 10
    expected = 2 + 20 * np.log((end + 60) / (end + 50))
    np.testing.assert_allclose(periods, expected, rtol=1e-3)
    assert len(values) == 5


def test_an_event_that_only_counts_is_no_reset():
    class Counted(Quadratic):
        events = (Event("spike", Quadratic.threshold),)

    assert resets(Counted(0.0)) == ()
    assert len(resets(LIF())) == 1


def izhikevich_onset(a: float, b: float) -> tuple[str, float]:
    """Kind and current of the end of rest of the neuron of 2003."""
    if b > a:
        v = (a - 5) / 0.08
        return "hopf", (b - 5) * v - 0.04 * v * v - 140
    return "fold", (5 - b) ** 2 / 0.16 - 140


def adex_onset(C, g_L, E_L, V_T, Delta_T, tau_w, a) -> tuple[str, float]:
    """Touboul & Brette 2008, Biol Cybern 99:319-334."""
    body, ratio = V_T - E_L - Delta_T, C / g_L / tau_w
    if a / g_L > ratio:
        turn = (g_L + a) * (body + Delta_T * math.log(1 + ratio))
        return "hopf", turn + Delta_T * g_L * (a / g_L - ratio)
    return "fold", (g_L + a) * (body + Delta_T * math.log(1 + a / g_L))


def check_rest_ends(neuron, expected, width) -> None:
    kind, current = expected
    onset = firing_onset(neuron, "I", span=(current - width, current + width / 2))
    assert onset.rest_ends.kind == kind
    assert float(onset.rest_ends.value) == pytest.approx(current, rel=1e-7, abs=1e-7)


@pytest.mark.slow
def test_a_regular_spiking_neuron_begins_to_fire_at_its_hopf_point_at_a_finite_rate():
    check_rest_ends(Izhikevich(), izhikevich_onset(0.02, 0.2), 10.0)
    onset = firing_onset(Izhikevich(), "I", span=(-5.0, 10.0))
    assert (onset.kind, onset.frequency_law, onset.agrees) == ("hopf", "finite", True)


@pytest.mark.slow
def test_published_adex_begins_to_fire_at_its_hopf_point():
    check_rest_ends(AdEx(), adex_onset(281.0, 30.0, -70.6, -50.4, 2.0, 144.0, 4.0), 100.0)


@pytest.mark.slow
def test_random_neurons_that_reset_lose_their_rest_where_their_closed_forms_say(monkeypatch):
    none = np.empty(0), np.empty(0)
    monkeypatch.setattr("clinode.dynamics.onset.firing_periods", lambda *given: none)
    kinds = set()
    for seed in range(8):
        random = np.random.default_rng(seed)
        a, b = random.uniform(0.01, 0.2), random.uniform(0.05, 0.3)
        check_rest_ends(Izhikevich(a=a, b=b), izhikevich_onset(a, b), 10.0)
        drawn = {
            "C": (100, 300), "g_L": (5, 30), "E_L": (-75, -60), "V_T": (-52, -45),
            "Delta_T": (1, 4), "tau_w": (5, 200), "a": (0.5, 12),
        }  # fmt: skip
        c = {name: float(random.uniform(*side)) for name, side in drawn.items()}
        check_rest_ends(AdEx(**c), adex_onset(**c), 100.0)
        kinds |= {izhikevich_onset(a, b)[0], adex_onset(**c)[0]}
    assert kinds == {"fold", "hopf"}


@pytest.mark.slow
def test_a_quadratic_neuron_fires_with_the_square_root_of_its_closed_form():
    neuron = Quadratic(reset=-3.0)
    onset = firing_onset(neuron, "I")
    assert (onset.kind, onset.frequency_law) == ("snic", "sqrt")
    assert onset.law.coefficient == pytest.approx(1 / math.pi, rel=1e-2)
    values, periods = firing_periods(neuron, "I", 0.0, onset.rest_ends, 2.0)
    root = np.sqrt(values)
    expected = (np.arctan(20 / root) + np.arctan(3 / root)) / root
    np.testing.assert_allclose(periods, expected, rtol=1e-4)
    assert len(values) == 7
