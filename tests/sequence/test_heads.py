import numpy as np
import pytest
import torch
from scipy.special import expit

from clinode.errors import ArgumentError
from clinode.sequence import Encoding
from clinode.sequence.anchor import carried_forward
from clinode.sequence.heads import Pooling, known_share
from clinode.sequence.inputs import REFERENCE_WINDOW


def test_pooling_takes_means_over_the_rows_with_an_observation(classified):
    batch = classified.batch(np.arange(len(classified)), torch.float64)
    generator = torch.Generator().manual_seed(0)
    pooling = Pooling(3, generator).double()
    features = torch.randn(batch.n_rows, 3, dtype=torch.float64, generator=generator)
    encoding = Encoding(
        is_observed=batch.is_observed,
        features=features,
        at_prediction=torch.ones(len(batch), 3, dtype=torch.float64),
        at_query=torch.zeros(len(batch), 0, 3, dtype=torch.float64),
        next_observation=torch.zeros_like(batch.value),
        after=features,
        before=features,
    )
    pooled = pooling(batch, encoding)
    for place in range(len(batch)):
        rows = (batch.row_subject == place) & batch.is_observed
        if not rows.any():
            assert (pooled[place, 3:] == 0).all()
            continue
        when = (batch.time[rows] / batch.window).unsqueeze(1)
        share = torch.softmax(pooling.score(torch.cat([features[rows], when], dim=1)), dim=0)
        torch.testing.assert_close(pooled[place, 3:6], features[rows].mean(dim=0))
        torch.testing.assert_close(pooled[place, 6:], (share * features[rows]).sum(dim=0))


def test_forgetting_means_weigh_by_the_age_beside_the_last_observation(forecast):
    batch = forecast.batch(np.arange(len(forecast)), torch.float64)
    pace = REFERENCE_WINDOW / 42.0
    shown = carried_forward(batch, pace)
    for place in range(len(batch)):
        for variable in range(batch.value.shape[1]):
            seen = (batch.row_subject == place) & batch.mask[:, variable]
            value, time = batch.value[seen, variable].numpy(), batch.time[seen].numpy()
            if len(value) == 0:
                assert (shown[place, :, variable] == 0).all()
                continue
            age = (time[-1] - time) * pace
            expected = [value[-1], value.mean()]
            expected += [np.average(value, weights=np.exp(-age / hours)) for hours in (3, 10)]
            np.testing.assert_allclose(shown[place, :, variable], expected, atol=1e-12)


def test_the_level_makes_the_mean_risk_the_share_of_the_outcome(classified, build):
    model = build(classified, "linear-latent-ode")
    model.finish(classified)
    batch = classified.batch(np.arange(len(classified)), torch.float64)
    with torch.no_grad():
        risk = expit(model(batch).value.numpy())
    known = classified.target[:, 0]
    assert risk.mean() == pytest.approx((known.sum() + 0.5) / (len(known) + 1), abs=1e-9)


def test_finishing_twice_shifts_once(classified, build):
    model = build(classified, "linear-latent-ode")
    model.finish(classified)
    level = model.head.level.clone()
    model.finish(classified)
    torch.testing.assert_close(model.head.level, level, rtol=0, atol=1e-9)


def test_the_mean_over_nothing_known_is_zero_with_a_slope():
    error = torch.ones(3, requires_grad=True)
    mean = known_share(error, torch.zeros(3, dtype=torch.bool), torch.tensor(0.0))
    mean.backward()
    assert mean.item() == 0
    assert (error.grad == 0).all()


def test_a_forecast_without_query_times_is_refused(forecast, build):
    model = build(forecast, "linear-latent-ode")
    batch = forecast.batch([2]).replace(query_time=None)
    with pytest.raises(ArgumentError, match="query times"):
        model.float()(batch)
