import base64

import pytest
import torch

from clinode.brain.populations import JansenRit
from clinode.brain.seizure import Epileptor, Wendling
from clinode.dynamics.simulate import simulate
from clinode.figures.picture import data_uri
from clinode.figures.seizure import eeg_figure, epileptor_figure


def eeg():
    times = torch.linspace(0, 1.5, 301).double()
    how = {"method": "rk4", "step": 0.005}
    runs = {
        f"Jansen-Rit, p = {p} Hz": simulate(JansenRit(), torch.zeros(6), times, p, **how)
        for p in (80, 120, 220)
    }
    column = Wendling(A=5.0, B=25.0, G=15.0)
    runs["Wendling, sustained spikes"] = simulate(column, torch.zeros(10), times, 90.0, **how)
    return eeg_figure(runs)


def seizure(end=120.0):
    system = Epileptor()
    x = system.initial_state()
    x[2] = 2.87
    times = torch.linspace(0, end, int(4 * end) + 1).double()
    return epileptor_figure(simulate(system, x, times, method="rk4", step=0.125))


FIGURES = {
    eeg: ("time (s)", "EEG (mV)", "p = 120 Hz"),
    seizure: ("time (dimensionless)", "LFP, x2 - x1 (dimensionless)", "z (dimensionless)"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text
