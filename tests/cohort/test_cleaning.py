import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clinode.cohort import Cohort, Conversion, Policy
from clinode.cohort.sorting import merge_repeated
from clinode.errors import SchemaError

GENERATE = [Phase.explicit, Phase.reuse, Phase.generate]  # shrinking a table takes minutes
FEW = settings(
    max_examples=15,
    deadline=None,
    phases=GENERATE,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def observations(rows):
    return pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"])


def read(rows, **options):
    return Cohort.from_tables(observations(rows), **options)


def reasons(cohort, action, table="observations"):
    frame = cohort.ledger.to_pandas()
    frame = frame[(frame["table"] == table) & (frame["action"] == action)]
    return dict(zip(frame["reason"], frame["rows"], strict=True))


# value as it arrives, variable, value as it is kept (None: not kept), reason
CASES = [
    (80.0, "HR", 80.0, None),
    (10.0, "HR", 10.0, None),
    (math.nextafter(10.0, 0.0), "HR", None, "impossible value"),
    (300.0, "HR", 300.0, None),
    (math.nextafter(300.0, 400.0), "HR", None, "impossible value"),
    (-1.0, "HR", None, "sentinel"),
    (-2.0, "HR", None, "impossible value"),
    (0.0, "SysABP", None, "impossible value"),
    (7.35, "pH", 7.35, None),
    (735.0, "pH", 7.35, None),
    (73.5, "pH", 7.35, None),
    (100.0, "pH", None, "impossible value"),
    (98.6, "Temp", 37.0, None),
    (37.2, "Temp", 37.2, None),
    (-17.8, "Temp", None, "impossible value"),
    (40.0, "FiO2", 0.4, None),
    (float("nan"), "K", None, "no value"),
    (float("inf"), "K", None, "infinite"),
    (-1.0, "a score of my own", -1.0, None),
    (-1.0, "be", -1.0, None),
    (1e300, "a score of my own", 1e300, None),
]


@pytest.mark.parametrize(("arrived", "variable", "kept", "reason"), CASES)
def test_the_default_policy_case_by_case(arrived, variable, kept, reason):
    cohort = read([(1, 0.0, variable, arrived)])
    assert cohort.ledger.balanced
    if kept is None:
        assert len(cohort.observations) == 0
        assert reasons(cohort, "dropped") == {reason: 1}
    else:
        assert cohort.observations["value"].tolist() == pytest.approx([kept], rel=1e-12)
        assert cohort.ledger.rows("observations", "converted") == (kept != arrived)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((1, 0.0, "HR", -1.0), "row 2, column 'value': sentinel"),
        ((1, 0.0, "HR", 900.0), "row 2, column 'value': impossible value"),
        ((1, 0.0, "Temp", 98.6), "row 2, column 'value': the unit is converted"),
        ((1, 0.0, "HR", float("nan")), "row 2, column 'value': no value"),
        ((1, float("inf"), "HR", 80.0), "row 2, column 'time': the time is not a number"),
        ((1, 0.0, "", 80.0), "row 2, column 'variable': no variable name"),
        ((1, 0.0, "Age", 70.0), "row 2, column 'variable': descriptor"),
        ((1, 0.0, "RecordID", 1.0), "row 2, column 'variable': identifier"),
    ],
)
def test_a_strict_reading_makes_each_change_an_error_with_its_row(row, words):
    rows = [(1, 5.0, "HR", 80.0), row]
    read(rows)
    with pytest.raises(SchemaError, match=words):
        read(rows, strict=True)


def test_a_strict_reading_takes_clean_rows_as_they_are():
    rows = [(1, 1.0, "HR", 80.0), (1, 0.0, "K", 4.0), (2, 0.0, "HR", 70.0)]
    assert read(rows, strict=True).n_observations == 3


def test_a_strict_reading_refuses_repeated_keys():
    with pytest.raises(SchemaError, match="2 rows repeat a key"):
        read([(1, 0.0, "HR", 80.0)] * 3, strict=True)


def test_repeated_keys_take_the_mean_whatever_their_order():
    values = [0.1, 0.2, 0.3, 1e16, -1e16, 7.0]
    cohorts = [read([(1, 0.0, "x", value) for value in order]) for order in (values, values[::-1])]
    first, second = (cohort.observations["value"].tolist() for cohort in cohorts)
    assert first == second
    assert reasons(cohorts[0], "merged") == {"repeated key, the mean is taken": 5}
    assert cohorts[0].ledger.balanced


def test_the_mean_of_equal_values_is_that_value():
    cohort = read([(1, 0.0, "x", 0.1)] * 3)
    assert cohort.observations["value"].tolist() == [0.1]


