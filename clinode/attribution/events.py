"""Measured values, treatments and statics as a cohort tells them, with the attribution of each.

The entries of `RecordRows` are standardised and clipped; here stand the values of the cohort, in
its units. Both are in one order (record, time, variable of the training schema), so the k-th entry
of a record is the k-th event of it that the model reads.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinode.attribution.rows import Entries, RecordRows
from clinode.cohort import Cohort, PackedRecords
from clinode.errors import ClinodeError


@dataclass(frozen=True)
class Events:
    """Events of some records, sorted as entries are; those the model never met come last and get 0.

    Args:
        record: Which of the explained records, 0, 1, ...
        time: Hours.
        name: Of the variable or input.
        value: In the cohort's units.
        is_read: Whether the model reads it: it was measured in the training part.
        attribution: Filled by `receive`.
    """

    record: np.ndarray
    time: np.ndarray
    name: np.ndarray
    value: np.ndarray
    is_read: np.ndarray
    attribution: np.ndarray

    def receive(self, values: np.ndarray, entries: Entries, chosen: np.ndarray) -> None:
        """Take the attributions (row, width) of some records; row k is record `chosen[k]`.

        Raises:
            ClinodeError: The cohort and the batch disagree on how many events a record has.
        """
        read = self.record[self.is_read]
        told = np.searchsorted(read, chosen, side="right") - np.searchsorted(read, chosen)
        if not np.array_equal(told, entries.counts(len(chosen))):
            raise ClinodeError(
                "the events of a record are not those that the model read",
                fix="this is a fault of clinode; please report it",
            )
        number = np.arange(len(entries.row)) - np.searchsorted(entries.row, entries.row)
        place = np.searchsorted(read, chosen[entries.row]) + number
        self.attribution[place] = values[entries.row, entries.column]

    def table(self, kind: str) -> pd.DataFrame:
        """As columns of the attribution table, with `record`."""
        return pd.DataFrame(
            {
                "record": self.record,
                "kind": kind,
                "time": self.time,
                "variable": self.name,
                "value": self.value,
                "attribution": self.attribution,
            }
        )


@dataclass(frozen=True)
class Statics:
    """Statics of some records: of each, its columns of a row, who has it, and its attribution."""

    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    value: tuple[pd.Series, ...]
    known: np.ndarray  # (record, static)
    attribution: np.ndarray  # (record, static)

    def receive(self, values: np.ndarray, rows: RecordRows, chosen: np.ndarray) -> None:
        """Take the attributions of some records: levels of a categorical are one static."""
        for static, columns in enumerate(self.columns):
            self.known[chosen, static] = rows.known_statics[:, columns].any(axis=1)
            self.attribution[chosen, static] = values[:, columns].sum(axis=1)

    def table(self) -> pd.DataFrame:
        """As columns of the attribution table, with `record`; what is missing has no row."""
        parts = []
        for static, name in enumerate(self.names):
            record = np.flatnonzero(self.known[:, static])
            parts.append(
                pd.DataFrame(
                    {
                        "record": record,
                        "kind": "static",
                        "time": np.nan,
                        "variable": name,
                        "value": self.value[static].iloc[record].to_numpy(),
                        "attribution": self.attribution[record, static],
                    }
                )
            )
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def measured_events(cohort: Cohort, records: PackedRecords, positions: np.ndarray) -> Events:
    """Every measured value at or before the prediction time of these records."""
    arrays = cohort.arrays()
    names = np.array([variable.name for variable in cohort.schema.variables], dtype=object)
    return _events(
        arrays.subject_index,
        arrays.time,
        names[arrays.variable_index] if len(names) else np.empty(0, dtype=object),
        arrays.value,
        records.schema.variables,
        records,
        positions,
    )


def given_events(cohort: Cohort, records: PackedRecords, positions: np.ndarray) -> Events:
    """Every treatment begun at or before the prediction time of these records."""
    arrays = cohort.arrays()
    names = np.array([variable.name for variable in cohort.schema.inputs], dtype=object)
    return _events(
        arrays.input_subject_index,
        arrays.input_start,
        names[arrays.input_variable_index] if len(names) else np.empty(0, dtype=object),
        arrays.input_value,
        records.schema.inputs,
        records,
        positions,
    )


def known_statics(cohort: Cohort, records: PackedRecords, positions: np.ndarray) -> Statics:
    """The statics that the model reads; which subject has which is told by `receive`."""
    held = [column.name for column in records.schema.statics]
    present = set() if cohort.statics is None else set(cohort.statics.columns)
    names = tuple(name for name in dict.fromkeys(held) if name in present)
    subject = records.subject_index[positions]
    shape = (len(positions), len(names))
    return Statics(
        names=names,
        columns=tuple(np.flatnonzero(np.array(held, dtype=object) == name) for name in names),
        value=tuple(cohort.statics[name].iloc[subject] for name in names),
        known=np.zeros(shape, dtype=bool),
        attribution=np.zeros(shape),
    )


def _events(
    subject: np.ndarray,
    time: np.ndarray,
    name: np.ndarray,
    value: np.ndarray,
    read: tuple[str, ...],
    records: PackedRecords,
    positions: np.ndarray,
) -> Events:
    record_of = np.full(len(records.subjects), -1)
    record_of[records.subject_index[positions]] = np.arange(len(positions))
    record = record_of[subject]
    keep = record >= 0
    keep[keep] = time[keep] <= records.prediction_time[positions][record[keep]]
    record, time, name, value = record[keep], time[keep], name[keep], value[keep]
    variable = pd.Index(read).get_indexer(pd.Index(name))
    order = np.lexsort((variable, time, record, variable < 0))
    return Events(
        record=record[order],
        time=time[order],
        name=name[order],
        value=value[order],
        is_read=variable[order] >= 0,
        attribution=np.zeros(len(order)),
    )
