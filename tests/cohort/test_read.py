import gzip
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import clinode.cohort.assembly
import clinode.cohort.read
from clinode.cohort import Cohort, Policy, read_cohort
from clinode.cohort.columns import find_column, unit_in_name
from clinode.cohort.sources import NUMBER, Source, is_number
from clinode.errors import ArgumentError, ResourceError, SchemaError

GENERATE = [Phase.explicit, Phase.reuse, Phase.generate]  # shrinking a table takes minutes
LONG = pd.DataFrame(
    {
        "subject_id": [2, 2, 1, 1, 1],
        "time": [0.0, 1.5, 0.25, 0.25, 3.0],
        "variable": ["HR", "K", "HR", "K", "HR"],
        "value": [80.0, 4.25, 91.0, 3.5, 95.5],
    }
)
WIDE = pd.DataFrame(
    {
        "subject_id": [2, 2, 1, 1],
        "time": [0.0, 1.5, 0.25, 3.0],
        "HR": [80.0, np.nan, 91.0, 95.5],
        "K": [np.nan, 4.25, 3.5, np.nan],
    }
)
STATICS = pd.DataFrame({"subject_id": [1, 2], "age": [50.0, 60.0], "site": ["a", "b"]})
INPUTS = pd.DataFrame(
    {
        "subject_id": [1, 2],
        "start": [0.0, 1.0],
        "end": [2.0, np.nan],
        "variable": ["fluid", "insulin"],
        "value": [100.0, 4.0],
    }
)
OUTCOMES = pd.DataFrame({"subject_id": [1, 2], "died": [0, 1]})


def write(table, path):
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path


def same(one, other, tables=("observations", "statics", "inputs", "outcomes")):
    for table in tables:
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table))
    assert one.schema.variables == other.schema.variables


@pytest.fixture(scope="module")
def expected():
    return Cohort.from_tables(LONG, STATICS, INPUTS, OUTCOMES)


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.gz"])
def test_long_and_wide_files_and_frames_give_one_cohort(tmp_path, expected, ending):
    tables = {}
    for name, table in (
        ("long", LONG),
        ("wide", WIDE),
        ("s", STATICS),
        ("i", INPUTS),
        ("o", OUTCOMES),
    ):
        tables[name] = tmp_path / f"{name}.{ending}"
        if ending == "csv.gz":
            tables[name].write_bytes(gzip.compress(table.to_csv(index=False).encode()))
        else:
            write(table, tables[name])
    others = {"statics": tables["s"], "inputs": tables["i"], "outcomes": tables["o"]}
    same(read_cohort(tables["long"], **others), expected)
    same(read_cohort(tables["wide"], **others), expected)
    same(read_cohort(LONG, statics=STATICS, inputs=INPUTS, outcomes=OUTCOMES), expected)


def test_the_tables_of_a_folder_are_found_by_their_usual_names(tmp_path, expected):
    write(LONG, tmp_path / "obs.csv")
    write(STATICS, tmp_path / "patients.csv")
    write(INPUTS, tmp_path / "treatments.parquet")
    write(OUTCOMES, tmp_path / "labels.csv")
    (tmp_path / "README.md").write_text("about")
    same(read_cohort(tmp_path), expected)


def test_a_table_may_be_a_folder_of_shards_in_any_order(tmp_path, expected):
    (tmp_path / "observations").mkdir()
    write(LONG.iloc[3:], tmp_path / "observations" / "0.parquet")
    write(LONG.iloc[:3], tmp_path / "observations" / "1.parquet")
    same(read_cohort(tmp_path), expected, ["observations"])
    shards = [tmp_path / "observations" / f"{k}.parquet" for k in (1, 0)]
    same(read_cohort(shards), expected, ["observations"])


def test_any_column_names_by_mapping(tmp_path, expected):
    names = {"subject_id": "who", "time": "when", "variable": "what", "value": "how much"}
    path = write(LONG.rename(columns=names), tmp_path / "table.csv")
    options = {"subject": "who", "time": "when", "variable": "what", "value": "how much"}
    same(read_cohort(path, **options), expected, ["observations"])


