"""A sequence model as a function of flat rows: what was measured, given and known of each record.

Attribution methods want a function of rows. A row here holds the standardised statics of a record,
then its measured values in order of time and variable, then its treatments. Only these are entries:
times, masks and what is carried forward follow from the record, so nothing that was not measured
can receive an attribution, and what a fill passes on is credited to the measurement it came from.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from clinode.attribution.explained import Explained
from clinode.cohort import IrregularBatch, PackedRecords
from clinode.sequence import SequenceModel


@dataclass(frozen=True)
class Entries:
    """Entries of the rows of one kind, sorted by row; `column` is where each stands in its row."""

    row: np.ndarray
    column: np.ndarray
    variable: np.ndarray  # position in the schema's variables, or inputs
    time: np.ndarray  # hours; the start of a treatment

    def counts(self, n_rows: int) -> np.ndarray:
        """Entries of each row."""
        return np.bincount(self.row, minlength=n_rows)


class RecordRows:
    """Some records as rows of one width, and the model as a function of such rows.

    Args:
        models: Built; float64 copies of them are evaluated, they themselves never touched. What
            several answer is meaned.
        records: Where the records are.
        positions: Which of them, longest first; a row each.
        explained: The number of each record that is the function's value.
    """

    def __init__(
        self,
        models: Sequence[SequenceModel],
        records: PackedRecords,
        positions: np.ndarray,
        explained: Explained,
    ):
        self.records = records
        self.positions = positions
        self.device = next(models[0].parameters()).device
        self._explained = explained
        self._models = [deepcopy(m).double().eval().requires_grad_(False) for m in models]
        batch = self._batch(positions)
        cell_row, cell_variable, holder, ordinal = _cells(batch)
        self.n_statics = batch.static.shape[1]
        self._first_input = self.n_statics + int(ordinal.max(initial=-1)) + 1
        self.known_statics = batch.static_mask.numpy()
        self.measured = Entries(
            holder,
            self.n_statics + ordinal,
            cell_variable,
            batch.time[torch.from_numpy(cell_row)].numpy(),
        )
        given, given_ordinal = _given(batch)
        self.given = Entries(
            given,
            self._first_input + given_ordinal,
            np.empty(0, np.int64)
            if batch.treatments is None
            else batch.treatments.input_index.numpy(),
            np.empty(0) if batch.treatments is None else batch.treatments.start.numpy(),
        )
        width = self._first_input + int(given_ordinal.max(initial=-1)) + 1
        self.x = torch.zeros(len(positions), width, dtype=torch.float64)
        self.x[:, : self.n_statics] = batch.static
        self.x[holder, self.measured.column] = batch.value[cell_row, cell_variable]
        if batch.treatments is not None:
            self.x[given, self.given.column] = batch.treatments.value

    def __len__(self) -> int:
        return len(self.positions)

    def __call__(
        self, rows: Float[Tensor, "version width"], which: Int64[Tensor, " version"]
    ) -> Float[Tensor, " version"]:
        """The explained output of each version; `which` names the record that it is one of."""
        batch, order = self._versions(which)
        return self._answer(self._filled(batch, rows[order]), order)

    def without(
        self, present: Bool[Tensor, "version width"], which: Int64[Tensor, " version"]
    ) -> Float[Tensor, " version"]:
        """The explained output where only these entries of each record were measured or given."""
        batch, order = self._versions(which)
        present = present[order]
        filled = self._filled(batch, torch.where(present, self.x[which][order], 0.0))
        known = filled.static_mask & present[:, : self.n_statics]
        cell_row, cell_variable, holder, ordinal = _cells(batch)
        away = torch.zeros_like(filled.mask)
        away[cell_row, cell_variable] = ~present[holder, self.n_statics + ordinal]
        return self._answer(filled.replace(static_mask=known).without(away), order)

    def players(self, kind: str, window: float) -> np.ndarray:
        """Of each entry of each row, the number of its player within the row; -1 for no entry.

        Args:
            kind: "event" (every value and treatment by itself), "variable" (all of one together) or
                "window" (those of one in the same stretch of time together). A static is one
                player, whatever its columns.
            window: Hours of a stretch, counted back from the prediction time.
        """
        schema, n_variables = self.records.schema, len(self.records.schema.variables)
        key = np.full(self.x.shape, -1, dtype=np.int64)
        names = [column.name for column in schema.statics]
        static = np.array([names.index(name) for name in names], dtype=np.int64)
        known = self.known_statics
        key[:, : self.n_statics] = np.where(known, static, -1)
        for entries, first in ((self.measured, 0), (self.given, n_variables)):
            group = entries.column.astype(np.int64)
            if kind != "event":
                group = first + entries.variable
            if kind == "window":
                until = self.records.prediction_time[self.positions][entries.row]
                stretch = np.floor((until - entries.time) / window).astype(np.int64)
                group = group + (n_variables + len(schema.inputs)) * np.maximum(stretch, 0)
            key[entries.row, entries.column] = self.n_statics + group
        return np.stack([_numbered(row) for row in key]) if len(key) else key

    def _batch(self, positions: np.ndarray) -> IrregularBatch:
        after = self._explained.query_after
        asked = None if after is None else [after]
        return self.records.batch(positions, dtype=torch.float64, query_after=asked)

    def _versions(self, which: Int64[Tensor, " version"]) -> tuple[IrregularBatch, Tensor]:
        """The records that versions are of, longest first, and the order that sorts them so."""
        positions = self.positions[which.numpy()]
        # a batch is sorted by length, copies of a record in the order they came
        order = np.argsort(-self.records.lengths[positions], kind="stable")
        return self._batch(positions), torch.from_numpy(order)

    def _filled(
        self, batch: IrregularBatch, rows: Float[Tensor, "version width"]
    ) -> IrregularBatch:
        """The records with the entries of rows in place of their own."""
        cell_row, cell_variable, holder, ordinal = _cells(batch)
        value = rows.new_zeros(batch.value.shape).index_put(
            (torch.from_numpy(cell_row), torch.from_numpy(cell_variable)),
            rows[holder, self.n_statics + ordinal],
        )
        treatments = batch.treatments
        if treatments is not None:
            given, given_ordinal = _given(batch)
            treatments = replace(treatments, value=rows[given, self._first_input + given_ordinal])
        return batch.replace(value=value, static=rows[:, : self.n_statics], treatments=treatments)

    def _answer(self, batch: IrregularBatch, order: Tensor) -> Float[Tensor, " version"]:
        here = batch.to(self.device)
        answers = [self._explained.read(model(here)) for model in self._models]
        output = answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0)
        return self._explained.link(output).cpu()[torch.argsort(order)]


def _numbered(key: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for the keys of a row in their order; -1 stays."""
    held = np.unique(key[key >= 0])
    return np.where(key >= 0, np.searchsorted(held, key), -1)


def _cells(batch: IrregularBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measured cells: packed row, variable, subject in the batch, number within the subject.

    Sorted by subject, then time, then variable.
    """
    row, variable = (part.numpy() for part in batch.mask.nonzero(as_tuple=True))
    holder = batch.row_subject.numpy()[row]
    order = np.argsort(holder, kind="stable")  # rows are packed in order of time
    holder = holder[order]
    return row[order], variable[order], holder, _number_within(holder)


def _given(batch: IrregularBatch) -> tuple[np.ndarray, np.ndarray]:
    """Of each treatment event: subject in the batch, and its number within the subject."""
    if batch.treatments is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    holder = batch.treatments.subject.numpy()
    return holder, _number_within(holder)


def _number_within(holder: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of a sorted array."""
    return np.arange(len(holder)) - np.searchsorted(holder, holder)
