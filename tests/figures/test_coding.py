from clinode.coding import FirstSpike, NoisyLevels, PoissonCount
from clinode.figures.coding import coding_figure
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