@pytest.mark.parametrize(
    ("unit", "factor"), [("h", 1.0), ("min", 60.0), ("s", 3600.0), ("d", 1 / 24), ("ms", 3.6e6)]
)
def test_any_unit_of_time_gives_the_same_hours(unit, factor, expected):
    table = LONG.assign(time=LONG["time"] * factor)
    cohort = read_cohort(table, time_unit=unit)
    np.testing.assert_allclose(cohort.arrays().time, expected.arrays().time, rtol=1e-14)
    same(read_cohort(table.iloc[::-1], time_unit=unit), cohort)


def test_hours_and_minutes_are_read_exactly(expected):
    table = LONG.assign(time=["00:00", "01:30", "00:15", "00:15", "03:00"])
    same(read_cohort(table, time_unit="hh:mm"), expected, ["observations"])


def test_a_column_in_minutes_is_never_taken_for_hours(tmp_path):
    path = write(LONG.rename(columns={"time": "time_min"}), tmp_path / "table.csv")
    with pytest.raises(SchemaError, match="'time_min' seems to be in another unit than hours"):
        read_cohort(path)
    assert read_cohort(path, time_unit="min").arrays().time.max() == 3.0 / 60.0
    assert read_cohort(path, time_unit="h").arrays().time.max() == 3.0


def test_dates_are_refused_with_a_way_out():
    table = LONG.assign(time=pd.to_datetime("2020-01-01"))
    with pytest.raises(SchemaError, match="holds dates, expected time since") as caught:
        read_cohort(table)
    assert "2020" not in str(caught.value)


def test_a_time_delta_is_hours(expected):
    table = LONG.assign(time=pd.to_timedelta(LONG["time"], unit="h"))
    same(read_cohort(table), expected, ["observations"])


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_delimiters_are_recognised_from_the_header(tmp_path, mark, expected):
    path = tmp_path / "table.csv"
    LONG.to_csv(path, index=False, sep=mark)
    same(read_cohort(path), expected, ["observations"])


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_blanks_and_quotes_do_not_matter(tmp_path, ends, expected):
    lines = ['"subject_id", time ,variable,"value"']
    lines += [f'{s}, {t} ,"{v}",{x}' for s, t, v, x in LONG.itertuples(index=False)]
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf" + ends.join(lines).encode())
    same(read_cohort(path), expected, ["observations"])


def test_columns_in_another_order_change_nothing(expected):
    for order in itertools.islice(itertools.permutations(LONG.columns), 0, 24, 5):
        same(read_cohort(LONG[list(order)]), expected, ["observations"])
    same(read_cohort(WIDE[["K", "time", "HR", "subject_id"]]), expected, ["observations"])


def test_an_empty_cell_of_a_wide_table_is_no_row_and_is_counted():
    ledger = read_cohort(WIDE).ledger
    assert ledger.rows("observations", "read") == 8
    assert ledger.rows("observations", "dropped", "empty cell") == 3
    assert ledger.balanced
    assert read_cohort(WIDE, strict=True).n_observations == 5


def test_a_variable_that_is_never_measured_stays_in_the_schema():
    cohort = read_cohort(WIDE.assign(Lactate=np.nan))
    assert [variable.name for variable in cohort.schema.variables] == ["HR", "K", "Lactate"]


def test_a_wide_row_without_a_single_value_keeps_its_subject():
    table = pd.concat([WIDE, pd.DataFrame({"subject_id": [9], "time": [0.0]})])
    assert read_cohort(table).subjects.tolist() == [1, 2, 9]


def test_texts_in_a_wide_table_are_dropped_and_counted():
    table = WIDE.assign(HR=["80", "", "91", "high"])
    cohort = read_cohort(table)
    assert cohort.ledger.rows("observations", "dropped", "not a number", "HR") == 1
    with pytest.raises(SchemaError, match="row 4, column 'HR': not a number"):
        read_cohort(table, strict=True)


