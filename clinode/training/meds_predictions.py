"""Risks in the prediction schema of MEDS, as its evaluation tools read them.

They know a whole number for each subject and a date for each prediction. Stays that were cut from a
MEDS folder or from MIMIC-IV have both: the person, and the hours since the index event added to its
date. Elsewhere ids are numbered and time zero is set as `clinode convert` does it, so that the
predictions belong to the folder that it writes.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from clinode.cohort import Classify, Cohort
from clinode.cohort.meds_layout import EPOCH, epoch_microseconds, microseconds
from clinode.cohort.shard import whole_number
from clinode.errors import ArgumentError, SchemaError

if TYPE_CHECKING:
    from clinode.training.run import Run

DATED = "subject_id is the person, and times are dates of the record"
NUMBERED = (
    f"times count from {EPOCH:%Y-%m-%d}, where clinode convert puts time zero, and ids that are no "
    "whole numbers are numbered as it numbers them"
)


def meds_predictions(
    run: "Run", cohort: Cohort, *, label: str | None = None, threshold: float | None = None
) -> tuple[pa.Table, str]:
    """What a run says of a cohort, in the prediction schema.

    Args:
        run: It must classify.
        cohort: Its variables must be known to the run.
        label: Which of several outcomes; the first if left out.
        threshold: From this probability on the predicted value is true; without one there is none.

    Returns:
        subject_id, prediction_time, boolean_value (the outcome, where that of every row is known),
        predicted_boolean_value (with a threshold), predicted_boolean_probability, sorted; and what
        ids and times mean, in words.

    Raises:
        ArgumentError: The run forecasts, it has no such label, or the threshold is no probability.
        SchemaError: Two subjects fall on one number, or a time cannot be told as a date.
    """
    task = run.task
    if not isinstance(task, Classify):
        raise ArgumentError(
            "the prediction schema of MEDS holds risks, and this run does not classify",
            fix="write its answers as a table",
        )
    if label is not None and label not in task.labels:
        raise ArgumentError(
            f"the run has no label {label!r}", fix=f"choose among {', '.join(task.labels)}"
        )
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"a threshold lies between 0 and 1, got {threshold}")
    chosen = task.labels[0] if label is None else label
    told = run.predict(cohort)
    column = "probability" if chosen == task.labels[0] else f"probability_{chosen}"
    probability = told[column].to_numpy(dtype=np.float64)
    subject, time, words = _keys(cohort, told)
    columns = {
        "subject_id": pa.array(subject, pa.int64()),
        "prediction_time": pa.array(time, pa.timestamp("us")),
    }
    outcome = _outcome(run, task, cohort, chosen)
    if outcome is not None and not np.isnan(outcome).any():
        columns["boolean_value"] = pa.array(outcome == 1.0)
    if threshold is not None:
        columns["predicted_boolean_value"] = pa.array(probability >= threshold)
    columns["predicted_boolean_probability"] = pa.array(probability, pa.float64())
    order = np.lexsort([time, subject])
    return pa.table(columns).take(pa.array(order)), words


def _keys(cohort: Cohort, told: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, str]:
    """Whole number and microseconds since 1970 of each prediction."""
    hours = told["prediction_time"].to_numpy(dtype=np.float64)
    ids = told["subject_id"].to_numpy()
    index = cohort.index_times
    if index is not None:
        rows = pd.Index(index["subject_id"]).get_indexer(pd.Index(ids))
        persons = [whole_number(person) for person in index["person_id"].tolist()]
        start = index["index_time"].to_numpy(dtype="datetime64[us]").astype(np.int64)
        since = microseconds(hours) - epoch_microseconds()
        return np.array(persons, dtype=np.int64)[rows], start[rows] + since, DATED
    known = {subject: whole_number(subject) for subject in set(ids.tolist())}
    if len(set(known.values())) < len(known):
        raise SchemaError(
            "two subjects have ids that fall on one whole number",
            where="subjects",
            fix="number the subjects",
        )
    numbers = np.array([known[subject] for subject in ids.tolist()], dtype=np.int64)
    return numbers, microseconds(hours), NUMBERED


def _outcome(run: "Run", task: Classify, cohort: Cohort, label: str) -> np.ndarray | None:
    """The outcome of each prediction; None where the cohort does not speak of it."""
    if not set(task.outcomes) <= set(cohort.outcomes.columns):
        return None
    target = run.records(cohort, with_targets=True).target
    return None if target is None else target[:, task.labels.index(label)]
