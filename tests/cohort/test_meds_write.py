"""Written as MEDS and read back: the same cohort, in the layout of the standard."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinode.cohort import Cohort, read_cohort
from clinode.cohort.meds_layout import EPOCH
from clinode.cohort.meds_write import write_meds
from clinode.errors import ArgumentError, CheckpointError, OutputError, SchemaError


def told(cohort):
    """What must come back."""
    tables = {"groups": cohort.groups.tolist(), "schema": cohort.schema.to_dict()}
    for name in ("observations", "statics", "inputs", "outcomes"):
        tables[name] = getattr(cohort, name).to_csv(index=False, float_format="%.9g")
    return tables


@pytest.fixture
def stays(tables):
    """Text ids, stays of persons, categories, numbers that no float32 holds, missing outcomes."""
    names = {number: f"p{number % 7}-{number:03d}" for number in range(1, 41)}
    for table in tables.values():
        table["subject_id"] = table["subject_id"].map(names)
    tables["statics"]["ward"] = np.where(np.arange(40) % 3 == 0, "a//b", None)
    tables["outcomes"].loc[5:9, "died"] = np.nan
    tables["outcomes"]["days"] = np.arange(80) / 7
    return Cohort.from_tables(**tables)


@pytest.mark.parametrize("n_shards", [1, 3, 24])
def test_what_is_written_is_read_back_from_any_number_of_shards(stays, tmp_path, n_shards):
    write_meds(stays, tmp_path / "meds", n_shards=n_shards)
    assert told(read_cohort(tmp_path / "meds")) == told(stays)


def test_values_come_back_bit_by_bit_and_times_to_the_microsecond(treated, tmp_path):
    write_meds(treated, tmp_path / "meds")
    before, after = treated.arrays(), read_cohort(tmp_path / "meds").arrays()
    assert np.array_equal(before.value, after.value)
    assert np.array_equal(before.input_value, after.input_value)
    np.testing.assert_allclose(after.time, before.time, atol=0.5e-6 / 3600)
    write_meds(read_cohort(tmp_path / "meds"), tmp_path / "again")
    assert np.array_equal(read_cohort(tmp_path / "again").arrays().time, after.time)


def test_the_layout_is_that_of_the_standard(stays, tmp_path):
    write_meds(stays, tmp_path / "meds", n_shards=2, name="stays")
    seen, codes = set(), set()
    for path in sorted((tmp_path / "meds" / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        assert table.schema.field("subject_id").type == pa.int64()
        assert table.schema.field("time").type == pa.timestamp("us")
        assert table.schema.field("numeric_value").type == pa.float32()
        frame = table.to_pandas()
        assert seen.isdisjoint(frame["subject_id"]), "a subject stands in one file"
        seen |= set(frame["subject_id"])
        codes |= set(frame["code"])
        assert (frame["subject_id"].diff().dropna() >= 0).all()
        held = frame.assign(time=frame["time"].fillna(pd.Timestamp.min.as_unit("us")))
        assert held.groupby("subject_id")["time"].is_monotonic_increasing.all()
    assert len(seen) == len(stays)
    metadata = tmp_path / "meds" / "metadata"
    assert codes <= set(pd.read_parquet(metadata / "codes.parquet")["code"])
    dataset = json.loads((metadata / "dataset.json").read_text(encoding="utf-8"))
    assert dataset["dataset_name"] == "stays"
    assert dataset["meds_version"].startswith("0.4")


def test_labels_follow_the_label_schema_and_leave_out_what_is_unknown(stays, tmp_path):
    write_meds(stays, tmp_path / "meds")
    labels = tmp_path / "meds" / "labels"
    died = pq.read_table(labels / "died" / "0.parquet")
    assert died.column_names == ["subject_id", "prediction_time", "boolean_value"]
    assert died.schema.field("boolean_value").type == pa.bool_()
    assert len(died) == 75
    days = pq.read_table(labels / "days" / "0.parquet")
    assert days.schema.field("float_value").type == pa.float32()
    hours = (died["prediction_time"].to_pandas() - EPOCH) / pd.Timedelta(hours=1)
    assert set(hours) == {24.0, 48.0}


def test_the_published_split_of_another_meds_folder_is_kept(tmp_path):
    from .test_meds import PERSON_7, PERSON_9, write

    root = write(tmp_path / "from", {"0": PERSON_7, "1": PERSON_9}, [(7, "train"), (9, "tuning")])
    cohort = read_cohort(root)
    write_meds(cohort, tmp_path / "to")
    again = read_cohort(tmp_path / "to")
    assert told(again) == told(cohort)
    pd.testing.assert_frame_equal(again.splits, cohort.splits)
    assert again.subjects.tolist() == ["7-1", "7-2", "9-1"]


def test_an_occupied_place_and_an_altered_file_are_refused(treated, tmp_path):
    write_meds(treated, tmp_path / "meds")
    with pytest.raises(OutputError, match="not empty"):
        write_meds(treated, tmp_path / "meds")
    write_meds(treated, tmp_path / "meds", replace=True)
    path = tmp_path / "meds" / "data" / "0.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="altered"):
        read_cohort(tmp_path / "meds")


def test_a_time_that_no_date_can_say_is_refused(tables, tmp_path):
    tables["observations"].loc[3, "time"] = 1e9
    with pytest.raises(SchemaError, match="1 times lie more than"):
        write_meds(Cohort.from_tables(**tables), tmp_path / "meds")
    assert not (tmp_path / "meds").exists()


def test_nobody_is_no_data_set_and_no_shard_holds_nobody(treated, tmp_path):
    with pytest.raises(ArgumentError, match="a shard at least"):
        write_meds(treated, tmp_path / "meds", n_shards=0)
    with pytest.raises(ArgumentError, match="without subjects"):
        write_meds(treated.take([]), tmp_path / "meds")
