import json

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.cohort.cohort import Cohort
from clinode.cohort.preprocess import Preprocessor
from clinode.cohort.records import PackedRecords
from clinode.cohort.survive import Survive
from clinode.cohort.tasks import task_from_dict
from clinode.errors import ArgumentError, SchemaError


def make_cohort(**columns) -> Cohort:
    """Three variables-free subjects seen at hours 0, 5 and 10, with the outcome columns given."""
    n = len(next(iter(columns.values())))
    subjects = np.arange(1, n + 1)
    observations = pd.DataFrame(
        {
            "subject_id": np.repeat(subjects, 3),
            "time": np.tile([0.0, 5.0, 10.0], n),
            "variable": "HR",
            "value": 60.0 + np.arange(3 * n),
        }
    )
    outcomes = pd.DataFrame({"subject_id": subjects, **columns})
    return Cohort.from_tables(observations, outcomes=outcomes)


FOLLOWED = {
    "end": [4.0, 20.0, 30.0, 12.0, 9.0],
    "dead": [1.0, 1.0, 0.0, 1.0, np.nan],
    "cause": [1.0, 2.0, np.nan, 1.0, np.nan],
    "entry": [np.nan, 8.0, np.nan, 7.0, np.nan],
}
FOLLOWED["end"][4] = np.nan  # nothing known of the last one


def test_a_subject_counts_at_each_landmark_that_it_reached():
    task = Survive("end", "dead", "cause", "entry", landmark=(6.0, 0.0))
    cohort = make_cohort(**FOLLOWED)
    schema = Preprocessor.fit(cohort, task)
    records = PackedRecords.build(cohort, schema, task)
    assert records.prediction_time.tolist() == [0.0, 6.0] * 5
    nothing = [np.nan] * 3
    expected = [
        [0, 4, 1],
        nothing,  # dead by then
        [8, 20, 2],
        [2, 14, 2],
        [0, 30, 0],
        [0, 24, 0],
        [7, 12, 1],
        [1, 6, 1],
        nothing,
        nothing,
    ]
    np.testing.assert_array_equal(records.target, expected)
    assert records.trainable.tolist() == [0, 2, 3, 4, 5, 6, 7]
    batch = records.batch(np.arange(10))
    place = batch.subject.numpy()
    np.testing.assert_array_equal(batch.event.numpy(), np.array(expected)[place, 1])
    np.testing.assert_array_equal(batch.entry.numpy(), np.array(expected)[place, 0])
    np.testing.assert_array_equal(
        batch.cause.numpy(), np.nan_to_num(np.array(expected)[place, 2], nan=-1)
    )
    assert batch.event.dtype == batch.entry.dtype == torch.float64


def test_who_is_asked_does_not_depend_on_what_became_of_them():
    task = Survive("end", "dead", landmark=(0.0, 6.0))
    cohort = make_cohort(end=FOLLOWED["end"], dead=FOLLOWED["dead"])
    schema = Preprocessor.fit(cohort, task)
    records = PackedRecords.build(cohort, schema, task, with_targets=False)
    assert len(records) == 10
    assert records.target is None


def test_the_outcomes_name_the_landmarks_where_the_task_does_not():
    cohort = make_cohort(prediction_time=[1.0, 2.0], end=[5.0, 7.0], dead=[1.0, 0.0])
    task = Survive("end", "dead")
    records = PackedRecords.build(cohort, Preprocessor.fit(cohort, task), task)
    assert records.prediction_time.tolist() == [1.0, 2.0]
    assert records.target[:, 1].tolist() == [4.0, 5.0]


def test_one_column_may_tell_event_and_cause():
    cohort = make_cohort(end=[5.0, 7.0, 9.0], status=[1.0, 0.0, 2.0])
    task = Survive("end", "status", "status")
    schema = Preprocessor.fit(cohort, task)
    assert schema.intervals.n_causes == 2
    assert PackedRecords.build(cohort, schema, task).target[:, 2].tolist() == [1.0, 0.0, 2.0]
    assert Preprocessor.from_dict(schema.to_dict()) == schema


