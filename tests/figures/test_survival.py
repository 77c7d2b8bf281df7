import base64

import numpy as np
import pytest

from clinode.errors import ArgumentError
from clinode.figures.picture import data_uri
from clinode.figures.survival import incidence_figure


@pytest.mark.parametrize(("last", "unit"), [(48.0, "(h)"), (720.0, "(d)"), (60_000.0, "(a)")])
def test_incidences_are_drawn_with_their_causes_and_a_fitting_unit(last, unit):
    hours = np.linspace(0, last, 30)
    incidence = np.stack([0.3 * hours / last, 0.2 * hours / last], axis=1)
    figure = incidence_figure(hours, incidence, ["death", "transplant"], observed=incidence)
    text = base64.b64decode(data_uri(figure).split(",", 1)[1]).decode()
    for words in ("death", "transplant", "event-free", unit, "cumulative incidence"):
        assert words in text


def test_more_causes_than_can_be_told_apart_are_refused():
    with pytest.raises(ArgumentError, match="1 to 3 causes"):
        incidence_figure(np.ones(2), np.ones((2, 4)), list("abcd"))
