import numpy as np
import pytest
import torch

from clinode.sequence.summaries import (
    BIN_QUANTILES,
    SPREAD_OFFSET,
    Bins,
    summarize,
    summarize_treatments,
)


def test_summaries_are_those_of_each_variable_taken_by_itself(classified):
    batch = classified.batch(np.arange(len(classified)), torch.float64)
    shown = summarize(batch)
    for place in range(len(batch)):
        own = batch.row_subject == place
        until = batch.prediction_time[place].item()
        for variable in range(batch.value.shape[1]):
            seen = own & batch.mask[:, variable]
            value, time = batch.value[seen, variable].numpy(), batch.time[seen].numpy()
            if len(value) == 0:
                expected = [0, 0, 0, 0, 0, np.log(SPREAD_OFFSET + 1e-6), *[0] * 6]
            else:
                recent = value[time > until - batch.window / 2]
                expected = [
                    value[0],
                    value[-1],
                    value.mean(),
                    value.min(),
                    value.max(),
                    np.log(np.sqrt(value.var() + 1e-12) + SPREAD_OFFSET),
                    np.log1p(len(value)),
                    1,
                    recent.mean() if len(recent) else value[-1],
                    np.log1p(len(recent)),
                    recent.min() if len(recent) else value[-1],
                    recent.max() if len(recent) else value[-1],
                ]
            np.testing.assert_allclose(shown[place, variable], expected, atol=1e-12)


def test_summaries_have_a_finite_slope_in_measured_values_and_none_elsewhere(classified):
    batch = classified.batch(np.arange(len(classified)), torch.float64)
    value = batch.value.clone().requires_grad_()
    shown = summarize(batch.replace(value=value))
    weights = torch.linspace(1, 2, shown.numel(), dtype=torch.float64).view_as(shown)
    (slope,) = torch.autograd.grad((shown * weights).sum(), value)
    assert slope.isfinite().all()
    assert (slope[~batch.mask] == 0).all()
    assert (slope[batch.mask] != 0).all()


def test_the_mean_rate_is_the_amount_given_over_the_window(classified, tables):
    batch = classified.batch(np.arange(len(classified)), torch.float64)
    shown = summarize_treatments(batch)
    drug = classified.schema.inputs.index("norepinephrine")
    scale = classified.schema.input_scale[drug]
    given = tables["inputs"]
    given = given[given["variable"] == "norepinephrine"]
    bounds = classified.schema.input_low[drug], classified.schema.input_high[drug]
    for place, position in enumerate(batch.subject.tolist()):
        until = classified.prediction_time[position]
        own = given[given["subject_id"] == classified.subjects[position]]
        hours = (own["end"].clip(upper=until) - own["start"]).clip(lower=0)
        amount = (own["value"].clip(*bounds) * hours).sum() / scale
        assert shown[place, drug, 0].item() == pytest.approx(amount / batch.window)
        assert shown[place, drug, 3].item() == float(len(own) > 0)


def test_bins_stand_at_ranks_of_a_column_and_are_gone_through_by_a_logistic_curve():
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(5001, 3, dtype=torch.float64, generator=generator)
    columns[:, 2] = 4.0
    bins = Bins(3).double()
    bins.prepare(columns)
    ends = torch.cat([bins.low, (bins.low + bins.width)[:, -1:]], dim=1)
    for column in (0, 1):
        below = (columns[:, column, None] < ends[column]).double().mean(0)
        np.testing.assert_allclose(below, BIN_QUANTILES, atol=1e-3)
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)[:, None].expand(-1, 3)
    reach = bins(x).unflatten(1, (3, -1))
    for column in (0, 1):
        place = (x[:, :1] - ends[column, :-1]) / ends[column].diff()
        expected = 1 / (1 + torch.exp(-5 * (place - 0.5)))
        torch.testing.assert_close(reach[:, column], expected)
        assert (reach[:, column].diff(dim=0) >= 0).all()
        assert (reach[0, column] < 1e-6).all()
        assert (reach[-1, column] > 1 - 1e-6).all()
    assert (reach[:, 2] == 0).all()
