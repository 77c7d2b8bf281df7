import numpy as np
import pandas as pd
import pytest

from clinode.cohort import Classify, Cohort, Forecast, Preprocessor, task_from_dict
from clinode.cohort.task import instance_table
from clinode.errors import ArgumentError, SchemaError

OBSERVATIONS = pd.DataFrame(
    {
        "subject_id": [1, 1, 2, 3],
        "time": [0.5, 30.0, 12.0, 40.0],
        "variable": ["HR", "HR", "HR", "MAP"],
        "value": [80.0, 90.0, 100.0, 70.0],
    }
)


def cohort_with(outcomes: pd.DataFrame | None) -> Cohort:
    return Cohort.from_tables(OBSERVATIONS, outcomes=outcomes)


def test_the_prediction_time_of_the_outcomes_goes_before_that_of_the_task():
    outcomes = pd.DataFrame(
        {"subject_id": [2, 1, 1], "prediction_time": [10.0, 20.0, 5.0], "died": [0, 1, 0]}
    )
    table = instance_table(cohort_with(outcomes), Classify("died", at=33.0).default_time(40.0))
    np.testing.assert_array_equal(table.subject_index, [0, 0, 1, 2])
    np.testing.assert_array_equal(table.prediction_time, [5.0, 20.0, 10.0, 33.0])


def test_without_a_named_time_the_end_of_the_training_window_is_taken_and_kept():
    cohort = cohort_with(pd.DataFrame({"subject_id": [1, 2, 3], "died": [0, 1, 1]}))
    schema = Preprocessor.fit(cohort, Classify("died"))
    shorter = Cohort.from_tables(OBSERVATIONS.query("time < 20"))
    time = Classify("died").instances(shorter, schema.prediction_time).prediction_time
    np.testing.assert_array_equal(time, [40.0, 40.0])


def test_a_forecast_starts_its_horizon_before_the_last_training_observation():
    schema = Preprocessor.fit(cohort_with(None), Forecast(horizon=16.0))
    assert schema.prediction_time == 24.0
    assert schema.window == 24.0


def test_targets_follow_the_instances_and_unknown_ones_are_missing():
    outcomes = pd.DataFrame(
        {"subject_id": [1, 3], "died": [0, 1], "stay": [np.nan, 4.0]}  # nothing about subject 2
    )
    cohort = cohort_with(outcomes)
    task = Classify("died", auxiliary=("stay",))
    targets = task.targets(cohort, instance_table(cohort, 40.0).outcome_row)
    np.testing.assert_array_equal(targets, [[0, np.nan], [np.nan, np.nan], [1, 4.0]])


def test_an_outcome_that_is_not_binary_is_refused_with_a_count():
    cohort = cohort_with(pd.DataFrame({"subject_id": [1, 2, 3], "stay": [3.0, 1.0, 2.5]}))
    with pytest.raises(SchemaError, match="'stay': expected 0, 1 or nothing, 2 rows"):
        Classify("stay").targets(cohort, np.arange(3))


def test_a_missing_outcome_column_is_named_beside_those_there_are():
    cohort = cohort_with(pd.DataFrame({"subject_id": [1, 2], "died": [0, 1]}))
    with pytest.raises(SchemaError, match="no outcome column 'dead'; there are: died"):
        Classify("dead").targets(cohort, np.arange(2))


@pytest.mark.parametrize(
    "task",
    [Classify("died", at=24.0, auxiliary=("stay", "score")), Forecast(24.0), Forecast(6, 12)],
)
def test_a_task_survives_being_written_down(task):
    assert task_from_dict(task.to_dict()) == task


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Forecast(0.0), "horizon must be positive"),
        (lambda: Classify(""), "name of the outcome is empty"),
        (lambda: Classify("died", at=float("nan")), "finite number of hours"),
        (lambda: Classify("died", auxiliary=("died",)), "auxiliary to itself"),
        (lambda: task_from_dict({"kind": "guess"}), "unknown task 'guess'"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
