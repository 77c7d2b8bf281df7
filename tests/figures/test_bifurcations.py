import base64
import itertools

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


def switches(figure) -> np.ndarray:
    """(point, 2): where one drawn line of a branch ends and the next begins."""
    lines = [np.array(line.get_data()).T for line in figure.axes[0].get_lines()]
    lines = [line for line in lines if len(line) > 1]
    pairs = itertools.pairwise(lines)
    return np.array([a[-1] for a, b in pairs if (a[-1] == b[0]).all()])


@pytest.mark.parametrize(
    ("system", "parameter", "span", "n"),
    [
        (MorrisLecar.hopf(), "I", (0.0, 250.0), 2),
        (MorrisLecar.snic(), "I", (-20.0, 120.0), 2),
        (Wendling(G=0.0), "p", (-60.0, 400.0), 4),
        (ThetaPopulation(), "I", (-6.0, 4.0), 2),
    ],
)
def test_lines_change_their_style_at_the_special_point_itself(system, parameter, span, n):
    branch = continue_equilibria(system, parameter, span=span)
    found = switches(bifurcation_figure(branch))
    assert len(found) == (np.diff(branch.stable.astype(int)) != 0).sum() >= n
    points = np.array([[float(p.value), float(p.state[0])] for p in branch.points])
    for place in found:
        assert (points == place).all(axis=1).any()


def test_lines_of_cycles_change_their_style_at_the_fold_of_cycles():
    neuron = MorrisLecar.hopf()
    rest = continue_equilibria(neuron, "I", span=(80.0, 110.0))
    hopf = next(point for point in rest.points if point.kind == "hopf")
    cycles = continue_cycles(neuron, "I", hopf, span=(80.0, 110.0))
    (fold,) = [point for point in cycles.points if point.kind == "cycle fold"]
    V = fold.cycle.states[:, 0]
    expected = [[float(fold.value), float(V.min())], [float(fold.value), float(V.max())]]
    np.testing.assert_array_equal(switches(bifurcation_figure(cycles)), expected)


def test_what_is_not_there_cannot_be_drawn():
    with pytest.raises(ArgumentError, match="one parameter"):
        bifurcation_figure([])
    branch = continue_equilibria(MorrisLecar.hopf(), "I", span=(0.0, 10.0))
    with pytest.raises(ArgumentError, match="no state 'h'"):
        bifurcation_figure(branch, "h")
