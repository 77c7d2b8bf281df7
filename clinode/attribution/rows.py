"""A sequence model as a function of flat rows: what was measured, given and known of each record.

Attribution methods want a function of rows. A row here holds the standardised statics of a record,
then its measured values in order of time and variable, then its treatments. Only these are entries:
times, masks and what is carried forward follow from the record, so nothing that was not measured
can receive an attribution, and what a fill passes on is credited to the measurement it came from.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clinode.attribution.explained import explained_of
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
        model: Built; a float64 copy of it is evaluated, and the model itself never touched.
        records: Where the records are.
        positions: Which of them, longest first; a row each.
    """

    def __init__(self, model: SequenceModel, records: PackedRecords, positions: np.ndarray):
        self.records = records
        self.positions = positions
        self.device = next(model.parameters()).device
        self._read = explained_of(records.task, records.schema).read
        self._model = deepcopy(model).double().eval().requires_grad_(False)
        batch = records.batch(positions, dtype=torch.float64)
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
        positions = self.positions[which.numpy()]
        # a batch is sorted by length, copies of a record in the order they came
        order = torch.from_numpy(np.argsort(-self.records.lengths[positions], kind="stable"))
        batch = self.records.batch(positions, dtype=torch.float64)
        rows = rows[order]
        cell_row, cell_variable, holder, ordinal = _cells(batch)
        value = rows.new_zeros(batch.value.shape).index_put(
            (torch.from_numpy(cell_row), torch.from_numpy(cell_variable)),
            rows[holder, self.n_statics + ordinal],
        )
        treatments = batch.treatments
        if treatments is not None:
            given, given_ordinal = _given(batch)
            treatments = replace(treatments, value=rows[given, self._first_input + given_ordinal])
        version = batch.replace(
            value=value, static=rows[:, : self.n_statics], treatments=treatments
        )
        output = self._read(self._model(version.to(self.device)))
        return output.cpu()[torch.argsort(order)]


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
