"""What the baselines read of a cohort: observations up to each prediction time, and after it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from clinode.cohort import Cohort, PackedRecords
from clinode.evaluation import Histories


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Observations within the horizon of a forecast, one row each, by record, time and variable.

    Args:
        record: Position of the record.
        time: Hours since the subject's time zero.
        variable: Position in the schema's variables.
        value: Standardised.
    """

    record: Int[np.ndarray, " query"]
    time: Float[np.ndarray, " query"]
    variable: Int[np.ndarray, " query"]
    value: Float[np.ndarray, " query"]


def read_histories(
    cohort: Cohort, records: PackedRecords, *, standardised: bool = False
) -> Histories:
    """What was measured of each record at or before its prediction time, and not hidden.

    Args:
        cohort: The cohort that `records` was built from.
        records: Whose instances and variables are taken.
        standardised: Values on the schema's scale instead of the original one.
    """
    known = _known_observations(cohort, records)
    begin, stop = known.first(records), known.stop(records, records.prediction_time)
    rows = _ranges(begin, stop)
    record = np.repeat(np.arange(len(records)), stop - begin)[~known.is_hidden[rows]]
    rows = rows[~known.is_hidden[rows]]
    return Histories(
        row_start=np.searchsorted(record, np.arange(len(records) + 1)),
        time=known.time[rows],
        variable=known.variable[rows],
        value=known.standardised[rows] if standardised else known.value[rows],
        static=records.schema.encode_statics(cohort.statics, len(cohort.subjects))[
            records.subject_index
        ],
        n_variables=len(records.schema.variables),
    )


def read_queries(cohort: Cohort, records: PackedRecords, horizon: float) -> Queries:
    """What was measured of each record after its prediction time and within the horizon (hours)."""
    known = _known_observations(cohort, records)
    begin = known.stop(records, records.prediction_time)
    stop = known.stop(records, records.prediction_time + horizon)
    rows = _ranges(begin, stop)
    return Queries(
        record=np.repeat(np.arange(len(records)), stop - begin),
        time=known.time[rows],
        variable=known.variable[rows],
        value=known.standardised[rows],
    )


def read_hidden(cohort: Cohort, records: PackedRecords) -> Queries:
    """What was measured of each record by its prediction time, and is hidden by the task."""
    known = _known_observations(cohort, records)
    begin, stop = known.first(records), known.stop(records, records.prediction_time)
    rows = _ranges(begin, stop)
    record = np.repeat(np.arange(len(records)), stop - begin)[known.is_hidden[rows]]
    rows = rows[known.is_hidden[rows]]
    return Queries(
        record=record,
        time=known.time[rows],
        variable=known.variable[rows],
        value=known.standardised[rows],
    )


@dataclass(frozen=True)
class _Known:
    """Observations of the schema's variables, by subject, time and variable."""

    offset: np.ndarray  # (subject + 1,)
    time: np.ndarray
    variable: np.ndarray
    value: np.ndarray
    standardised: np.ndarray
    is_hidden: np.ndarray

    def first(self, records: PackedRecords) -> np.ndarray:
        return self.offset[records.subject_index]

    def stop(self, records: PackedRecords, time: np.ndarray) -> np.ndarray:
        """Behind the last observation of each record at or before its time."""
        begin, end = self.first(records), self.offset[records.subject_index + 1]
        return np.array(
            [
                low + np.searchsorted(self.time[low:high], asked, side="right")
                for low, high, asked in zip(begin, end, time, strict=True)
            ],
            dtype=np.int64,
        )


def _known_observations(cohort: Cohort, records: PackedRecords) -> _Known:
    arrays, schema = cohort.arrays(), records.schema
    names = [variable.name for variable in cohort.schema.variables]
    position = pd.Index(schema.variables).get_indexer(pd.Index(names)).astype(np.int64)
    variable = position[arrays.variable_index]
    keep = variable >= 0
    variable, value = variable[keep], arrays.value[keep].astype(np.float64)
    subject, time = arrays.subject_index[keep].astype(np.int64), arrays.time[keep]
    hidden = records.task.hidden(cohort.subjects, schema.variables, subject, variable, time)
    return _Known(
        offset=np.searchsorted(arrays.subject_index[keep], np.arange(len(cohort.subjects) + 1)),
        time=arrays.time[keep].astype(np.float64),
        variable=variable,
        value=value,
        standardised=schema.standardize(variable, value),
        is_hidden=np.zeros(len(value), dtype=bool) if hidden is None else hidden,
    )


def _ranges(begin: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """begin[0] .. stop[0] - 1, then those of begin[1], and so on."""
    count = stop - begin
    shift = np.repeat(begin - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    return np.arange(int(count.sum()), dtype=np.int64) + shift
