"""All instances of a cohort, standardised once, as flat arrays from which batches are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clinode.cohort.batch import (
    IrregularBatch,
    Treatments,
    observation_clocks,
)
from clinode.cohort.cohort import Cohort
from clinode.cohort.preprocess import Preprocessor
from clinode.cohort.task import InstanceTable, Task
from clinode.errors import ArgumentError


class PackedRecords:
    """All instances of a cohort for a task, standardised, as flat arrays; made by `build`.

    Rows of a subject are stored once, sorted by time; an instance is a prefix of them. With
    targets, a forecast also keeps the rows after the prediction time, as queries and targets only.
    """

    def __init__(self, *, schema: Preprocessor, task: Task, arrays: dict[str, Any]):
        self.schema = schema
        self.task = task
        self.subjects = arrays["subjects"]
        self.subject_index = arrays["subject_index"]  # (instance,)
        self.prediction_time = arrays["prediction_time"]  # (instance,)
        self.target = arrays["target"]  # (instance, outcome), NaN unknown; or None
        self._rows = arrays["rows"]
        self._first = arrays["first"]  # (instance,) first row
        self._stop = arrays["stop"]  # (instance,) behind the last row at or before prediction
        self._query_stop = arrays["query_stop"]  # (instance,) behind the last row of the horizon
        self._static = arrays["static"]  # (subject, static)
        self.parts: tuple[PackedRecords, ...] = arrays.get("parts", ())  # of several tasks: each

    @classmethod
    def build(
        cls,
        cohort: Cohort,
        schema: Preprocessor,
        task: Task,
        with_targets: bool = True,
        *,
        at: float | None = None,
    ) -> "PackedRecords":
        """Standardise a cohort with the training schema.

        Args:
            cohort: A cohort; its variables must be known to the schema.
            schema: Fitted on the training part.
            task: Whose instances are wanted.
            with_targets: Whether to read outcomes, or observations after the prediction time.
            at: One prediction time for all subjects, hours, in place of their own; outcomes then
                stay unknown.

        Raises:
            SchemaError: Unknown variables; with targets, a missing or non-binary outcome column.
        """
        schema.check(cohort)
        table = task.instances(cohort, schema.prediction_time)
        if at is not None:
            n = len(cohort.subjects)
            table = InstanceTable(np.arange(n), np.full(n, float(at)), np.full(n, -1))
        reach = task.reach if with_targets else 0.0
        rows = _Rows.build(cohort, schema, table, reach, task if with_targets else None)
        first = rows.offset[table.subject_index]
        arrays = {
            "subjects": np.asarray(cohort.subjects),
            "subject_index": table.subject_index,
            "prediction_time": table.prediction_time,
            "rows": rows,
            "first": first,
            "stop": rows.stop_at(table.subject_index, table.prediction_time),
            "static": schema.encode_statics(cohort.statics, len(cohort.subjects)),
        }

        def asked(one: Task, parts: tuple[PackedRecords, ...] = ()) -> PackedRecords:
            target = one.targets(cohort, table.outcome_row) if with_targets else None
            if target is not None:
                target = one.seen_from(target, table.prediction_time)
                target = _scale_auxiliary(target, schema, len(one.auxiliary))
            until = table.prediction_time + (one.reach if with_targets else 0.0)
            query_stop = rows.stop_at(table.subject_index, until)
            own = {"target": target, "query_stop": query_stop, "parts": parts}
            return cls(schema=schema, task=one, arrays={**arrays, **own})

        return asked(task, tuple(asked(part) for part in task.parts))

    def at_earlier_times(self, hours: Sequence[float]) -> "PackedRecords":
        """These instances, and each of them again so many hours earlier: more to learn from.

        What lay between the earlier and the later time is then ahead, as far as the task reaches.

        Raises:
            ArgumentError: The instances have outcomes, which are known at their own time only; or
                an hour is not positive.
        """
        back = np.asarray(hours, dtype=np.float64)
        if self.target is not None:
            raise ArgumentError("outcomes are those of one prediction time, and of none before it")
        if not (back > 0).all():
            raise ArgumentError(f"earlier times lie so many positive hours before, got {hours}")
        subject = np.tile(self.subject_index, 1 + len(back))
        time = np.concatenate([self.prediction_time, *(self.prediction_time - h for h in back)])
        order = np.lexsort((time, subject))
        subject, time = subject[order], time[order]
        return PackedRecords(
            schema=self.schema,
            task=self.task,
            arrays={
                "subjects": self.subjects,
                "subject_index": subject,
                "prediction_time": time,
                "target": None,
                "rows": self._rows,
                "first": self._rows.offset[subject],
                "stop": self._rows.stop_at(subject, time),
                "query_stop": self._rows.stop_at(subject, time + self.task.reach),
                "static": self._static,
            },
        )

    def __len__(self) -> int:
        return len(self.subject_index)

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each instance, at least one: what batches are bucketed by."""
        return np.maximum(self._stop - self._first, 1)

    @property
    def trainable(self) -> np.ndarray:
        """Positions of the records that have something to be trained on."""
        if self.parts:
            return np.unique(np.concatenate([part.trainable for part in self.parts]))
        if self.target is None:
            return np.arange(len(self))
        return np.flatnonzero(self.task.is_trainable(self.target))

    @property
    def instances(self) -> pd.DataFrame:
        """subject_id and prediction_time (hours), in the order of the positions."""
        return pd.DataFrame(
            {
                "subject_id": self.subjects[self.subject_index],
                "prediction_time": self.prediction_time,
            }
        )

    def batch(
        self,
        indices: Sequence[int | np.integer] | np.ndarray,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        query_after: Sequence[float] | np.ndarray | None = None,
    ) -> IrregularBatch:
        """The instances at these positions; a position may repeat, copies then keep their order.

        Args:
            indices: Positions, at least one.
            dtype: Of values; times are float64.
            device: Where the tensors go.
            query_after: Hours after each prediction time at which a forecast is asked, the same for
                all; None asks at the subjects' own later rows where those were read.

        Raises:
            ArgumentError: No index, or one out of range.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1 or len(indices) == 0:
            raise ArgumentError("a batch needs at least one instance")
        if indices.min() < 0 or indices.max() >= len(self):
            raise ArgumentError(f"positions must lie in 0..{len(self) - 1}")
        indices = indices[np.argsort(-self.lengths[indices], kind="stable")]
        layout = _Layout.build(self.lengths[indices])
        parts: dict[str, Any] = {**self._observed(indices, layout, dtype)}
        parts |= self._statics(indices, dtype)
        if self.schema.inputs:
            parts["treatments"] = self._treatments(indices, layout, dtype)
        if query_after is not None:
            after = np.asarray(query_after, dtype=np.float64)
            asked = self.prediction_time[indices][:, None] + after[None, :]
            parts["query_time"] = torch.from_numpy(asked)
        else:
            parts |= self._asked(indices, dtype)
        batch = IrregularBatch(
            **parts,
            prediction_time=torch.from_numpy(self.prediction_time[indices]),
            subject=torch.from_numpy(indices),
            window=self.schema.window,
        )
        if self.parts and query_after is None:
            own = [batch.replace(**part._asked(indices, dtype)) for part in self.parts]
            times = [part.query_time for part in own if part.query_time is not None]
            batch = batch.replace(parts=tuple(own), query_time=times[0] if times else None)
        return batch if torch.device(device).type == "cpu" else batch.to(device)

    def _asked(self, indices: np.ndarray, dtype: torch.dtype) -> dict[str, Tensor]:
        """Queries and targets of the task itself."""
        if self.parts:
            return {}
        if self.task.asks_values:
            return self._queries(indices, dtype)
        if self.target is None:
            return {}
        known = ~np.isnan(self.target[indices])
        held = np.where(known, self.target[indices], 0.0)
        return {
            "target": torch.from_numpy(held).to(dtype),
            "target_mask": torch.from_numpy(known),
            **self.task.batch_fields(self.target[indices]),
        }

    def _observed(
        self, indices: np.ndarray, layout: "_Layout", dtype: torch.dtype
    ) -> dict[str, Tensor]:
        rows, n_variables = self._rows, len(self.schema.variables)
        counts = self._stop[indices] - self._first[indices]
        stored = _ranges(self._first[indices], counts)  # rows of the cohort, subject-major
        has_rows = np.repeat(counts > 0, layout.lengths)
        packed = layout.packed[has_rows]  # an empty record keeps its one dummy row
        time = np.zeros(len(layout.packed))
        time[packed] = rows.time[stored]
        n_events = rows.event_offset[stored + 1] - rows.event_offset[stored]
        event = _ranges(rows.event_offset[stored], n_events)
        row = np.repeat(packed, n_events)
        read = ~rows.event_is_hidden[event]
        event, row = event[read], row[read]
        variable = rows.event_variable[event]
        value = np.zeros((len(time), n_variables))
        value[row, variable] = rows.event_value[event]
        mask = np.zeros((len(time), n_variables), dtype=bool)
        mask[row, variable] = True
        seen, times = torch.from_numpy(mask), torch.from_numpy(time)
        gap = np.zeros(len(time))
        gap[layout.sizes[0] :] = time[layout.sizes[0] :] - time[layout.previous[layout.sizes[0] :]]
        clocks = observation_clocks(seen, times, layout.sizes.tolist(), self.schema.window)
        return {
            "value": torch.from_numpy(value).to(dtype),
            "mask": seen,
            "time": times,
            "gap": torch.from_numpy(gap).to(dtype),
            "time_delta": clocks.time_delta.to(dtype),
            "since_observed": clocks.since_observed.to(dtype),
            "last_seen": clocks.last_seen,
            "last_observed": clocks.last_observed,
            "row_subject": torch.from_numpy(layout.row_subject),
            "batch_sizes": torch.from_numpy(layout.sizes),
        }

    def _statics(self, indices: np.ndarray, dtype: torch.dtype) -> dict[str, Tensor]:
        static = self._static[self.subject_index[indices]]
        known = ~np.isnan(static)
        return {
            "static": torch.from_numpy(np.where(known, static, 0.0)).to(dtype),
            "static_mask": torch.from_numpy(known),
        }

    def _treatments(self, indices: np.ndarray, layout: "_Layout", dtype: torch.dtype) -> Treatments:
        rows = self._rows
        subject = self.subject_index[indices]
        first, stop = self._first[indices], self._stop[indices]
        begin, counts = rows.input_offset[subject], np.diff(rows.input_offset)[subject]
        event = _ranges(begin, counts)
        position = np.repeat(np.arange(len(indices)), counts)
        begun = rows.input_start_row[event] < stop[position]
        event, position = event[begun], position[begun]
        start_row, end_row = rows.input_start_row[event], rows.input_end_row[event]
        is_impulse = np.isnan(rows.input_end[event])
        last_row = np.minimum(end_row, stop[position] - 1)
        n_gaps = np.where(is_impulse, 0, np.maximum(last_row - start_row, 0))
        pair_event = np.repeat(np.arange(len(event)), n_gaps)
        pair_step = _ranges(start_row + 1, n_gaps) - first[position][pair_event]
        start_step = start_row - first[position]
        end = np.minimum(rows.input_end[event], self.prediction_time[indices][position])
        return Treatments(
            value=torch.from_numpy(rows.input_value[event]).to(dtype),
            input_index=torch.from_numpy(rows.input_index[event]),
            subject=torch.from_numpy(position),
            start=torch.from_numpy(rows.input_start[event]),
            end=torch.from_numpy(end),
            is_impulse=torch.from_numpy(is_impulse),
            is_held=torch.from_numpy(~is_impulse & (end_row >= stop[position])),
            impulse_row=torch.from_numpy(
                np.where(is_impulse, layout.offsets[start_step] + position, 0)
            ),
            pair_row=torch.from_numpy(layout.offsets[pair_step] + position[pair_event]),
            pair_event=torch.from_numpy(pair_event),
            scale=torch.tensor(self.schema.input_scale, dtype=dtype),
        )

    def _queries(self, indices: np.ndarray, dtype: torch.dtype) -> dict[str, Tensor]:
        rows, n_variables = self._rows, len(self.schema.variables)
        begin = np.where(self.task.reads_behind, self._first[indices], self._stop[indices])
        counts = np.maximum(self._query_stop[indices] - begin, 0)
        stored = _ranges(begin, counts)
        holder = np.repeat(np.arange(len(indices)), counts)
        n_events = rows.event_offset[stored + 1] - rows.event_offset[stored]
        asked_event = _ranges(rows.event_offset[stored], n_events)
        if self.task.reads_behind:  # what is hidden, and nothing else
            is_asked = rows.event_is_hidden[asked_event]
            of_row = np.repeat(np.arange(len(stored)), n_events)
            n_events = np.bincount(of_row[is_asked], minlength=len(stored))
            asked_event = asked_event[is_asked]
        stored, holder, n_events = (part[n_events > 0] for part in (stored, holder, n_events))
        asked = np.bincount(holder, minlength=len(indices))
        query = _ranges(np.zeros(len(indices), dtype=np.int64), asked)
        width = int(asked.max()) if len(asked) else 0
        time = np.full((len(indices), width), np.nan)
        time[holder, query] = rows.time[stored]
        where = (
            np.repeat(holder, n_events),
            np.repeat(query, n_events),
            rows.event_variable[asked_event],
        )
        target = np.zeros((len(indices), width, n_variables))
        target[where] = rows.event_value[asked_event]
        known = np.zeros(target.shape, dtype=bool)
        known[where] = True
        return {
            "query_time": torch.from_numpy(time),
            "target": torch.from_numpy(target).to(dtype),
            "target_mask": torch.from_numpy(known),
        }


@dataclass(frozen=True)
class _Layout:
    """Where row j of the subject at batch position i goes: offsets[j] + i."""

    lengths: np.ndarray  # (batch,) not increasing
    sizes: np.ndarray  # (step,)
    offsets: np.ndarray  # (step,)
    packed: np.ndarray  # (row,) packed position of each row in subject-major order
    previous: np.ndarray  # (row,) packed position of the same subject's previous row
    row_subject: np.ndarray  # (row,) in packed order

    @staticmethod
    def build(lengths: np.ndarray) -> "_Layout":
        n_subjects, n_steps = len(lengths), int(lengths[0])
        sizes = n_subjects - np.searchsorted(lengths[::-1], np.arange(n_steps), side="right")
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        step = _ranges(np.zeros(n_subjects, dtype=np.int64), lengths)
        holder = np.repeat(np.arange(n_subjects), lengths)
        packed = offsets[step] + holder
        row_subject = np.empty(len(packed), dtype=np.int64)
        row_subject[packed] = holder
        previous = np.empty(len(packed), dtype=np.int64)
        previous[packed] = offsets[np.maximum(step - 1, 0)] + holder
        return _Layout(lengths, sizes, offsets, packed, previous, row_subject)


@dataclass(frozen=True)
class _Rows:
    """Rows of all subjects, sorted by subject and time, with their events and treatments."""

    offset: np.ndarray  # (subject + 1,) first row of each subject
    time: np.ndarray  # (row,)
    event_offset: np.ndarray  # (row + 1,)
    event_variable: np.ndarray
    event_value: np.ndarray
    event_is_hidden: np.ndarray  # targets, which are never read
    input_offset: np.ndarray  # (subject + 1,)
    input_index: np.ndarray
    input_value: np.ndarray
    input_start: np.ndarray
    input_end: np.ndarray  # NaN for an impulse
    input_start_row: np.ndarray
    input_end_row: np.ndarray  # a row behind the subject's last where it ends later

    @staticmethod
    def build(
        cohort: Cohort, schema: Preprocessor, table: Any, reach: float, asked: Task | None
    ) -> "_Rows":
        arrays, n_subjects = cohort.arrays(), len(cohort.subjects)
        until = np.full(n_subjects, -np.inf)
        np.maximum.at(until, table.subject_index, table.prediction_time)
        position = _positions([v.name for v in cohort.schema.variables], schema.variables)
        variable = position[arrays.variable_index]
        keep = (variable >= 0) & (arrays.time <= (until + reach)[arrays.subject_index])
        subject = arrays.subject_index[keep].astype(np.int64)
        time, variable = arrays.time[keep], variable[keep]
        value = schema.standardize(variable, arrays.value[keep])
        hidden = None
        if asked is not None:
            hidden = asked.hidden(cohort.subjects, schema.variables, subject, variable, time)
        if hidden is None:
            hidden = np.zeros(len(time), dtype=bool)
        given = _given(cohort, schema, until)
        row_subject, row_time = _distinct(
            np.concatenate([subject, given["subject"], given["subject"]]),
            np.concatenate([time, given["start"], given["end"]]),
            until + reach,
        )
        offset = np.searchsorted(row_subject, np.arange(n_subjects + 1))
        row = row_at(offset, row_time, subject, time)
        order = np.argsort(row, kind="stable")
        return _Rows(
            offset=offset,
            time=row_time,
            event_offset=np.searchsorted(row[order], np.arange(len(row_time) + 1)),
            event_variable=variable[order],
            event_value=value[order],
            event_is_hidden=hidden[order],
            input_offset=np.searchsorted(given["subject"], np.arange(n_subjects + 1)),
            input_index=given["index"],
            input_value=given["value"],
            input_start=given["start"],
            input_end=given["end"],
            input_start_row=row_at(offset, row_time, given["subject"], given["start"]),
            input_end_row=row_at(offset, row_time, given["subject"], given["end"]),
        )

    def stop_at(self, subject: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Behind the last row of each subject at or before the time."""
        return row_at(self.offset, self.time, subject, np.nextafter(time, np.inf))


