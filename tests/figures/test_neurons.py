import base64

import pytest
import torch

from clinode import brain
from clinode.errors import ArgumentError
from clinode.figures import data_uri
from clinode.figures.neurons import neuron_figure

STEPS = {
    "LIF": (300.0, 100.0, "I (pA)", "V (mV)"),
    "Theta": (0.25, 20.0, "I", "theta (rad)"),
    "AdaptiveLinear": (50.0, 200.0, "V (mV)", "w (pA)"),
    "AdEx": (800.0, 60.0, "V (mV)", "w (pA)"),
    "Izhikevich": (10.0, 60.0, "v (mV)", "u (mV/ms)"),
    "FitzHughNagumo": (0.5, 60.0, "v, w", "time"),
    "MorrisLecar": (100.0, 60.0, "I (µA/cm²)", "V (mV)"),
    "HodgkinHuxley": (10.0, 15.0, "V (mV)", "m, h, n"),
}


def text(figure) -> str:
    return base64.b64decode(data_uri(figure).split(",", 1)[1]).decode()


@pytest.mark.parametrize("name", STEPS)
def test_a_neuron_under_a_step_of_current_is_drawn_with_its_units(name):
    current, duration, *labels = STEPS[name]
    drawn = text(neuron_figure(getattr(brain, name)(), current, duration))
    for label in labels:
        assert f">{label}<" in drawn


def test_firing_rates_stand_beside_the_trace_in_hertz():
    figure = neuron_figure(brain.LIF(), 300.0, 50.0, currents=(150.0, 250.0, 400.0), seconds=200.0)
    drawn = text(figure)
    assert ">firing rate (Hz)<" in drawn
    line = figure.subfigs[1].axes[0].lines[0]
    expected = 1e3 * brain.lif_rate(
        torch.tensor([-55.0, -45.0, -30.0]), tau=20.0, V_th=-50.0, V_r=-60.0, t_ref=2.0
    )
    assert line.get_ydata().tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.slow
def test_a_neuron_with_noise_is_drawn_from_a_given_source():
    drawn = [
        text(
            neuron_figure(
                brain.NoisyLIF(), 150.0, 10.0, method="heun", step=0.1,
                generator=torch.Generator().manual_seed(0),
            )
        )
        for _ in range(2)
    ]  # fmt: skip
    assert drawn[0] == drawn[1]


def test_what_has_no_spikes_has_no_firing_rate():
    with pytest.raises(ArgumentError, match="no event 'spike'"):
        neuron_figure(brain.AdaptiveLinear(), 10.0, 10.0, currents=(1.0,))
    with pytest.raises(ArgumentError, match="needs one"):
        neuron_figure(brain.ExponentialSynapse(), 10.0, 10.0)
