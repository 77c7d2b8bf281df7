import numpy as np
import pytest

from clinode.coding import FirstSpike, NoisyLevels, PoissonCount, ReadoutAccuracy
from clinode.errors import ArgumentError
from clinode.figures.coding import coding_figure, readout_figure
from clinode.figures.picture import data_uri


def test_codes_are_drawn_with_their_bits_time_and_spikes():
    count = PoissonCount([20.0, 40.0], 0.48)
    codes = {"count": count, "first $spike^": FirstSpike([1.2, 2.0, 3.0], 0.02, 0.001)}
    figure = coding_figure(codes, 6)
    left, right = figure.axes
    assert left.get_lines()[0].get_ydata()[3] == count.accuracy(4)
    assert right.get_xlabel() == "time of a read-out (ms)"
    assert right.get_lines()[0].get_xdata()[0] == 480.0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(codes)
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
    assert data_uri(coding_figure({"levels": NoisyLevels([0.2, 0.8], 0.1)}))


def test_a_task_read_from_spikes_is_drawn_as_told_and_as_measured():
    told = [ReadoutAccuracy(0.2 * b, np.full(3, 0.2 * b), 0.01, 0.97, b) for b in (1, 2, 3)]
    figure = readout_figure({"first <spike>": told, "count": told}, {"count": {2: 0.41}})
    axis = figure.axes[0]
    assert axis.get_xlabel() == "bits of each neuron's read-out"
    assert axis.get_ylabel() == "share of right labels (1)"
    lines = axis.get_lines()
    assert list(lines[0].get_ydata()) == [one.accuracy for one in told]
    assert any(list(line.get_ydata()) == [0.41] for line in lines)
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
    with pytest.raises(ArgumentError, match="no accuracy to draw"):
        readout_figure({"none": []}, {})
