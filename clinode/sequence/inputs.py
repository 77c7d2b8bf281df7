"""What the families read at a row: values, what is remembered, clocks, treatments."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clinode.cohort import IrregularBatch

REFERENCE_WINDOW = 48.0  # hours; features of time are scaled as if every window were this long


def measured_columns(
    batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
) -> list[Float[Tensor, "row column"]]:
    """Values, remembered where not measured, mask, ages, time, gap since the last observation.

    Times enter in hours of a 48-hour window, whatever the window's own length.
    """
    pace = REFERENCE_WINDOW / batch.window
    since = batch.since_observed * pace
    return [
        torch.where(batch.mask, batch.value, remembered),
        batch.mask.to(batch.dtype),
        torch.log1p(since.clamp(min=0)) / 4,
        (batch.time / batch.window).to(batch.dtype).unsqueeze(1),
        torch.log1p(batch.time_delta * pace).unsqueeze(1),
    ]


def step_inputs(
    batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
) -> Float[Tensor, "row step_input"]:
    """For families whose field carries the treatments: what is measured, rates and doses."""
    columns = measured_columns(batch, remembered)
    if batch.treatments is not None:
        columns += [batch.treatments.rates(batch.n_rows), batch.treatments.impulses(batch.n_rows)]
    return torch.cat(columns, dim=1)


def gap_inputs(
    batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
) -> Float[Tensor, "row step_input"]:
    """For families without a field: what is measured, amounts given since the last one, rates."""
    columns = measured_columns(batch, remembered)
    if batch.treatments is not None:
        columns += [batch.exposure, batch.treatments.rates(batch.n_rows)]
    return torch.cat(columns, dim=1)


def n_step_inputs(n_variables: int, n_inputs: int) -> int:
    """How many columns these are."""
    return 3 * n_variables + 2 + 2 * n_inputs


def observed_row(batch: IrregularBatch, row: Int64[Tensor, "*place"]) -> Int64[Tensor, "*place"]:
    """The subject's last packed row with an observation, at or before these rows; -1: none."""
    held = row.clamp(min=0)
    last = torch.where(batch.is_observed[held], held, batch.last_observed[held])
    return torch.where(row >= 0, last, -1)


def hours_since(
    batch: IrregularBatch, query_time: Float[Tensor, "*place"], row: Int64[Tensor, "*place"]
) -> Float[Tensor, "*place"]:
    """From these rows to asked times, differences taken in float64; 0 where there is no row."""
    since = query_time - batch.time[row.clamp(min=0)]
    return torch.where(row >= 0, since, 0.0).to(batch.dtype)
