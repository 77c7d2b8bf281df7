import math

import numpy as np

from clinode.figures.picture import data_uri
from clinode.figures.similarity import model_ranking_figure, rdm_figure
from clinode.similarity import rank_models, rdm, rdm_from_vector


def test_dissimilarities_are_shown_with_their_stimuli_and_measure():
    one = rdm_from_vector([1.0, 2.0, math.nan], labels=["face", "cat $x^", "hand"])
    figure = rdm_figure(one, "subject 1")
    axis, bar = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["face", "cat $x^", "hand"]
    assert bar.get_ylabel() == "dissimilarity (given, 1)"
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")


def test_every_model_has_its_interval_and_the_ceiling_is_named():
    draw = np.random.default_rng(0)
    truth = draw.normal(size=(12, 20))
    subjects = [rdm(truth + draw.normal(size=truth.shape)) for _ in range(4)]
    models = {"truth": rdm(truth), "chance": rdm(draw.normal(size=(12, 20)))}
    figure = model_ranking_figure(rank_models(models, subjects, n_resamples=50))
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["truth", "chance"]
    assert axis.get_xlabel() == "likeness to 4 subjects (cosine, 1)"
    told = {text.get_text() for text in figure.legends[0].get_texts()}
    assert "noise ceiling" in told
