import base64
import re

import numpy as np
import pandas as pd

from clinode.figures import calibration_figure, data_uri, ranking_figure


def calibration():
    rng = np.random.default_rng(0)
    predicted = np.linspace(0.05, 0.95, 10)
    bins = pd.DataFrame({"predicted": predicted, "observed": predicted})
    return calibration_figure(
        bins.assign(low=predicted - 0.04, high=predicted + 0.04, n=40), rng.uniform(size=400)
    )


def svg(figure) -> str:
    uri = data_uri(figure)
    assert uri.startswith("data:image/svg+xml;base64,")
    return base64.b64decode(uri.split(",", 1)[1]).decode()


def test_the_same_numbers_give_the_same_bytes():
    assert svg(calibration()) == svg(calibration())


def test_a_picture_refers_to_nothing_outside_itself():
    addresses = re.findall(r"(?:href|src)=\"([^\"]*)\"|url\(([^)]*)\)", svg(calibration()))
    assert addresses
    assert all((a or b).startswith("#") for a, b in addresses)


def test_axes_are_labelled():
    text = svg(calibration())
    assert "observed frequency" in text
    assert "predicted probability" in text


def test_the_ranking_prints_every_name_with_its_unit():
    value = np.array([0.4, 0.1])
    table = {"per_subject": value, "per_measurement": value / 3}
    for name in list(table):
        table |= {f"{name}_low": table[name] * 0.9, f"{name}_high": table[name] * 1.1}
    text = svg(ranking_figure(pd.DataFrame(table), ["Lactate (mmol/L)", "Heart rate (bpm)"]))
    assert "Lactate (mmol/L)" in text
    assert "log-odds" in text
