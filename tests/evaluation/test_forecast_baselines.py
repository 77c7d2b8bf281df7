from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.linear_model import Ridge

from clinode.errors import ArgumentError, CheckpointError, SchemaError
from clinode.evaluation import (
    ForecastBaselines,
    Histories,
    decayed_means,
    fit_forecast_baselines,
    summarize,
)
from clinode.evaluation.forecast_baselines import RIDGE_PENALTY


def simulate(n_records, seed, persistence=0.9, n_variables=3):
    """AR(1) series at 12 hours of a day; hours from 8 on are asked for.

    The last variable is never measured, nor asked for.
    """
    generator = np.random.default_rng(seed)
    series = np.empty((n_records, 12, n_variables))
    series[:, 0] = generator.normal(size=(n_records, n_variables))
    for hour in range(1, 12):
        shock = generator.normal(size=(n_records, n_variables))
        series[:, hour] = persistence * series[:, hour - 1] + np.sqrt(1 - persistence**2) * shock
    record, hour, variable = np.indices(series.shape).reshape(3, -1)
    keep = (generator.random(len(record)) < 0.4) & (variable < n_variables - 1)
    past, future = keep & (hour < 8), keep & (hour >= 8)
    histories = Histories(
        row_start=np.searchsorted(record[past], np.arange(n_records + 1)),
        time=hour[past].astype(float),
        variable=variable[past],
        value=series.ravel()[past],
        static=np.empty((n_records, 0)),
        n_variables=n_variables,
    )
    return histories, record[future], variable[future], series.ravel()[future]


def errors(seed=1, **options):
    fitted = fit_forecast_baselines(*simulate(2000, seed=0, **options))
    histories, record, variable, target = simulate(2000, seed=seed, **options)
    predicted = fitted.predict(histories, record, variable)
    return {name: np.mean((held.mean - target) ** 2) for name, held in predicted.items()}


def test_last_value_patient_mean_and_blend_are_what_they_say():
    histories, record, variable, target = simulate(50, seed=0)
    fitted = fit_forecast_baselines(histories, record, variable, target)
    summary = summarize(histories)
    level = np.array([*(target[variable == v].mean() for v in range(2)), 0.0])
    last, mean = (np.where(np.isnan(summary[:, k]), level, summary[:, k]) for k in (1, 2))
    predicted = fitted.predict(histories, record, variable)
    cell = (record, variable)
    np.testing.assert_allclose(predicted["mean"].mean, level[variable])
    np.testing.assert_allclose(predicted["last_value"].mean, last[cell])
    np.testing.assert_allclose(predicted["patient_mean"].mean, mean[cell])
    blend = 0.4 * last + 0.4 * mean + 0.2 * level
    np.testing.assert_allclose(predicted["blend"].mean, blend[cell])


def test_each_ridge_is_that_of_scikit_learn_on_every_query():
    histories, record, variable, target = simulate(300, seed=2)
    fitted = fit_forecast_baselines(histories, record, variable, target)
    summary, means = summarize(histories), decayed_means(histories)
    found = fitted.predict(histories, record, variable)["ridge"].mean
    for v in range(2):
        asked = variable == v
        own = np.stack([*summary[:, [1, 2, 3, 4], v].T, *means[:, :, v].T], axis=1)[record[asked]]
        seen = np.isfinite(own[:, 0])
        standardised = np.zeros_like(own)
        standardised[seen] = (own[seen] - own[seen].mean(axis=0)) / own[seen].std(axis=0)
        design = np.hstack([standardised, seen[:, None]])
        model = Ridge(RIDGE_PENALTY).fit(design, target[asked])
        np.testing.assert_allclose(found[asked], model.predict(design), atol=1e-9)


def test_where_the_past_decays_the_ridge_beats_the_last_value_and_noise_favours_the_mean():
    slow, noise = errors(persistence=0.97), errors(persistence=0.0)
    assert slow["ridge"] < slow["last_value"] < slow["mean"]
    assert noise["last_value"] == pytest.approx(2, rel=0.1)
    assert noise["ridge"] == pytest.approx(noise["mean"], rel=0.02)


def test_spreads_are_those_of_the_training_errors():
    case = simulate(500, seed=3)
    fitted = fit_forecast_baselines(*case)
    histories, record, variable, target = case
    for held in fitted.predict(histories, record, variable).values():
        for v in range(2):
            own = variable == v
            expected = np.sqrt(np.mean((held.mean[own] - target[own]) ** 2))
            assert held.spread is not None
            assert held.spread[own] == pytest.approx(expected)


def test_records_without_a_past_and_variables_never_asked_for_get_a_finite_answer():
    histories, record, variable, target = simulate(100, seed=4)
    fitted = fit_forecast_baselines(histories, record, variable, target)
    nothing = Histories(
        row_start=np.zeros(2, dtype=np.int64),
        time=np.empty(0),
        variable=np.empty(0, dtype=np.int64),
        value=np.empty(0),
        static=np.empty((1, 0)),
        n_variables=3,
    )
    asked = np.zeros(3, dtype=int), np.arange(3)
    for name, held in fitted.predict(nothing, *asked).items():
        assert np.isfinite(held.mean).all(), name
        assert held.spread is not None, name
        assert (held.spread > 0).all(), name
    assert fitted.predict(nothing, *asked)["last_value"].mean == pytest.approx(fitted.level)


def test_a_constant_variable_is_not_forecast_with_absolute_certainty():
    histories, record, variable, _ = simulate(50, seed=5)
    constant = replace(histories, value=np.ones(len(histories.value)))
    fitted = fit_forecast_baselines(constant, record, variable, np.ones(len(record)))
    for held in fitted.predict(constant, record, variable).values():
        np.testing.assert_allclose(held.mean, 1, atol=1e-9)
        assert held.spread is not None
        assert (held.spread > 0).all()


def test_a_stored_baseline_answers_to_the_bit():
    histories, record, variable, target = simulate(100, seed=6)
    fitted = fit_forecast_baselines(histories, record, variable, target)
    again = ForecastBaselines.from_arrays(load(save(fitted.to_arrays())))
    other = again.predict(histories, record, variable)
    for name, held in fitted.predict(histories, record, variable).items():
        np.testing.assert_array_equal(held.mean, other[name].mean)
        np.testing.assert_array_equal(held.spread, other[name].spread)
    arrays = fitted.to_arrays()
    arrays.pop("level")
    with pytest.raises(CheckpointError, match="incomplete"):
        ForecastBaselines.from_arrays(arrays)


def test_nothing_to_learn_from_and_other_variables_are_refused():
    histories, record, variable, target = simulate(20, seed=7)
    with pytest.raises(SchemaError, match="an observation after its prediction time"):
        fit_forecast_baselines(histories, record[:0], variable[:0], target[:0])
    fitted = fit_forecast_baselines(histories, record, variable, target)
    other, record, variable, _ = simulate(20, seed=7, n_variables=4)
    with pytest.raises(ArgumentError, match="fitted on 3 variables"):
        fitted.predict(other, record, variable)
