import json

import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Classify, Cohort, Forecast, Preprocessor
from clinode.errors import SchemaError

TASK = Classify("died")


def test_values_are_clipped_and_standardised_by_the_training_part(treated):
    schema = Preprocessor.fit(treated, TASK)
    held = treated.observations
    held = held[held["variable"] == "HR"]["value"].to_numpy()
    low, high = np.quantile(held, [0.001, 0.999])
    clipped = np.clip(held, low, high)
    index = np.full(3, schema.variables.index("HR"))
    asked = np.array([held[0], -1e3, 1e3])
    expected = (np.clip(asked, low, high) - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(schema.standardize(index, asked), expected, rtol=1e-12)


def test_skewed_laboratory_values_are_read_as_logarithms_but_not_by_a_forecast(treated):
    lactate = Preprocessor.fit(treated, TASK)
    position = lactate.variables.index("Lactate")
    assert lactate.transform[position] == "log"
    held = treated.observations
    held = np.log(held[held["variable"] == "Lactate"]["value"].to_numpy() + 0.1)
    assert lactate.low[position] == pytest.approx(np.quantile(held, 0.001), rel=1e-12)
    forecast = Preprocessor.fit(treated, Forecast(12.0))
    assert set(forecast.transform) == {"identity"}


def test_a_variable_that_is_only_ever_one_stays_a_one(treated):
    schema = Preprocessor.fit(treated, TASK)
    index = np.array([schema.variables.index("MechVent")])
    np.testing.assert_array_equal(schema.standardize(index, np.array([1.0])), [1.0])
    assert schema.cohort_mean()[index[0]] == 1.0


def test_restoring_undoes_standardising_within_the_clipping_bounds(treated):
    schema = Preprocessor.fit(treated, TASK)
    held = treated.observations
    index = pd.Index(schema.variables).get_indexer(held["variable"].astype(str))
    value = held["value"].to_numpy()
    standardised = schema.standardize(index, value)
    again = schema.standardize(index, schema.restore(index, standardised))
    np.testing.assert_allclose(again, standardised, atol=1e-12)
    inside = np.abs(schema.restore(index, standardised) - value) < 1e-9
    assert inside.mean() > 0.97


def test_the_schema_is_blind_to_the_outcome(tables):
    schema = Preprocessor.fit(Cohort.from_tables(**tables), TASK)
    flipped = {**tables, "outcomes": tables["outcomes"].assign(died=1 - tables["outcomes"]["died"])}
    assert Preprocessor.fit(Cohort.from_tables(**flipped), TASK) == schema


def test_the_schema_is_blind_to_what_follows_the_last_prediction_time(tables):
    tables["outcomes"]["prediction_time"] = 20.0
    tables["outcomes"] = tables["outcomes"].drop_duplicates("subject_id")
    schema = Preprocessor.fit(Cohort.from_tables(**tables), TASK)
    later = tables["observations"].copy()
    later.loc[later["time"] > 20, "value"] *= 0.9
    given = tables["inputs"].copy()
    given.loc[given["start"] > 20, "value"] *= 3
    changed = {**tables, "observations": later, "inputs": given}
    assert Preprocessor.fit(Cohort.from_tables(**changed), TASK) == schema


def test_another_unit_of_a_variable_gives_the_same_standardised_values(tables):
    plain = tables["observations"].assign(variable="X")
    scaled = plain.assign(value=plain["value"] * 18.0)
    shown = []
    for table in (plain, scaled):
        cohort = Cohort.from_tables(**{**tables, "observations": table})
        schema, held = Preprocessor.fit(cohort, TASK), cohort.observations
        shown.append(schema.standardize(np.zeros(len(held), dtype=int), held["value"].to_numpy()))
    np.testing.assert_allclose(shown[0], shown[1], rtol=1e-9)


def test_statics_are_standardised_one_hot_and_missing_where_unknown(treated):
    schema = Preprocessor.fit(treated, TASK)
    assert [(c.name, c.level) for c in schema.statics] == [
        ("age", None),
        *[("icu_type", level) for level in (1.0, 2.0, 3.0, 4.0)],
    ]
    encoded = schema.encode_statics(treated.statics, len(treated))
    assert np.isnan(encoded[2, 0])
    assert np.isnan(encoded[3, 1:]).all()
    np.testing.assert_allclose(np.nanmean(encoded, axis=0), 0, atol=1e-9)
    assert np.nanstd(encoded[:, 0]) == pytest.approx(1)


def test_a_level_that_training_never_met_is_missing(treated):
    schema = Preprocessor.fit(treated, TASK)
    stranger = pd.DataFrame({"subject_id": [1], "age": [50.0], "icu_type": [9.0]})
    encoded = schema.encode_statics(stranger, 1)
    assert np.isfinite(encoded[0, 0])
    assert np.isnan(encoded[0, 1:]).all()


def test_unknown_variables_and_treatments_are_refused_with_counts(treated, tables):
    schema = Preprocessor.fit(treated, TASK)
    more = tables["observations"].head(3).assign(variable="Temp", value=37.0)
    observations = pd.concat([tables["observations"], more])
    with pytest.raises(SchemaError, match=r"observations: .*'Temp' \(3 rows\)"):
        schema.check(Cohort.from_tables(**{**tables, "observations": observations}))
    given = tables["inputs"].replace({"variable": {"insulin": "heparin"}})
    with pytest.raises(SchemaError, match=r"inputs: .*'heparin'"):
        schema.check(Cohort.from_tables(**{**tables, "inputs": given}))


def test_variables_that_a_later_cohort_lacks_are_no_error(treated, tables):
    few = tables["observations"][tables["observations"]["variable"] == "HR"]
    Preprocessor.fit(treated, TASK).check(Cohort.from_tables(few))


def test_auxiliary_outcomes_are_scaled_apart_from_the_outcome(tables):
    outcomes = tables["outcomes"].assign(
        stay=np.arange(len(tables["outcomes"])) / 7, late=tables["outcomes"]["died"]
    )
    cohort = Cohort.from_tables(**{**tables, "outcomes": outcomes})
    schema = Preprocessor.fit(cohort, Classify("died", auxiliary=("stay", "late")))
    stay, late = schema.auxiliary
    assert (stay.is_binary, stay.transform, late.is_binary) == (False, "log1p", True)
    assert stay.mean == pytest.approx(np.log1p(outcomes["stay"]).mean())


def test_the_schema_survives_json(treated):
    schema = Preprocessor.fit(treated, TASK)
    assert Preprocessor.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_a_foreign_schema_file_is_refused(treated):
    data = Preprocessor.fit(treated, TASK).to_dict()
    del data["window"]
    with pytest.raises(SchemaError, match=r"schema\.json"):
        Preprocessor.from_dict(data)


def test_a_training_part_without_an_observation_before_the_prediction_is_refused(tables):
    tables["outcomes"]["prediction_time"] = tables["outcomes"]["prediction_time"] - 100
    with pytest.raises(SchemaError, match="at or before a prediction time"):
        Preprocessor.fit(Cohort.from_tables(**tables), TASK)