def test_a_mean_of_huge_values_does_not_overflow():
    cohort = read([(1, 0.0, "x", 1.7e308)] * 3 + [(2, 0.0, "x", -1.7e308)] * 3)
    assert cohort.observations["value"].tolist() == [1.7e308, -1.7e308]


def test_minus_zero_is_zero():
    one, other = (read([(1, zero, "x", zero)]) for zero in (0.0, -0.0))
    assert one.fingerprint() == other.fingerprint()


def test_descriptors_that_arrive_as_variables_go_to_the_statics():
    rows = [
        (4, 0.0, "RecordID", 4.0),
        (4, 0.0, "Age", 54.0),
        (4, 0.0, "Gender", 0.0),
        (4, 0.0, "Height", -1.0),
        (4, 0.0, "ICUType", 4.0),
        (4, 0.1, "HR", 80.0),
        (9, 0.0, "Age", 61.0),
        (9, 3.0, "Age", 62.0),
        (9, 3.0, "Height", 300.0),
    ]
    cohort = read(rows)
    assert [variable.name for variable in cohort.schema.variables] == ["HR"]
    statics = cohort.statics.set_index("subject_id")
    assert statics.loc[4].dropna().to_dict() == {"age": 54.0, "gender": 0.0, "icu_type": 4.0}
    assert statics.loc[9].dropna().to_dict() == {"age": 61.0}
    assert "record_id" not in {name.lower() for name in statics.columns}
    assert reasons(cohort, "dropped", "statics") == {"sentinel": 1, "impossible value": 1}
    assert cohort.ledger.balanced


def test_the_statics_table_comes_before_a_descriptor():
    statics = pd.DataFrame({"subject_id": [1, 2], "age": [50.0, np.nan]})
    cohort = read([(1, 0.0, "Age", 51.0), (2, 0.0, "Age", 60.0)], statics=statics)
    assert cohort.statics["age"].tolist() == [50.0, 60.0]
    assert cohort.ledger.balanced


def test_words_for_sex_become_its_code():
    table = observations(
        [(1, 0.0, "Gender", "Male"), (2, 0.0, "Gender", "F"), (3, 0.0, "HR", "80")]
    )
    cohort = Cohort.from_tables(table)
    assert cohort.statics["gender"].tolist()[:2] == [1.0, 0.0]


def test_a_policy_renames_leaves_out_converts_and_moves():
    policy = Policy(
        rename={"pulse": "HR"},
        leave_out=("note",),
        ranges={"HR": (50.0, 60.0)},
        conversions={"K": (Conversion(low=20.0, high=80.0, scale=0.1, reason="tenfold"),)},
        sentinels={"x": (999.0,)},
        statics=("smoker",),
    )
    rows = [
        (1, 0.0, "pulse", 55.0),
        (1, 1.0, "pulse", 80.0),
        (1, 0.0, "note", 1.0),
        (1, 0.0, "K", 41.0),
        (1, 0.0, "x", 999.0),
        (1, 0.0, "smoker", 1.0),
    ]
    cohort = read(rows, policy=policy)
    kept = cohort.observations
    assert dict(zip(kept["variable"], kept["value"], strict=True)) == {"HR": 55.0, "K": 4.1}
    assert cohort.statics["smoker"].tolist() == [1.0]
    expected = {"impossible value": 1, "left out by the policy": 1, "sentinel": 1}
    assert reasons(cohort, "dropped") == expected
    assert cohort.policy == policy
    assert cohort.schema.variable("HR").range == (50.0, 60.0)


def test_most_values_being_impossible_means_another_unit():
    rows = [(n, 0.0, "Glucose", 5.0 + n / 100) for n in range(30)]
    with pytest.raises(SchemaError, match="30 of 30 values of 'Glucose' are impossible in mg/dL"):
        read(rows)
    policy = Policy(
        conversions={"Glucose": (Conversion(low=1.0, high=9.9, scale=18.016),)},
    )
    assert read(rows, policy=policy).n_observations == 30


def test_more_names_than_variables_can_have_means_the_wrong_column():
    rows = [(1, 0.0, f"v{n}", 1.0) for n in range(5001)]
    with pytest.raises(SchemaError, match="more than 5,000 different names"):
        read(rows)


def test_rows_out_of_order_are_sorted_and_counted():
    rows = [(1, 5.0, "HR", 80.0), (1, 3.0, "HR", 81.0), (2, 0.0, "HR", 82.0), (1, 9.0, "HR", 83.0)]
    cohort = read(rows)
    assert cohort.observations["time"].tolist() == [3.0, 5.0, 9.0, 0.0]
    assert cohort.source["out_of_order"]["observations"] == 2


