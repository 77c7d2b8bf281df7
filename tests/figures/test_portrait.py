import torch

from clinode.control.portrait import portrait
from clinode.figures.picture import data_uri
from clinode.figures.portrait import portrait_figure
from clinode.system import LinearSystem, Quantity


def test_every_treatment_has_a_row_with_the_outputs_it_moves_most_and_their_units():
    A = torch.diag(torch.tensor([-1.0, -0.2, -0.5])).double()
    names = ("MAP", "glucose $x^", "HR")
    system = LinearSystem(
        A,
        torch.tensor([[1.0, 0.0], [0.2, 3.0], [0.0, 0.1]]).double(),
        states=[Quantity(name, "mmHg", range=(-1.0, 1.0)) for name in names],
        inputs=[Quantity("fluids", "mL/h"), Quantity("insulin", "U/h")],
        time_unit="h",
    )
    figure = portrait_figure(portrait(system, horizon=12.0))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    titles = [axis.get_title(loc="left") for axis in shown]
    assert titles[0] == "glucose $x^"  # 3 / .2 (1 - exp(-2.4)) is the largest change
    assert {axis.get_ylabel() for axis in shown} == {"mmHg"}
    assert shown[-1].get_xlabel() == "held for (h)"
    told = {text.get_text() for axis in shown for text in axis.texts}
    assert {"fluids", "insulin"} <= told
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")
