import base64

import pytest
import torch

from clinode import brain
from clinode.errors import ArgumentError
from clinode.figures import data_uri
from clinode.figures.synapses import fluctuation_figure, plasticity_figure, synapse_figure


def text(figure) -> str:
    return base64.b64decode(data_uri(figure).split(",", 1)[1]).decode()


@pytest.mark.parametrize(
    "name", ["ExponentialSynapse", "AlphaSynapse", "DualExponentialSynapse", "NMDASynapse"]
)
def test_a_synapse_under_a_train_is_drawn_with_its_units(name):
    drawn = text(synapse_figure(getattr(brain, name)(), [2.0, 8.0, 9.0], 20.0))
    for label in ("conductance (nS)", "I (pA)", "time (ms)", "V (mV)", "I at its peak (pA)"):
        assert f">{label}<" in drawn


def test_the_kinds_of_plasticity_are_compared():
    kinds = {"rises": brain.ShortTermPlasticity.facilitating(),
             "tires": brain.ShortTermPlasticity.depressing()}  # fmt: skip
    drawn = text(plasticity_figure(kinds, [0.0, 20.0, 40.0]))
    for label in ("rises", "tires", "time (ms)", "presynaptic rate (Hz)"):
        assert f">{label}<" in drawn


def test_a_fluctuating_conductance_is_drawn_beside_its_distribution():
    generator = torch.Generator().manual_seed(0)
    drawn = text(fluctuation_figure(brain.FluctuatingConductance(), 50.0, generator, step=0.1))
    for label in ("conductance (nS)", "density (1/nS)", "time (ms)"):
        assert f">{label}<" in drawn


def test_what_is_no_synapse_is_refused():
    with pytest.raises(ArgumentError, match="expected spikes and V"):
        synapse_figure(brain.LIF(), [1.0], 10.0)
