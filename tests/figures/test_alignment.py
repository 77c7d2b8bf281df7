import numpy as np
import pytest

import clinode as cn
from clinode.alignment import AtRest, covariance_twins, interventional_alignment, lesions
from clinode.figures.alignment import alignment_figure
from clinode.figures.picture import data_uri


@pytest.fixture(scope="module")
def system():
    draw = np.random.default_rng(3)
    W = 0.6 * draw.standard_normal((6, 6)) / np.sqrt(6)
    rates = [cn.Quantity("rate", "Hz", labels=tuple("abcdef"))]
    return cn.LinearSystem(W - np.eye(6), draw.uniform(0.5, 1.5, (6, 1)), states=rates)


def test_effects_and_what_they_could_be_are_drawn_with_their_unit(system):
    model, *twins = covariance_twins(system, np.ones(6), 40, u=1.0)
    made = interventional_alignment(
        model, system, lesions(system, n_sites=2), AtRest(u=1.0), twins=twins, noise=0.1,
        repeats=5, n_resamples=50,
    )  # fmt: skip
    figure = alignment_figure(made)
    left, right = figure.axes
    assert left.get_xlabel() == "predicted effect on outputs (Hz)"
    assert left.get_ylabel() == "actual effect (Hz)"
    told = [label.get_text() for label in right.get_yticklabels()]
    assert told == ["all", "1 site at once", "2 sites at once", "models that fit as well"]
    assert right.get_title(loc="left") == "not decided by what was observed"
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"as predicted", "1 site at once", "2 sites at once"} <= names
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")


def test_one_exact_model_without_twins_can_be_drawn_too(system):
    made = interventional_alignment(system, system, lesions(system), AtRest(u=1.0), n_resamples=20)
    figure = alignment_figure(made)
    left, right = figure.axes
    assert left.get_title(loc="left") == "6 experiments"
    assert [label.get_text() for label in right.get_yticklabels()] == ["all"]
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
