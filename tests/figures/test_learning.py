import numpy as np

from clinode.behavior import VOR, CerebellarLearning, HeadMovement, adapt, condition, low_passes
from clinode.figures.learning import dopamine_figure, reflex_figure
from clinode.figures.picture import data_uri


def test_each_trial_of_conditioning_has_a_row_of_its_errors():
    found = condition(30, 6, omitted=[29], alpha=0.5)
    figure = dopamine_figure(found, (0, 28, 29))
    assert [axis.get_ylabel() for axis in figure.axes] == ["trial 1", "trial 29", "trial 30"]
    assert figure.axes[-1].get_xlabel().startswith("steps since the cue (1)")
    assert figure.axes[0].get_title("left") == "prediction error (units of reward)"
    shown = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose([segment[1][1] for segment in shown], found.delta[0])
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")


def test_an_adaptation_is_drawn_with_its_frequencies_and_units():
    reflex, movement = VOR(fibers=low_passes([0.01, 0.3])), HeadMovement([0.5, 2.0], [5.0, 5.0])
    course = adapt(reflex, movement, 1.6, CerebellarLearning(eta=0.005), 30)
    figure = reflex_figure(course, movement, 1.6)
    left, right = figure.axes
    told = [text.get_text() for text in left.get_legend().get_texts()]
    assert told == ["goal", "0.5 Hz", "2 Hz", "nuclei alone"]
    assert left.get_ylabel() == "gain, eye over head velocity (1)"
    assert right.get_ylabel() == "slip over the retina, rms (deg/s)"
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
