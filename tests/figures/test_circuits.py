import base64

import pytest
import torch

from clinode.brain.circuits import (
    LateralInhibition,
    LateralInhibitionField,
    NoisyWongWang,
    RingAttractor,
    WinnerTakeAll,
    WongWang,
)
from clinode.dynamics.equilibria import find_equilibria
from clinode.dynamics.simulate import simulate
from clinode.figures.circuits import (
    compass_figure,
    competition_figure,
    decision_figure,
    mach_bands_figure,
)
from clinode.figures.dynamics import traces_figure
from clinode.figures.picture import data_uri


def competition():
    u, times = torch.tensor([10.0, 9.0, 8.5]).double(), torch.linspace(0, 200, 201).double()
    systems = {
        "weak inhibition, w = 0.3": LateralInhibition(3, w=0.3),
        "strong inhibition, w = 1.5": LateralInhibition(3, w=1.5),
        "one inhibitory unit": WinnerTakeAll(3),
    }
    runs = {
        title: simulate(s, torch.zeros(s.n_states), times, u, method="rk4", step=1.0)
        for title, s in systems.items()
    }
    return competition_figure(runs)


def mach_bands():
    away = (torch.linspace(-1, 1, 128).double()).abs()
    return mach_bands_figure(LateralInhibitionField(128), 10 + 20 * ((0.6 - away) * 5).clamp(0, 1))


def decision():
    system, u = WongWang(), torch.tensor([30.0, 6.4]).double()
    starts = torch.tensor([[0.1, 0.1], [0.15, 0.1], [0.05, 0.2]]).double()
    times = torch.linspace(0, 2, 101).double()
    run = simulate(system, starts, times, u, method="rk4", step=0.02)
    return decision_figure(system, u, find_equilibria(system, u, n_starts=64), run)


def noisy_decision():
    u, times = torch.tensor([30.0, 0.0]).double(), torch.linspace(0, 0.5, 251).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.tensor([0.1, 0.1, 0.0, 0.0]).double()
    run = simulate(NoisyWongWang(), x, times, u, method="heun", step=2e-3, generator=generator)
    return traces_figure(run)


def compass():
    system = RingAttractor(48)
    x = 5 * torch.cos(system.angles - 1.0)
    times = torch.linspace(0, 2, 81).double()
    u = torch.cat([torch.tensor([10.0, 3.0]), torch.zeros(48)]).double()
    return compass_figure(system, simulate(system, x, times, u, method="rk4", step=0.005))


FIGURES = {
    competition: ("time (ms)", "r (Hz)"),
    mach_bands: ("position (°)", "I, r (Hz)"),
    decision: ("time (s)", "S1", "S2", "dS1/dt = 0"),
    noisy_decision: ("time (s)", "S1", "S2", "I1 (nA)", "I2 (nA)"),
    compass: ("time (s)", "rate (Hz)", "angle of unit, heading (°)"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text