def test_outcomes_at_their_own_times_are_read_as_prediction_times():
    outcomes = pd.DataFrame({"subject_id": [1, 1], "time": [1.0, 2.0], "label": [5.0, 4.0]})
    cohort = read_cohort(LONG, outcomes=outcomes)
    assert cohort.outcomes["prediction_time"].tolist() == [1.0, 2.0]
    assert cohort.schema.outcomes == ("label",)
    outcomes = outcomes.rename(columns={"time": "landmark"})
    cohort = read_cohort(LONG, outcomes=outcomes, prediction_time="landmark")
    assert cohort.outcomes["prediction_time"].tolist() == [1.0, 2.0]


def test_a_group_of_the_statics_is_what_a_split_keeps_together():
    statics = STATICS.assign(person=["p", "p"])
    cohort = read_cohort(LONG, statics=statics, group="person")
    assert cohort.groups.tolist() == ["p", "p"]
    assert [variable.name for variable in cohort.schema.statics] == ["age", "site"]
    with pytest.raises(SchemaError, match="no column 'tribe'"):
        read_cohort(LONG, statics=statics, group="tribe")
    with pytest.raises(ArgumentError, match="there are none"):
        read_cohort(LONG, group="person")


def test_a_policy_may_be_a_file_as_check_suggests_it(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(Policy(leave_out=("K",)).to_yaml())
    assert read_cohort(LONG, policy=path).n_observations == 3


def test_only_outcomes_that_are_numbers_are_outcomes():
    outcomes = OUTCOMES.assign(where=["ward", "home"], died=["0", "1"])
    cohort = read_cohort(LONG, outcomes=outcomes)
    assert cohort.schema.outcomes == ("died",)
    assert cohort.ledger.rows("outcomes", "dropped", "text, and no outcome") == 2


def test_an_unknown_format_or_unit_is_refused_with_those_there_are():
    with pytest.raises(ArgumentError, match="unknown format 'mimic'; there are long, wide, meds"):
        read_cohort(LONG, "mimic")
    with pytest.raises(ArgumentError, match="unknown time unit 'fortnight'"):
        read_cohort(LONG, time_unit="fortnight")


def test_a_column_that_was_told_must_be_there():
    with pytest.raises(SchemaError, match="no column 'patient' for the subject; the columns are"):
        read_cohort(LONG, subject="patient")


def test_columns_that_are_not_recognised_are_listed_with_a_call_to_copy(tmp_path):
    path = write(LONG.rename(columns={"time": "zeit"}), tmp_path / "table.csv")
    with pytest.raises(SchemaError, match="no column of the time was recognised") as caught:
        read_cohort(path)
    assert "subject_id, zeit, variable, value" in caught.value.problem
    assert 'read_cohort("table.csv"' in caught.value.fix


def test_the_first_usual_name_wins():
    source = Source("x", "x", {"id": "VARCHAR", "Stay ID": "VARCHAR", "time_hours": "DOUBLE"})
    assert find_column(source, "subject") == "Stay ID"
    assert find_column(source, "time") == "time_hours"
    assert find_column(source, "value") is None


@pytest.mark.parametrize(
    ("name", "unit"),
    [("time_min", "min"), ("minutes", "min"), ("hours", "h"), ("t", None), ("offset_sec", "s")],
)
def test_a_unit_is_read_from_the_end_of_a_name(name, unit):
    assert unit_in_name(name) == unit


@pytest.mark.slow
@settings(
    max_examples=10,
    deadline=None,
    phases=GENERATE,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 40),
            st.sampled_from(["HR", "K", "x"]),
            st.floats(-1e6, 1e6, allow_nan=False),
        ),
        min_size=1,
        max_size=40,
        unique_by=lambda row: row[:3],
    ),
    data=st.data(),
)
def test_files_frames_and_shuffles_agree_to_the_last_bit(rows, data, tmp_path):
    table = pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"])
    shuffled = table.iloc[data.draw(st.permutations(range(len(table))))]
    policy = Policy(ranges={"HR": None, "K": None})
    prints = {
        read_cohort(write(one, tmp_path / name), policy=policy).fingerprint()["sha256"]
        for one, name in ((table, "a.csv"), (shuffled, "b.csv"), (shuffled, "c.parquet"))
    }
    assert prints == {read_cohort(table, policy=policy).fingerprint()["sha256"]}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1", True),
        ("-1.5e3", True),
        (".5", True),
        ("5.", True),
        ("+2", True),
        ("1_000", False),
        ("１２", False),
        ("1,5", False),
        ("0x10", False),
        ("nan", False),
        ("inf", False),
        ("1e", False),
        ("", False),
        (".", False),
        ("--1", False),
        ("1 2", False),
    ],
)
def test_the_grammar_of_numbers_is_that_of_the_reader(text, is_one, tmp_path):
    assert is_number(text) == is_one
    path = tmp_path / "table.csv"
    path.write_text(f'subject_id,time,variable,value\n1,0,x,7\n1,1,x,"{text}"\n', encoding="utf-8")
    cohort = read_cohort(path)
    assert cohort.n_observations == 1 + is_one
    if is_one:
        assert cohort.arrays().value[1] == float(text)


