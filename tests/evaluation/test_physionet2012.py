"""The published anchors of the baselines, on the open data themselves."""

import numpy as np
import pandas as pd
import pytest

from clinode.evaluation import (
    Histories,
    evaluate_classification,
    evaluate_forecast,
    fit_baselines,
    fit_forecast_baselines,
)

DESCRIPTORS = ["RecordID", "Age", "Gender", "Height", "ICUType"]
SKEWED = (
    "ALP ALT AST BUN Bilirubin Cholesterol Creatinine Glucose Lactate PaCO2 PaO2 Platelets "
    "TroponinI TroponinT Urine WBC"
).split()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sets(data_dir):
    folder = data_dir / "physionet2012"
    if not folder.is_dir():
        pytest.skip("no folder physionet2012 among the data")
    return {
        name: (
            read_events(folder / f"set-{name}.parquet"),
            pd.read_csv(folder / f"statics-{name}.csv").sort_values("record_id"),
            pd.read_csv(folder / f"outcomes-{name}.csv").sort_values("record_id"),
        )
        for name in "ab"
    }


def read_events(path):
    """Measurements without descriptors and markers of missing, repeated keys averaged."""
    events = pd.read_parquet(path).astype({"parameter": str})
    events = events[~events["parameter"].isin(DESCRIPTORS) & (events["value"] >= 0)]
    events["minute"] = (events.pop("time_hours") * 60).round().astype(int)
    keys = ["record_id", "minute", "parameter"]
    return events.groupby(keys, as_index=False)["value"].mean()


def positions(names, parameter):
    return pd.Categorical(parameter, names).codes.astype(np.int64)


def as_histories(events, names, records, static=None):
    record = np.searchsorted(records, events["record_id"])
    return Histories(
        row_start=np.searchsorted(record, np.arange(len(records) + 1)),
        time=events["minute"].to_numpy() / 60,
        variable=positions(names, events["parameter"]),
        value=events["value"].to_numpy(),
        static=np.empty((len(records), 0)) if static is None else static,
        n_variables=len(names),
    )


def test_mortality_baselines_reach_their_anchors_on_set_b(sets):
    names = np.unique(sets["a"][0]["parameter"])
    histories, outcome = {}, {}
    for name, (events, statics, outcomes) in sets.items():
        known = statics.set_index("record_id").replace(-1, np.nan)
        known["height"] = known["height"].where(known["height"].between(120, 220))
        known["weight"] = known["weight"].where(known["weight"].between(25, 300))
        static = pd.get_dummies(known, columns=["icu_type"]).to_numpy(dtype=np.float64)
        records = outcomes["record_id"].to_numpy()
        histories[name] = as_histories(events, names, records, static)
        outcome[name] = outcomes["in_hospital_death"].to_numpy(dtype=np.float64)
    assert (outcome["a"].sum(), outcome["b"].sum()) == (554, 568)
    fitted = fit_baselines(histories["a"], outcome["a"], log=np.isin(names, SKEWED))
    predicted = fitted.predict(histories["b"])
    found = evaluate_classification(
        outcome["b"], predicted.pop("gradient_boosting"), predicted, n_resamples=200
    )
    # reference: logistic regression .860 / .537, boosting .864 / .554; one standard error is
    # .0075 / .022
    assert found.metrics["auroc"].value > 0.863
    assert found.metrics["auprc"].value > 0.540
    assert found.metrics["brier"].value < 0.0885
    assert found.metrics["ece"].value < 0.022
    logistic = found.baselines["logistic_regression"]
    assert logistic["auroc"].value > 0.860
    assert logistic["auprc"].value > 0.537
    assert found.baselines["prevalence"]["auroc"].value == 0.5
    assert found.difference["prevalence"]["brier"].high < 0


def test_forecast_baselines_give_the_published_errors_on_set_b(sets):
    events = {name: held[0][held[0]["parameter"] != "MechVent"] for name, held in sets.items()}
    names = np.unique(events["a"]["parameter"])
    values = events["a"].groupby("parameter")["value"]
    low, high = values.quantile(0.001), values.quantile(0.999)
    parts, center, scale = {}, None, None
    for name, held in events.items():
        label = held["parameter"]
        clipped = held["value"].clip(label.map(low), label.map(high))
        if center is None:
            center, scale = (clipped.groupby(label).agg(f) for f in ("mean", "std"))
        held = held.assign(value=(clipped - label.map(center)) / label.map(scale))
        records = sets[name][2]["record_id"].to_numpy()
        past, future = held[held["minute"] <= 1440], held[held["minute"] > 1440]
        parts[name] = (
            as_histories(past, names, records),
            np.searchsorted(records, future["record_id"]),
            positions(names, future["parameter"]),
            future["value"].to_numpy(),
        )
    fitted = fit_forecast_baselines(*parts["a"])
    histories, record, variable, target = parts["b"]
    predicted = fitted.predict(histories, record, variable)
    found = evaluate_forecast(
        target,
        variable,
        predicted.pop("ridge"),
        predicted,
        names=tuple(names),
        subjects=record,
        n_resamples=200,
    )
    assert found.n_queries == 771_803
    errors = [found.metrics[m].value for m in ("mse_by_variable", "mse", "mae")]
    assert errors == pytest.approx([0.459, 0.518, 0.489], abs=0.001)
    last = [found.baselines["last_value"][m].value for m in ("mse_by_variable", "mse", "mae")]
    assert last == pytest.approx([0.621, 0.733, 0.553], abs=0.002)
    blend = [found.baselines["blend"][m].value for m in ("mse_by_variable", "mse", "mae")]
    # the reference fills in the mean of the past where nothing was measured: .512 / .555 / .517
    assert blend == pytest.approx([0.512, 0.555, 0.517], abs=0.005)
    assert 0.88 < found.metrics["coverage"].value < 0.93
    assert found.difference["last_value"]["mse_by_variable"].high < 0
