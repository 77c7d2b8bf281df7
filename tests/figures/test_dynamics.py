import base64

import pytest
import torch

from clinode.brain.circuits import LateralInhibition, WongWang
from clinode.brain.conductance import MorrisLecar
from clinode.brain.populations import SNICOscillator, WilsonCowan
from clinode.dynamics.basins import basins
from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.response import impedance
from clinode.dynamics.separatrix import separatrix
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.figures.dynamics import (
    basin_figure,
    impedance_figure,
    phase_plane_figure,
    traces_figure,
)
from clinode.figures.picture import data_uri
from clinode.system import LinearSystem, Quantity


def traces():
    neuron = MorrisLecar.hopf()
    times = torch.linspace(0, 150, 301).double()
    return traces_figure(simulate(neuron, [-20.0, 0.1], times, 100.0, method="rk4", step=0.5))


def traces_of_many():
    system = LateralInhibition(20, w=0.8)
    u = torch.linspace(5, 15, 20).double()
    times = torch.linspace(0, 100, 101).double()
    return traces_figure(
        simulate(system, torch.zeros(3, 20), times, u, method="rk4", step=1.0), member=1
    )


def plane():
    system, u = WilsonCowan(), torch.tensor([1.25, 0.0]).double()
    run = simulate(system, [0.1, 0.1], torch.linspace(0, 200, 401).double(), u, method="rk4",
                   step=0.5)  # fmt: skip
    return phase_plane_figure(
        system, u, box={"E": (-0.05, 0.5), "I": (-0.05, 0.4)},
        equilibria=find_equilibria(system, u, n_starts=16), trajectories=[run.states],
    )  # fmt: skip


def plane_with_straight_nullclines():
    """x' = x (1 - y), y' = y (x - 1): the axes and x = 1, y = 1, vertical and horizontal."""
    system = SNICOscillator()
    return phase_plane_figure(system, -0.2, equilibria=find_equilibria(system, -0.2, n_starts=16))


def map_of_basins():
    system, u = WongWang(), torch.tensor([30.0, 12.8]).double()
    (saddle,) = [one for one in find_equilibria(system, u, n_starts=64) if one.kind == "saddle"]
    box = {"S1": (0.0, 0.8), "S2": (0.0, 0.8)}
    return basin_figure(basins(system, box, n=48, u=u), separatrix(system, saddle, box))


def resonance():
    membrane = LinearSystem(
        A=[[-0.05, -0.01], [0.02, -0.01]],
        B=[[0.01], [0.0]],
        C=[[1.0, 0.0]],
        states=[Quantity("V", "mV", default=0.0), Quantity("w", "pA", default=0.0)],
        inputs=[Quantity("I", "pA")],
        outputs=[Quantity("V", "mV")],
        time_unit="ms",
    )
    rest = find_equilibria(membrane, n_starts=4)[0]
    return impedance_figure(impedance(membrane, rest, torch.logspace(-4, -1, 200).double()))


FIGURES = {
    traces: ("time (ms)", "V (mV)"),
    traces_of_many: ("time (ms)", "r (Hz)", "r, member"),
    plane: ("dE/dt = 0", "dI/dt = 0"),
    plane_with_straight_nullclines: ("dx/dt = 0", "dy/dt = 0"),
    map_of_basins: ("S1", "S2", "rest 1: ", "separatrix"),
    resonance: ("|Z| (GΩ)", "phase (°)", "frequency (Hz)", "resonance"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text


def test_what_is_not_there_cannot_be_drawn():
    run = simulate(WilsonCowan(), [0.1, 0.1], [0.0, 1.0], 0.0)
    with pytest.raises(ArgumentError, match="no state or output 'V'"):
        traces_figure(run, ["V"])
    with pytest.raises(ArgumentError, match="no state 'w'"):
        phase_plane_figure(WilsonCowan(), states=("E", "w"))
    with pytest.raises(ArgumentError, match="grid over two states"):
        basin_figure(basins(LateralInhibition(1 + 2), n=4, u=1.0))