def test_the_largest_and_the_smallest_numbers_keep_their_bits(tmp_path):
    values = [5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 2.0**53 + 2]
    lines = [f"1,{k},x,{value!r}" for k, value in enumerate(values)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["subject_id,time,variable,value", *lines]))
    assert read_cohort(path).arrays().value.tolist() == values
    assert NUMBER


def test_large_tables_are_staged_on_the_disk_with_the_same_result(monkeypatch, tmp_path, expected):
    monkeypatch.setattr(clinode.cohort.read, "LARGE_BYTES", 0)
    same(read_cohort(write(LONG, tmp_path / "obs.csv")), expected, ["observations"])


def test_a_reading_that_needs_more_memory_is_tried_again_with_more(monkeypatch, expected):
    monkeypatch.setattr(clinode.cohort.assembly, "MEMORY_BYTES", (1_000_000, 128_000_000))
    same(read_cohort(LONG), expected, ["observations"])
    monkeypatch.setattr(clinode.cohort.assembly, "MEMORY_BYTES", (1_000_000,))
    with pytest.raises(ResourceError, match="memory or the temporary disk ran out") as caught:
        read_cohort(LONG)
    assert caught.value.exit_code == 6


def test_a_person_and_a_stay_in_one_table_are_not_told_apart_by_guessing(tmp_path):
    table = LONG.assign(stay_id=LONG["subject_id"] + 100)
    with pytest.raises(SchemaError, match="both 'subject_id' and 'stay_id' could be the subject"):
        read_cohort(table)
    assert read_cohort(table, subject="stay_id").subjects.tolist() == [101, 102]


def test_identifiers_of_a_wide_table_are_left_out_and_counted():
    cohort = read_cohort(WIDE.assign(hadm_id=[1, 2, 3, 4]), subject="subject_id")
    assert [variable.name for variable in cohort.schema.variables] == ["HR", "K"]
    assert cohort.ledger.rows("observations", "dropped", "identifier", "hadm_id") == 4
    assert cohort.ledger.balanced


def test_half_a_long_table_is_not_taken_for_a_wide_one():
    table = LONG.rename(columns={"value": "wert"})
    with pytest.raises(SchemaError, match="no column of the value was recognised") as caught:
        read_cohort(table)
    assert 'value="..."' in caught.value.fix
    assert read_cohort(table, value="wert").n_observations == 5


def test_tables_that_share_no_subject_write_their_ids_in_different_ways():
    statics = STATICS.assign(subject_id=["01", "02"])
    with pytest.raises(SchemaError, match="none of its 2 subjects has an observation") as caught:
        read_cohort(LONG, statics=statics)
    assert caught.value.where == "statics"


@pytest.mark.parametrize("table", [LONG, WIDE], ids=["long", "wide"])
def test_numbers_of_single_precision_keep_the_digits_they_were_written_with(table, tmp_path):
    column = "value" if "value" in table else "K"
    table = table.assign(**{column: 7.41}).astype({column: "float32"})
    cohort = read_cohort(write(table, tmp_path / "obs.parquet"))
    assert 7.41 in cohort.arrays().value
    assert 7.409999847412109 not in cohort.arrays().value
