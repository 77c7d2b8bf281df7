import base64
import functools

import pytest

from clinode.brain.populations import WilsonCowan
from clinode.control.stimulation.adaptive import adaptive_stimulation
from clinode.control.stimulation.limits import StimulusLimits
from clinode.control.stimulation.policies import Level, OnDemand
from clinode.control.stimulation.stimulation import stimulate
from clinode.control.stimulation.waveforms import BiphasicPulses, Free
from clinode.dynamics.equilibria import find_equilibria
from clinode.errors import ArgumentError
from clinode.figures.picture import data_uri
from clinode.figures.stimulation import adaptive_figure, stimulus_figure


def designed(waveform):
    system = WilsonCowan()
    rest = find_equilibria(system, u=0.5)[0]
    limits = StimulusLimits(amplitude=2.0)
    return stimulus_figure(
        stimulate(system, rest, {"E": 0.2}, limits, horizon=20.0, refine=False, waveform=waveform)
    )


@functools.cache
def closed_loop():
    rule = OnDemand(biomarker=Level("E"), threshold=0.2, amplitude=[-1.0, 0.0])
    return adaptive_stimulation(
        WilsonCowan(), [0.2, 0.1], rule, duration=40.0, interval=20.0, u=[1.25, 0.0],
        limits=StimulusLimits(amplitude=0.5),
    )  # fmt: skip


def steps():
    return designed(Free(n_pieces=5))


def pulses():
    return designed(BiphasicPulses(frequency="100 Hz", width="2 ms", ramp="0.5 ms"))


def loop():
    return adaptive_figure(closed_loop(), "E")


FIGURES = {
    steps: ("time (ms)", "linear theory", "simulated", "target", "stimulus", "P"),
    pulses: ("time (ms)", "Q"),
    loop: ("time (ms)", "given and asked", "stimulated 50% of the time"),
}


@pytest.mark.parametrize("make", FIGURES)
def test_every_axis_carries_its_quantity_and_unit(make):
    text = base64.b64decode(data_uri(make()).split(",", 1)[1]).decode()
    for words in FIGURES[make]:
        assert words in text


def test_an_output_that_there_is_not_is_refused():
    with pytest.raises(ArgumentError, match="no state or output 'V'"):
        adaptive_figure(closed_loop(), "V")
