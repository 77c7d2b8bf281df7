import numpy as np
import pytest
import torch

from clinode.behavior import DDM, LATER, fit
from clinode.errors import ArgumentError
from clinode.figures.decision import quantile_probability_figure, reciprobit_figure
from clinode.figures.picture import data_uri


def test_latencies_and_the_fitted_line_meet_on_reciprobit_axes():
    rate = 5 + torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = fit(LATER, 1 / rate[rate > 1], condition=["a$b"] * int((rate > 1).sum()))
    figure = reciprobit_figure(fitted)
    (axis,) = figure.axes
    points, line = axis.lines[:2]
    told = np.interp(points.get_xdata(), line.get_xdata(), line.get_ydata())
    middle = slice(20, -20)
    assert np.abs(told - points.get_ydata())[middle].max() < 0.25
    assert axis.get_xlabel() == "latency (s), reciprocal scale"
    assert axis.get_ylabel() == "cumulative share (%), probit scale"
    assert data_uri(figure).startswith("data:image/svg+xml;base64,")


def test_quantiles_stand_at_the_share_of_their_response():
    rt, choice = DDM(drift=0.8, bound=1.5, non_decision=0.2).sample(
        800, generator=torch.Generator().manual_seed(1)
    )
    fitted = fit(DDM, rt, choice)
    figure = quantile_probability_figure(fitted)
    (axis,) = figure.axes
    share = float(choice.mean())
    crosses = [line for line in axis.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert sorted(line.get_xdata()[0] for line in crosses) == pytest.approx([1 - share, share])
    fitted_lines = [
        line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata())
    ]
    assert len(fitted_lines) == 5
    for place, line in enumerate(fitted_lines):
        at = np.interp(share, line.get_xdata(), line.get_ydata())
        seen = max(crosses, key=lambda one: one.get_xdata()[0]).get_ydata()[place]
        assert at == pytest.approx(seen, rel=0.1)
    assert axis.get_xlabel() == "share of the response (1)"
    with pytest.raises(ArgumentError, match="of one response"):
        reciprobit_figure(fitted)
