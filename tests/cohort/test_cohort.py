import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Cohort, CohortSchema, Variable, read_cohort
from clinode.errors import ArgumentError, CheckpointError, OutputError, SchemaError


def observations(rows):
    return pd.DataFrame(rows, columns=["subject_id", "time", "variable", "value"])


OBSERVATIONS = observations(
    [
        (7, 2.0, "K", 4.0),
        (7, 0.5, "HR", 80.0),
        (3, 1.0, "HR", 90.0),
        (12, -1.0, "HR", 70.0),
        (7, 0.5, "K", 3.5),
    ]
)
STATICS = pd.DataFrame(
    {"subject_id": [12, 5, 7], "age": [70.0, 40.0, np.nan], "sex": ["Male", "Female", None]}
)
INPUTS = pd.DataFrame(
    {
        "subject_id": [7, 7],
        "start": [1.0, 0.25],
        "end": [np.nan, 4.0],
        "variable": ["insulin", "norepinephrine"],
        "value": [2.0, 0.1],
    }
)
OUTCOMES = pd.DataFrame({"subject_id": [7, 3], "died": [1, 0]})


@pytest.fixture(scope="module")
def cohort():
    return Cohort.from_tables(OBSERVATIONS, STATICS, INPUTS, OUTCOMES)


def test_subjects_of_all_tables_are_in_the_cohort_in_numeric_order(cohort):
    assert cohort.subjects.dtype == np.int64
    assert cohort.subjects.tolist() == [3, 5, 7, 12]
    assert len(cohort) == 4


def test_observations_are_sorted_by_subject_time_and_variable(cohort):
    expected = observations(
        [
            (3, 1.0, "HR", 90.0),
            (7, 0.5, "HR", 80.0),
            (7, 0.5, "K", 3.5),
            (7, 2.0, "K", 4.0),
            (12, -1.0, "HR", 70.0),
        ]
    )
    expected["variable"] = pd.Categorical(expected["variable"], categories=["HR", "K"])
    pd.testing.assert_frame_equal(cohort.observations, expected)


def test_arrays_say_what_the_frames_say(cohort):
    arrays = cohort.arrays()
    names = np.array([variable.name for variable in cohort.schema.variables])
    frame = cohort.observations
    assert cohort.subjects[arrays.subject_index].tolist() == frame["subject_id"].tolist()
    assert names[arrays.variable_index].tolist() == frame["variable"].tolist()
    assert arrays.time.tolist() == frame["time"].tolist()
    assert arrays.value.tolist() == frame["value"].tolist()
    assert arrays.row_start.tolist() == [0, 1, 1, 4, 5]
    given = cohort.inputs
    assert arrays.input_start.tolist() == given["start"].tolist() == [0.25, 1.0]
    assert np.isnan(arrays.input_end).tolist() == [False, True]
    assert arrays.input_value.tolist() == given["value"].tolist() == [0.1, 2.0]
    assert given["variable"].tolist() == ["norepinephrine", "insulin"]


def test_arrays_have_the_stated_types_and_cannot_be_written_to(cohort):
    arrays = cohort.arrays()
    kinds = [arrays.subject_index.dtype, arrays.time.dtype, arrays.variable_index.dtype]
    assert kinds == [np.int32, np.float64, np.int16]
    with pytest.raises(ValueError, match="read-only"):
        arrays.value[0] = 0.0


def test_statics_have_one_row_a_subject_in_the_order_of_the_subjects(cohort):
    statics = cohort.statics
    assert statics["subject_id"].tolist() == [3, 5, 7, 12]
    np.testing.assert_array_equal(statics["age"], [np.nan, 40.0, np.nan, 70.0])
    assert [None if pd.isna(level) else level for level in statics["sex"]] == [
        None,
        "Female",
        None,
        "Male",
    ]
    assert cohort.schema.variable("sex").levels == ("Female", "Male")


def test_frames_handed_out_are_the_callers_to_change(cohort):
    frame = cohort.statics
    frame["age"] = 0.0
    assert cohort.statics["age"].iloc[1] == 40.0


def test_selecting_subjects_restricts_every_table(cohort):
    part = cohort.select([12, 3])
    assert part.subjects.tolist() == [3, 12]
    assert part.observations["subject_id"].tolist() == [3, 12]
    assert part.statics["subject_id"].tolist() == [3, 12]
    assert part.outcomes["subject_id"].tolist() == [3]
    assert len(part.inputs) == 0
    assert part.n_observations == 2
    assert part.arrays().row_start.tolist() == [0, 1, 2]
    assert part.schema == cohort.schema


def test_a_selection_of_a_selection_is_the_selection(cohort):
    twice = cohort.select([3, 7, 12]).select([7])
    pd.testing.assert_frame_equal(twice.observations, cohort.select([7]).observations)
    pd.testing.assert_frame_equal(cohort.take([2]).observations, cohort.select([7]).observations)


def test_no_subject_is_a_cohort_too(cohort):
    nobody = cohort.take([])
    assert len(nobody) == 0
    assert len(nobody.observations) == len(nobody.statics) == nobody.n_observations == 0
    assert nobody.arrays().row_start.tolist() == [0]


