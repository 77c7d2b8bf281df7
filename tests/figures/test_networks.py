import base64

import pytest
import torch

from clinode.brain.connectome import Connectome, simulate_connectome
from clinode.brain.networks import WilsonCowanNetwork
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.figures.networks import connectome_figure, network_figure
from clinode.figures.picture import data_uri
from clinode.system import Signal


def run():
    network = WilsonCowanNetwork(simulate_connectome(34), P=0.9)
    pulse = torch.zeros(3, 34).double()
    pulse[1, 0] = 2.0
    times = torch.linspace(0, 400, 201).double()
    u = Signal([0.0, 50.0, 150.0], pulse)
    return simulate(network, network.initial_state(), times, u, method="rk4", step=1.0)


def matrix_and_map():
    return connectome_figure(simulate_connectome(68))


def matrix_alone():
    return connectome_figure(Connectome(weights=torch.eye(3) - 0.5, labels=("a", "b", "c")))


def activity():
    return network_figure(run())


FIGURES = {
    matrix_and_map: ("weight (arbitrary units)", "x, left to right (mm)", "y, back to front (mm)"),
    matrix_alone: ("sends", "receives", "3 regions"),
    activity: ("time (ms)", "E, fraction firing", "lh_precuneus"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text


def test_a_block_that_there_is_not_is_refused():
    with pytest.raises(ArgumentError, match="no block 'V'"):
        network_figure(run(), "V")
