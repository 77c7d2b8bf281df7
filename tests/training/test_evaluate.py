import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from clinode.cohort import Cohort
from clinode.errors import SchemaError
from clinode.sequence import in_batches
from clinode.training import evaluate, fit
from clinode.training.forecasting import forecast_queries, observed_forecasts
from clinode.training.subgroups import hide_small


@pytest.fixture(scope="module")
def evaluation(fitted, held_out):
    return evaluate(fitted, held_out, n_resamples=100)


def test_the_dictionary_has_the_names_of_the_contract_and_is_json(evaluation):
    told = evaluation.to_dict()
    json.dumps(told, allow_nan=False)
    metrics = ("auroc", "auprc", "brier", "ece", "calibration_slope", "calibration_intercept")
    for metric in metrics:
        assert told[metric]["low"] <= told[metric]["value"] <= told[metric]["high"]
    for name in ("prevalence", "logistic_regression", "gradient_boosting"):
        assert {*metrics} <= {*told["baselines"][name]}
        assert {"value", "low", "high"} <= {*told["difference"][name]["auroc"]}
    assert told["n_subjects"] == 200


def test_the_metrics_are_those_of_scikit_learn_on_the_predictions(evaluation, fitted, held_out):
    outcome = held_out.outcomes["died"].to_numpy()
    probability = fitted.predict(held_out)["probability"].to_numpy()
    told = evaluation.to_dict()
    assert told["auroc"]["value"] == pytest.approx(roc_auc_score(outcome, probability))
    assert told["auprc"]["value"] == pytest.approx(average_precision_score(outcome, probability))
    assert told["brier"]["value"] == pytest.approx(brier_score_loss(outcome, probability))


def test_the_baselines_read_what_the_model_may_read(fitted, make_tables):
    tables = make_tables(80, seed=12, first_id=300)
    late = tables["observations"].assign(time=lambda t: t["time"] + 48.001, value=77.0)
    longer = {**tables, "observations": pd.concat([tables["observations"], late])}
    told = [
        evaluate(fitted, Cohort.from_tables(**t), n_resamples=20).to_dict()
        for t in (tables, longer)
    ]
    assert told[0]["baselines"] == told[1]["baselines"]


def test_the_bars_beside_a_model_find_what_was_planted(evaluation):
    told = evaluation.to_dict()["baselines"]
    assert told["prevalence"]["auroc"]["value"] == 0.5
    assert told["logistic_regression"]["auroc"]["value"] > 0.75
    assert told["gradient_boosting"]["auroc"]["value"] > 0.75


def test_without_positives_a_metric_says_so(fitted, make_tables):
    tables = make_tables(40, seed=3, first_id=900)
    tables["outcomes"]["died"] = 0.0
    told = evaluate(fitted, Cohort.from_tables(**tables), n_resamples=20).to_dict()
    assert told["auroc"]["value"] is None
    assert told["auroc"]["verdict"] == "undefined: no positives"
    assert told["brier"]["value"] is not None


def test_a_cohort_without_the_outcome_cannot_be_evaluated(fitted, make_tables):
    tables = make_tables(40, seed=3)
    del tables["outcomes"]
    with pytest.raises(SchemaError, match="'died'"):
        evaluate(fitted, Cohort.from_tables(**tables))


def test_subjects_that_were_trained_on_are_counted(fitted, train, evaluation):
    assert evaluation.n_trained_on == 0
    assert evaluate(fitted, train, n_resamples=20).n_trained_on == len(train)


def test_subgroups_are_those_of_sex_and_age(evaluation):
    groups = {row["group"]: row for row in evaluation.to_dict()["subgroups"]}
    ages = [name for name in groups if name.startswith("Age")]
    assert {"Age: 45 to 64", "Age: 65 to 79"} <= set(ages)
    shown = [groups[name]["n"] for name in ages if groups[name]["n"] is not None]
    assert sum(shown) <= 200
    sexes = [name for name in groups if name not in ages]
    assert sorted(sexes) == ["Gender: female", "Gender: male"]
    assert all(groups[name]["auroc"]["value"] > 0.5 for name in sexes)


def row(n, events):
    metrics = dict.fromkeys(("auroc", "auprc", "brier", "ece"), 0.5)
    return {"truth": events, "total": n, "n": n, "n_events": events, **metrics}


@pytest.mark.parametrize(
    ("counts", "shown_n", "shown_events"),
    [
        ([(100, 30), (80, 20)], [100, 80], [30, 20]),
        ([(100, 30), (10, 4)], [None, None], [None, None]),  # one alone follows from the total
        ([(100, 30), (80, 20), (10, 4)], [100, None, None], [30, None, None]),
        ([(100, 30), (80, 5)], [100, 80], [None, None]),
        ([(100, 30), (80, 75)], [100, 80], [None, None]),  # five without the event
        ([(100, 30), (8, 2), (9, 3)], [100, None, None], [30, None, None]),
    ],
)
def test_small_cells_are_neither_shown_nor_derivable(counts, shown_n, shown_events):
    hidden = hide_small([row(*count) for count in counts])
    assert [entry["n"] for entry in hidden] == shown_n
    assert [entry["n_events"] for entry in hidden] == shown_events
    for entry in hidden:
        events_are_few = min(entry["truth"], entry["total"] - entry["truth"]) < 11
        assert (entry["auroc"] is None) == events_are_few