def test_unknown_and_repeated_subjects_are_refused_without_naming_them(cohort):
    with pytest.raises(ArgumentError, match="1 of these subjects") as caught:
        cohort.select([3, 424242])
    assert "424242" not in str(caught.value)
    with pytest.raises(ArgumentError, match="named twice"):
        cohort.take([1, 1])
    with pytest.raises(ArgumentError, match=r"must lie in 0\.\.3"):
        cohort.take([4])


@pytest.mark.parametrize("subjects", [None, [7, 12]])
def test_a_saved_cohort_opens_again_as_it_was(cohort, tmp_path, subjects):
    before = cohort if subjects is None else cohort.select(subjects)
    before.save(tmp_path / "saved")
    after = read_cohort(tmp_path / "saved")
    assert after.schema == before.schema
    assert after.ledger == before.ledger
    assert after.policy == before.policy
    assert after.subjects.tolist() == before.subjects.tolist()
    for table in ("observations", "statics", "inputs", "outcomes"):
        pd.testing.assert_frame_equal(getattr(after, table), getattr(before, table))
    assert after.fingerprint() == before.fingerprint()


def test_a_saved_cohort_that_was_altered_is_refused_by_file(cohort, tmp_path):
    cohort.save(tmp_path / "saved")
    path = tmp_path / "saved" / "observations.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="altered") as caught:
        read_cohort(tmp_path / "saved")
    assert caught.value.where == "saved/observations.parquet"


def test_a_cohort_is_not_saved_over_something_else(cohort, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        cohort.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_temporary_folder_goes_with_the_last_cohort_that_needs_it():
    whole = Cohort.from_tables(OBSERVATIONS)
    folder = whole._store.folder
    part = whole.take([0])
    del whole
    assert len(part.observations) == 1
    del part
    assert not folder.exists()


def test_ids_are_texts_when_one_of_them_is_not_a_plain_whole_number():
    table = pd.DataFrame(
        {"subject_id": ["123", "00123", "7"], "time": 1.0, "variable": "HR", "value": 80.0}
    )
    cohort = Cohort.from_tables(table)
    assert cohort.subjects.tolist() == ["00123", "123", "7"]
    assert cohort.ledger.rows("observations", "merged") == 0


def test_whole_numbers_written_as_text_are_numbers_in_every_table():
    table = OBSERVATIONS.assign(subject_id=OBSERVATIONS["subject_id"].astype(str))
    cohort = Cohort.from_tables(table, STATICS)
    assert cohort.subjects.tolist() == [3, 5, 7, 12]
    assert cohort.statics["age"].tolist()[1:2] == [40.0]


def test_an_id_beyond_64_bits_stays_text():
    table = observations([("9" * 30, 0.0, "HR", 80.0), ("2", 0.0, "HR", 80.0)])
    assert Cohort.from_tables(table).subjects.tolist() == ["2", "9" * 30]


def test_variables_of_a_given_schema_stay_even_without_a_row():
    schema = CohortSchema((Variable(name="Z", unit="m"), Variable(name="HR", range=(0.0, 75.0))))
    cohort = Cohort.from_tables(OBSERVATIONS, schema=schema)
    assert [variable.name for variable in cohort.schema.variables] == ["HR", "K", "Z"]
    assert cohort.schema.variable("Z").unit == "m"
    assert cohort.observations.query("variable == 'HR'")["value"].tolist() == [70.0]


def test_outcomes_with_a_prediction_time_are_sorted_by_subject_and_time():
    outcomes = pd.DataFrame(
        {"subject_id": [7, 3, 7], "prediction_time": [9.0, 2.0, 4.0], "died": [1, 0, 0]}
    )
    cohort = Cohort.from_tables(OBSERVATIONS, outcomes=outcomes)
    assert cohort.outcomes["subject_id"].tolist() == [3, 7, 7]
    assert cohort.outcomes["prediction_time"].tolist() == [2.0, 4.0, 9.0]
    assert cohort.outcomes["died"].tolist() == [0.0, 0.0, 1.0]


def test_planted_truth_travels_with_the_cohort(tmp_path):
    planted = pd.DataFrame(
        {
            "subject_id": [7, 3],
            "kind": ["value", "timing"],
            "time": [0.5, 1.0],
            "variable": ["HR", "HR"],
            "weight": [1.0, -2.0],
        }
    )
    cohort = Cohort.from_tables(OBSERVATIONS, planted=planted)
    assert cohort.planted["weight"].tolist() == [-2.0, 1.0]
    assert cohort.select([7]).planted["kind"].tolist() == ["value"]
    cohort.select([7]).save(tmp_path / "saved")
    assert read_cohort(tmp_path / "saved").planted["weight"].tolist() == [1.0]
    with pytest.raises(SchemaError, match="1 rows name no subject"):
        Cohort.from_tables(OBSERVATIONS, planted=planted.assign(subject_id=[7, 99]))


def test_a_cohort_says_in_one_line_what_it_holds(cohort):
    words = "Cohort(4 subjects, 5 observations of 2 variables, 2 statics, 2 inputs, 1 outcomes)"
    assert repr(cohort) == words