def _given(cohort: Cohort, schema: Preprocessor, until: np.ndarray) -> dict[str, np.ndarray]:
    arrays = cohort.arrays()
    position = _positions([v.name for v in cohort.schema.inputs], schema.inputs)
    subject = arrays.input_subject_index.astype(np.int64)
    index = position[arrays.input_variable_index] if len(position) else np.zeros(0, np.int64)
    keep = (index >= 0) & (arrays.input_start <= until[subject])
    subject, index = subject[keep], index[keep]
    order = np.lexsort((index, arrays.input_start[keep], subject))
    low, high = np.asarray(schema.input_low), np.asarray(schema.input_high)
    value = arrays.input_value[keep]
    if len(value):
        value = np.clip(value, low[index], high[index]) / np.asarray(schema.input_scale)[index]
    return {
        "subject": subject[order],
        "index": index[order],
        "value": value[order],
        "start": arrays.input_start[keep][order],
        "end": arrays.input_end[keep][order],
    }


def _positions(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Where each name stands among the wanted ones, -1 where it does not."""
    return pd.Index(wanted).get_indexer(pd.Index(names)).astype(np.int64)


def _distinct(
    subject: np.ndarray, time: np.ndarray, until: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct (subject, time) up to each subject's last time of interest."""
    keep = time <= until[subject]  # NaN ends drop out here
    subject, time = subject[keep], time[keep]
    order = np.lexsort((time, subject))
    subject, time = subject[order], time[order]
    is_new = np.ones(len(subject), dtype=bool)
    is_new[1:] = (np.diff(subject) != 0) | (np.diff(time) != 0)
    return subject[is_new], time[is_new]


def row_at(
    offset: np.ndarray, row_time: np.ndarray, subject: np.ndarray, time: np.ndarray
) -> np.ndarray:
    """First row of the subject at or after the time (its end where there is none or time is NaN).

    A binary search inside each subject's rows, all subjects at once.
    """
    low, high = offset[subject].copy(), offset[subject + 1].copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        probe = row_time[np.minimum(middle, max(len(row_time) - 1, 0))]
        right = open_ & ~(probe >= time)
        low = np.where(right, middle + 1, low)
        high = np.where(open_ & ~right, middle, high)
    return low


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... count[0] numbers, then those of start[1], and so on."""
    total = int(count.sum())
    shift = np.repeat(start - np.concatenate([[0], np.cumsum(count)[:-1]]), count)
    return (np.arange(total) + shift).astype(np.int64)


def _scale_auxiliary(target: np.ndarray, schema: Preprocessor, n: int) -> np.ndarray:
    scaled = target.copy()
    if n == 0:
        return target
    for position, scale in enumerate(schema.auxiliary, start=target.shape[1] - n):
        shown = scaled[:, position]
        if scale.transform == "log1p":
            shown = np.log1p(np.maximum(shown, 0.0))
        scaled[:, position] = (shown - scale.mean) / scale.scale
    return scaled