GOOD = {"end": [5.0, 7.0, 9.0], "dead": [1.0, 1.0, 0.0], "cause": [1.0, 2.0, np.nan]}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"end": [5.0, -7.0, 9.0]}, r"column 'end': a negative time in 1 row \(2\)"),
        (
            {"dead": [1.0, 2.0, 3.0]},
            r"column 'dead': something else than 0 and 1 in 2 rows \(2, 3\)",
        ),
        (
            {"cause": [1.0, 0.0, np.nan]},
            r"column 'cause': a code that is no whole number from 1 on in 1 row \(2\)",
        ),
        (
            {"cause": [1.0, 1.5, np.nan]},
            r"column 'cause': a code that is no whole number from 1 on in 1 row \(2\)",
        ),
        (
            {"cause": [1.0, np.nan, np.nan]},
            r"column 'cause': an event without a cause in 1 row \(2\)",
        ),
        ({"cause": [1.0, 3.0, np.nan]}, r"causes up to 3, but no event of cause 2"),
        (
            {"dead": [1.0, 1.0, np.nan]},
            r"column 'end': only one of 'end' and 'dead' in 1 row \(3\)",
        ),
        ({"dead": [0.0, 0.0, 0.0]}, r"no subject of the training part has an event"),
        (
            {"entry": [0.0, 8.0, 9.5]},
            r"column 'end': a time before that of 'entry' in 2 rows \(2, 3\)",
        ),
        ({"entry": [0.0, -8.0, 1.0]}, r"column 'entry': a negative time in 1 row \(2\)"),
    ],
)
def test_an_impossible_follow_up_is_refused_by_row(changed, words):
    task = Survive("end", "dead", "cause", "entry" if "entry" in changed else None)
    with pytest.raises(SchemaError, match=words):
        Preprocessor.fit(make_cohort(**{**GOOD, **changed}), task)


def test_a_refusal_names_no_more_than_five_rows_and_no_value():
    cohort = make_cohort(end=[-987.25] * 9, dead=[1.0] * 9)
    with pytest.raises(SchemaError, match=r"9 rows \(1, 2, 3, 4, 5 \.\.\.\)") as refusal:
        Preprocessor.fit(cohort, Survive("end", "dead"))
    assert "987" not in str(refusal.value)


def test_a_cause_that_training_never_met_is_refused():
    task = Survive("end", "dead", "cause")
    schema = Preprocessor.fit(make_cohort(**GOOD), task)
    later = PackedRecords.build(make_cohort(**{**GOOD, "cause": [1.0, 3.0, np.nan]}), schema, task)
    with pytest.raises(SchemaError, match=r"'cause': 1 records have a cause above 2"):
        task.check_causes(later.target, schema.intervals)


def test_repeated_subjects_and_named_landmarks_do_not_go_together():
    cohort = make_cohort(end=[5.0, 7.0], dead=[1.0, 0.0])
    rows = pd.DataFrame(
        {"subject_id": [1, 1], "prediction_time": [0.0, 1.0], "end": 5.0, "dead": 1.0}
    )
    with pytest.raises(SchemaError, match=r"1 row \(2\) of the outcomes repeat a subject"):
        Preprocessor.fit(cohort.with_outcomes(rows), Survive("end", "dead", landmark=2.0))


def test_a_task_that_makes_no_sense_is_refused():
    with pytest.raises(ArgumentError, match="stands for two things"):
        Survive("end", "end")
    with pytest.raises(ArgumentError, match="landmarks must be finite"):
        Survive("end", "dead", landmark=(1.0, np.inf))
    with pytest.raises(SchemaError, match="no outcome column 'gone'"):
        Preprocessor.fit(make_cohort(**GOOD), Survive("gone", "dead"))


@pytest.mark.parametrize("landmark", [None, 2.0, (1.0, 3.0)])
def test_a_task_survives_json(landmark):
    task = Survive("end", "dead", "cause", "entry", landmark)
    assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task