def test_an_interval_that_ends_before_it_starts_is_dropped_and_counted():
    inputs = pd.DataFrame(
        {
            "subject_id": [1, 1, 1],
            "start": [2.0, 2.0, 3.0],
            "end": [1.0, 2.0, np.nan],
            "variable": "drug",
            "value": 1.0,
        }
    )
    cohort = read([(1, 0.0, "HR", 80.0)], inputs=inputs)
    assert len(cohort.inputs) == 2
    assert reasons(cohort, "dropped", "inputs") == {"ends before it starts": 1}
    with pytest.raises(SchemaError, match="row 1, column 'end': ends before it starts"):
        read([(1, 0.0, "HR", 80.0)], inputs=inputs, strict=True)


def test_records_without_and_with_one_observation_are_kept():
    statics = pd.DataFrame({"subject_id": [1, 2, 3], "age": [50.0, 60.0, 70.0]})
    rows = [(2, 0.0, "HR", 80.0), (4, 0.0, "HR", -5.0)]
    cohort = read(rows, statics=statics)
    assert cohort.subjects.tolist() == [1, 2, 3, 4]
    assert np.diff(cohort.arrays().row_start).tolist() == [0, 1, 0, 0]


def test_outcomes_that_contradict_each_other_are_refused():
    outcomes = pd.DataFrame({"subject_id": [1, 1], "died": [0, 1]})
    with pytest.raises(SchemaError, match="row 2, column 'died': another row of the same subject"):
        read([(1, 0.0, "HR", 80.0)], outcomes=outcomes)
    same = pd.DataFrame({"subject_id": [1, 1], "died": [1, 1]})
    cohort = read([(1, 0.0, "HR", 80.0)], outcomes=same)
    assert cohort.outcomes["died"].tolist() == [1.0]
    assert reasons(cohort, "merged", "outcomes") == {"the same row again": 1}


def test_identifiers_and_long_texts_are_no_statics():
    n = 100
    statics = pd.DataFrame(
        {
            "subject_id": np.arange(n),
            "hadm_id": np.arange(n) + 1000,
            "name": [f"text {k}" for k in range(n)],
            "ward": ["north", "south"] * (n // 2),
        }
    )
    cohort = read([(1, 0.0, "HR", 80.0)], statics=statics)
    assert [variable.name for variable in cohort.schema.statics] == ["ward"]
    dropped = reasons(cohort, "dropped", "statics")
    assert dropped == {"identifier": n, "text with more than 64 values": n}


ROW = st.tuples(
    st.sampled_from(["1", "2", "3", "007", "", "x"]),
    st.sampled_from(["0", "1.5", "-2", "nan", "", "later", "1e400", "3"]),
    st.sampled_from(["HR", "pH", "Temp", "mine", "Age", "RecordID", "", "=SUM(A1)", "Na"]),
    st.sampled_from(
        ["80", "-1", "735", "98.6", "nan", "inf", "", "<5", "=1+1", "n/a", "7.4", "1_0"]
    ),
)


@FEW
@given(rows=st.lists(ROW, min_size=1, max_size=30), data=st.data())
def test_every_row_is_accounted_for_and_their_order_means_nothing(rows, data):
    numbers = [("1", "0", "HR", "80")] * 31  # so that the value column is no text column
    rows = [*numbers, *rows]
    cohort = read(rows)
    ledger = cohort.ledger
    assert ledger.balanced
    assert ledger.rows("observations", "read") == len(rows)
    assert ledger.rows("observations", "kept") == cohort.n_observations
    named = {row[0] for row in rows} - {""}
    assert {str(subject) for subject in cohort.subjects} == named
    assert np.isfinite(cohort.arrays().value).all()
    shuffled = read(data.draw(st.permutations(rows)))
    assert shuffled.fingerprint() == cohort.fingerprint()
    assert shuffled.ledger == ledger
    files = ("observations", "inputs", "subjects")
    for name in files:
        one, other = (c._store.folder / f"{name}.parquet" for c in (cohort, shuffled))
        assert one.read_bytes() == other.read_bytes()


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(-1e6, 1e6, allow_nan=False)), min_size=1, max_size=60
    )
)
def test_merging_agrees_with_a_grouped_mean(rows):
    frame = pd.DataFrame(rows, columns=["key", "value"]).sort_values(["key", "value"])
    keys, mean, first = merge_repeated([frame["key"].to_numpy()], frame["value"].to_numpy())
    expected = frame.groupby("key")["value"].mean()
    assert keys[0].tolist() == expected.index.tolist()
    np.testing.assert_allclose(mean, expected.to_numpy(), rtol=1e-9, atol=1e-9)
    assert len(first) == len(mean)
