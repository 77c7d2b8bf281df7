import numpy as np

from clinode.brain.plasticity import BennaFusi, CascadeSynapse, SerialSynapse
from clinode.figures.picture import data_uri
from clinode.figures.plasticity import forgetting_figure


def test_every_synapse_is_named_and_lies_under_the_bound_of_its_states():
    synapses = {"cascade $x^": CascadeSynapse(6), "serial": SerialSynapse(6), "chain": BennaFusi(6)}
    figure = forgetting_figure(synapses, 1e4)
    (axis,) = figure.axes
    told = {text.get_text() for text in axis.get_legend().get_texts()}
    assert told == {"bound, 12 states", "cascade $x^", "serial", "chain"}
    assert axis.get_xlabel() == "events since the memory was stored (1)"
    assert axis.get_ylabel() == "signal over noise of 10,000 synapses (1)"
    bound, cascade, serial = (np.asarray(line.get_ydata()) for line in axis.lines[:3])
    assert (cascade <= bound).all()
    assert (serial <= bound).all()
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
