import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from clinode.cohort import Classify, Cohort, read_cohort
from clinode.cohort.meds_write import write_meds
from clinode.errors import ArgumentError
from clinode.training import fit
from clinode.training.meds_predictions import meds_predictions


@pytest.fixture(scope="module")
def cohort(make_tables):
    tables = make_tables(40)
    tables["outcomes"]["prediction_time"] = 40.0 + np.arange(40) / 8
    return Cohort.from_tables(**tables)


@pytest.fixture(scope="module")
def run(cohort, small_model, small_config, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "death"
    task = Classify("died")
    return fit(small_model, cohort, task=task, out=out, config=small_config, progress=False)


def test_predictions_belong_to_the_labels_of_the_written_folder(run, cohort, tmp_path):
    table, words = meds_predictions(run, cohort, threshold=0.3)
    assert "2000-01-01" in words
    assert table.schema.field("subject_id").type == pa.int64()
    assert table.schema.field("prediction_time").type == pa.timestamp("us")
    write_meds(cohort, tmp_path / "meds")
    labels = pd.read_parquet(tmp_path / "meds" / "labels" / "died" / "0.parquet")
    joined = labels.merge(table.to_pandas(), on=["subject_id", "prediction_time", "boolean_value"])
    assert len(joined) == len(labels) == len(table) == 40
    told = run.predict(cohort).set_index("subject_id")["probability"]
    found = joined.set_index("subject_id")["predicted_boolean_probability"]
    pd.testing.assert_series_equal(found, told, check_names=False, check_index_type=False)
    assert (joined["predicted_boolean_value"] == (found.to_numpy() >= 0.3)).all()


def test_without_a_known_outcome_or_a_threshold_there_is_no_such_column(run, cohort):
    unlabelled = Cohort.from_tables(cohort.observations, cohort.statics, schema=cohort.schema)
    table, _ = meds_predictions(run, unlabelled)
    names = ["subject_id", "prediction_time", "predicted_boolean_probability"]
    assert table.column_names == names


def test_ids_that_are_no_numbers_are_numbered_as_a_conversion_does(run, cohort, tmp_path):
    tables = {
        name: getattr(cohort, name).assign(
            subject_id=[f"p-{s}" for s in getattr(cohort, name)["subject_id"]]
        )
        for name in ("observations", "statics", "outcomes")
    }
    named = Cohort.from_tables(**tables, schema=cohort.schema)
    table, _ = meds_predictions(run, named)
    write_meds(named, tmp_path / "meds")
    labels = pd.read_parquet(tmp_path / "meds" / "labels" / "died" / "0.parquet")
    assert set(labels["subject_id"]) == set(table["subject_id"].to_pylist())


CODES = {
    "HR": "LAB//220045//bpm",
    "MAP": "LAB//220052//mmHg",
    "Lactate": "LAB//50813//mmol/L",
    "Creatinine": "LAB//50912//mg/dL",
}


def test_stays_of_dated_records_keep_person_and_date(run, cohort, tmp_path):
    held = cohort.observations
    start = pd.Timestamp("2150-01-01") + pd.to_timedelta(held["subject_id"], "D")
    events = pd.DataFrame(
        {
            "subject_id": held["subject_id"] + 500,
            "time": start + pd.to_timedelta(held["time"], "h"),
            "code": held["variable"].astype(str).map(CODES),
            "numeric_value": held["value"],
        }
    )
    ids = np.unique(held["subject_id"])
    stays = pd.DataFrame({"subject_id": ids + 500, "code": "ICU_ADMISSION//A"})
    stays["time"] = pd.Timestamp("2150-01-01") + pd.to_timedelta(ids, "D")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "data").mkdir()
    events = pd.concat([stays, events]).astype({"time": "datetime64[us]"})
    events.to_parquet(tmp_path / "data" / "0.parquet", index=False)
    dated = read_cohort(tmp_path)
    table, words = meds_predictions(run, dated)
    assert "person" in words
    assert table["subject_id"].to_pylist() == (ids + 500).tolist()
    hours = run.predict(dated)["prediction_time"].unique()
    expected = stays["time"] + pd.to_timedelta(hours[0], "h")
    found = pd.Series(table["prediction_time"].to_pandas())
    assert (found - expected).abs().max() < pd.Timedelta("2us")
    assert "boolean_value" not in table.column_names


def test_what_cannot_be_said_in_the_schema_is_refused(run, cohort):
    with pytest.raises(ArgumentError, match="no label 'x'"):
        meds_predictions(run, cohort, label="x")
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        meds_predictions(run, cohort, threshold=50.0)
