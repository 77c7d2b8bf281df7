"""Mistakes in units, made on purpose in every model of a neuron or a synapse: all are refused."""

from dataclasses import replace

import pytest

from clinode import brain
from clinode.system import System
from clinode.units import UnitError, check_dimensions

MODELS = (
    brain.LIF,
    brain.NoisyLIF,
    brain.AdaptiveLinear,
    brain.AdEx,
    brain.Izhikevich,
    brain.MorrisLecar,
    brain.HodgkinHuxley,
    brain.ExponentialSynapse,
    brain.AlphaSynapse,
    brain.DualExponentialSynapse,
    brain.NMDASynapse,
    brain.FluctuatingConductance,
)
SWAPS = {  # a unit for another of the same dimension: only a factor is wrong
    "nS": "mS", "mS/cm^2": "uS/cm^2", "mV": "V", "pA": "nA", "pF": "nF", "uF/cm^2": "nF/cm^2",
    "ms": "s", "1/ms": "1/s", "mV/ms": "mV/s", "1/mV": "1/V", "1/(mV*ms)": "1/(mV*s)",
    "mmol/L": "mol/L",
}  # fmt: skip
MUTANTS = [
    (model, quantity.name, SWAPS.get(quantity.unit, "mol"))
    for model in MODELS
    for quantity in model.constants
]


@pytest.mark.parametrize(("model", "name", "unit"), MUTANTS)
def test_a_constant_in_a_wrong_unit_is_refused_and_its_term_named(model, name, unit):
    system = model()
    system.constants = tuple(
        replace(q, unit=unit) if q.name == name else q for q in system.constants
    )
    with pytest.raises(UnitError) as refusal:
        check_dimensions(system)
    assert model.__name__ in str(refusal.value)


class WithoutCapacitance(System):
    """A leaky membrane whose author forgot to divide by C."""

    time_unit, states, inputs = "ms", brain.LIF.states, brain.LIF.inputs
    constants = brain.LIF.constants[:3]

    def __init__(self):
        super().__init__()
        self.register_constants(C=200.0, g_L=10.0, E_L=-70.0)

    def vector_field(self, t, x, u):
        return u - self.g_L * (x - self.E_L)


def test_a_forgotten_capacitance_is_refused():
    with pytest.raises(UnitError, match="WithoutCapacitance"):
        check_dimensions(WithoutCapacitance())
