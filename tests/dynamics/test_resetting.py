import numpy as np
import pytest
import torch

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
