"""What the families read at a row: values, what is remembered, clocks, treatments."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, Preprocessor
from clinode.cohort.batch import chosen

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
        chosen(batch.mask, batch.value, remembered),
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


class Drive(nn.Module):
    """B u, what treatments do to the state of a field; they do nothing before training.

    The weights are per hour of a 48-hour window, as decays are, so that a rate acts as fast as the
    field it drives. A treatment that is given in doses alone has no rate, and moves by its weights.

    Args:
        n_states: Of the field.
        schema: Of the training part: treatments and the length of its window.
    """

    pace: Tensor

    def __init__(self, n_states: int, schema: Preprocessor):
        super().__init__()
        pace = REFERENCE_WINDOW / schema.window
        per_hour = [pace if is_rate else 1.0 for is_rate in schema.input_is_rate]
        self.register_buffer("pace", torch.tensor(per_hour), persistent=False)
        self.weight = nn.Parameter(torch.zeros(n_states, len(per_hour)))

    @property
    def matrix(self) -> Float[Tensor, "state input"]:
        """B, per hour and standardised unit."""
        return self.weight * self.pace

    def forward(self, u: Float[Tensor, "*place input"]) -> Float[Tensor, "*place state"]:
        """Of standardised rates, or the jump of standardised doses."""
        return u @ self.matrix.T


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
