import base64

import numpy as np
import pytest

from clinode.brain.conductance import MorrisLecar
from clinode.brain.populations import ThetaPopulation
from clinode.brain.seizure import Wendling
from clinode.dynamics.continuation import continue_equilibria
from clinode.dynamics.cycle_branches import continue_cycles
from clinode.dynamics.onset import firing_onset
from clinode.errors import ArgumentError
from clinode.figures.bifurcations import bifurcation_figure, frequency_figure, onset_figure
from clinode.figures.picture import data_uri


def bifurcations():
    neuron = MorrisLecar.hopf()
    rest = continue_equilibria(neuron, "I", span=(0.0, 250.0))
    hopf = next(point for point in rest.points if point.kind == "hopf")
    cycles = continue_cycles(neuron, "I", hopf, span=(0.0, 250.0))
    return bifurcation_figure([rest, cycles])


def folds():
    return bifurcation_figure(continue_equilibria(Wendling(G=0.0), "p", span=(-60.0, 200.0)), "y1")


def frequencies():
    mu = np.linspace(0.0, 0.1, 12)
    law = (mu, np.sqrt(mu) / np.pi, "√µ / π")
    return frequency_figure(
        mu, np.sqrt(mu) / np.pi, parameter="mu", unit="1", time_unit="1", law=law
    )


def bistable_population():
    branch = continue_equilibria(ThetaPopulation(), "I", span=(-6.0, 4.0))
    return bifurcation_figure(branch, "r")


def onset():
    return onset_figure(firing_onset(MorrisLecar.snic(), "I", span=(20.0, 120.0)))


FIGURES = {
    bifurcations: ("V (mV)", "µA/cm²", "subcritical Hopf 93.86", "fold of cycles 88.29"),
    folds: ("p (Hz)", "y1 (mV)", "fold 113.6", "fold -41.3"),
    frequencies: ("frequency", "√µ / π"),
    bistable_population: ("r (1/ms)", "I", "fold"),
    onset: ("I (µA/cm²)", "frequency (Hz)", "square-root law"),
}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "make", [pytest.param(make, marks=SLOW if make is onset else ()) for make in FIGURES]
)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text


def test_what_is_not_there_cannot_be_drawn():
    with pytest.raises(ArgumentError, match="one parameter"):
        bifurcation_figure([])
    branch = continue_equilibria(MorrisLecar.hopf(), "I", span=(0.0, 10.0))
    with pytest.raises(ArgumentError, match="no state 'h'"):
        bifurcation_figure(branch, "h")
