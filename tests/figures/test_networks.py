import base64

import pytest
import torch

from clinode.brain.bold import record_bold
from clinode.brain.connectome import Connectome, simulate_connectome
from clinode.brain.networks import (
    EpileptorNetwork,
    JansenRitNetwork,
    KuramotoNetwork,
    ReducedWongWangNetwork,
    SaturatingRateNetwork,
    StuartLandauNetwork,
    WilsonCowanNetwork,
)
from clinode.dynamics.simulate import simulate
from clinode.errors import ArgumentError
from clinode.figures.networks import connectome_figure, network_figure, region_traces_figure
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
    activity: ("time (ms)", "mean E", "lh_precuneus"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text


def test_a_block_that_there_is_not_is_refused():
    with pytest.raises(ArgumentError, match="no block of this trajectory is called 'V'"):
        network_figure(run(), "V")


BRAIN = simulate_connectome(12)
KINDS = {  # a block, how long, the step, and what sets it going
    EpileptorNetwork: ("LFP", 60.0, 0.05, {"x0": [-1.6] + [-2.2] * 11}),
    JansenRitNetwork: ("EEG", 1.0, 1e-3, {"K": 30.0}),
    KuramotoNetwork: ("activity", 0.2, 1e-3, {"omega": [350.0 + 6 * i for i in range(12)]}),
    ReducedWongWangNetwork: ("S", 3.0, 5e-3, {"K": 2.0}),
    SaturatingRateNetwork: ("x", 200.0, 1.0, {"K": 1.5}),
    StuartLandauNetwork: ("x", 60.0, 0.1, {"a": 0.1}),
    WilsonCowanNetwork: ("E", 300.0, 0.5, {"P": 1.25}),
}


def traces(kind):
    name, end, step, constants = KINDS[kind]
    network = kind(BRAIN, **constants)
    generator = torch.Generator().manual_seed(0)
    x0 = network.initial_state()
    x0 = x0 + 0.2 * torch.rand(x0.shape, generator=generator, dtype=torch.float64)
    times = torch.linspace(0, end, 121).double()
    return simulate(network, x0, times, method="rk4", step=step), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_is_drawn_by_region(kind):
    run, name = traces(kind)
    figure = region_traces_figure(BRAIN, run, name)
    text = base64.b64decode(data_uri(figure).split(",", 1)[1]).decode()
    for words in (
        "receives",
        "weight (arbitrary units)",
        f"{name} about its mean",
        "time",
        "rh_insula",
    ):
        assert words in text
    assert run.outputs.isfinite().all()


def test_blood_is_drawn_as_its_network_is():
    run, _ = traces(StuartLandauNetwork)
    bold = record_bold(run, "x", repetition_time=2.0, step=0.5)
    assert (
        "BOLD about its mean"
        in base64.b64decode(
            data_uri(region_traces_figure(BRAIN, bold, "BOLD")).split(",", 1)[1]
        ).decode()
    )


def test_what_does_not_fit_together_is_not_drawn():
    run, name = traces(SaturatingRateNetwork)
    with pytest.raises(ArgumentError, match="does not have the regions"):
        region_traces_figure(simulate_connectome(10), run, name)