def test_the_error_of_the_decoder_is_the_mean_square_over_measured_values(fitted, held_out):
    told = evaluate(fitted, held_out, n_resamples=50).to_dict()["next_observation"]
    error, carried, count = 0.0, 0.0, 0
    with torch.no_grad():
        for batch in in_batches(fitted.records(held_out), 17):
            expected = fitted.model(batch).next_observation
            error += float((expected - batch.value)[batch.mask].double().square().sum())
            carried += float((batch.carried - batch.value)[batch.mask].double().square().sum())
            count += int(batch.mask.sum())
    assert told["model"]["value"] == pytest.approx(error / count, rel=1e-5)
    assert told["carried_forward"]["value"] == pytest.approx(carried / count, rel=1e-5)
    assert told["model"]["low"] < told["model"]["value"] < told["model"]["high"]
    assert told["difference"]["high"] < 0  # better than the last value


def test_a_forecast_is_measured_on_every_later_observation_within_the_horizon(forecaster, held_out):
    told = evaluate(forecaster, held_out, n_resamples=50).to_dict()
    observations = held_out.observations
    n_later = np.sum((observations["time"] > 24.0) & (observations["time"] <= 48.0))
    assert told["n_queries"] == n_later
    assert {"mse", "mae", "coverage", "mse_by_variable"} <= {*told}
    for name in ("last_value", "patient_mean", "ridge"):
        assert told["baselines"][name]["mse"]["value"] > 0
        assert told["difference"][name]["mse"]["low"] <= told["difference"][name]["mse"]["high"]
    assert {*told["variables"]} == {*forecaster.schema.variables}


def test_a_variable_that_never_varied_is_not_counted_as_forecast_well(
    forecaster, make_tables, small_model, small_config, tmp_path
):
    tables = make_tables(60, first_id=8001)
    flag = tables["observations"].drop_duplicates(["subject_id", "time"]).iloc[::3]
    flag = flag.assign(variable="MechVent", value=1.0)
    tables["observations"] = pd.concat([tables["observations"], flag])
    cohort = Cohort.from_tables(**tables)
    run = fit(
        small_model,
        cohort,
        task=forecaster.task,
        out=tmp_path / "run",
        config=small_config,
        progress=False,
    )
    told = evaluate(run, cohort, n_resamples=20).to_dict()
    observations = cohort.observations
    is_asked = (observations["time"] > 24.0) & (observations["time"] <= 48.0)
    assert told["n_queries"] == np.sum(is_asked & (observations["variable"] != "MechVent"))
    assert told["mse_by_variable"]["value"] > 0.2


def test_forecast_errors_are_those_of_the_stored_table(forecaster, held_out):
    told = evaluate(forecaster, held_out, n_resamples=20).to_dict()
    queries = forecast_queries(forecaster, forecaster.records(held_out, with_targets=True))
    error = queries["mean"] - queries["target"]
    assert told["mse"]["value"] == pytest.approx((error**2).mean())
    by_variable = np.mean([(error[queries["variable"] == k] ** 2).mean() for k in range(4)])
    assert told["mse_by_variable"]["value"] == pytest.approx(by_variable)
    inside = (error.abs() <= 1.6448536 * queries["spread"]).mean()
    assert told["coverage"]["value"] == pytest.approx(inside, abs=1e-6)


def test_observed_forecasts_stand_in_original_units_beside_what_was_measured(forecaster, held_out):
    table = observed_forecasts(forecaster, held_out)
    measured = held_out.observations.rename(columns={"value": "measured"})
    measured["variable"] = measured["variable"].astype(str)
    table["variable"] = table["variable"].astype(str)
    joined = table.merge(measured, on=["subject_id", "time", "variable"])
    assert len(joined) == len(table)
    apart = (joined["observed"] - joined["measured"]).abs()
    # clipping to the training range cuts the most extreme values
    assert np.mean(apart < 1e-3 * joined["measured"].abs()) > 0.98


def test_intervals_widen_where_subjects_share_a_group(fitted, make_tables):
    tables = make_tables(100, seed=5, first_id=400)
    merged = {
        name: pd.concat([t.assign(subject_id=t["subject_id"] + 1000 * k) for k in range(4)])
        for name, t in tables.items()
    }  # four identical stays a person: no more information than one
    cohort = Cohort.from_tables(
        merged["observations"], statics=merged["statics"], outcomes=merged["outcomes"]
    )
    alone = evaluate(fitted, cohort, n_resamples=300).to_dict()["auroc"]
    cohort.__dict__["groups"] = np.asarray(cohort.subjects) % 1000
    grouped = evaluate(fitted, cohort, n_resamples=300).to_dict()["auroc"]
    assert grouped["value"] == alone["value"]
    ratio = (grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])
    assert ratio == pytest.approx(2.0, rel=0.25)
