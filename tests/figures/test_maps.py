from dataclasses import replace

import numpy as np
import pytest
import torch

from clinode.attribution import attribute, removal_curves
from clinode.errors import ArgumentError
from clinode.figures import attribution_maps_figure, data_uri, removal_figure


@pytest.fixture
def images():
    return torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def bright_corner(x):
    return x[:, :2, :2].sum(dim=(1, 2)) - x[:, 3, 3]


def test_maps_are_drawn_below_their_images_with_a_unit_and_withheld_ones_in_words(images):
    found = attribute(bright_corner, images, torch.zeros(4, 4))
    some = replace(found, withheld=np.array([False, True, False]))
    figure = attribution_maps_figure(images, {"integrated_gradients": some}, unit="<nats>")
    assert len(figure.axes) == 2 * 3 + 1  # and a scale
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), images[0])
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), found.values[0])
    assert not figure.axes[4].images
    assert [text.get_text() for text in figure.axes[4].texts] == ["withheld"]
    assert figure.axes[-1].get_ylabel() == "attribution (<nats>)"
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
    with pytest.raises(ArgumentError, match=r"maps of the images' shape, \(2, 4, 4\)"):
        attribution_maps_figure(images[:2], {"one": found})


def test_removal_is_drawn_beside_a_random_order(images):
    found = attribute(bright_corner, images, torch.zeros(4, 4))
    curves = removal_curves(bright_corner, found, images, torch.zeros(4, 4))
    figure = removal_figure({"gradients": curves})
    (axis,) = figure.axes
    assert axis.get_xlabel() == "removed (% of entries)"
    drawn = axis.get_lines()
    np.testing.assert_allclose(drawn[0].get_ydata(), curves.by_rank.mean(axis=0))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "gradients",
        "random order",
    ]
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
    with pytest.raises(ArgumentError, match="no curve"):
        removal_figure({})
