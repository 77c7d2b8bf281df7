"""The value of each variable that was measured last, kept as a state that fades."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch

FORGETTING = 0.03  # per hour of a 48-hour window, at the start


class Memory(nn.Module):
    """One state h a variable: set by its measurements, h' = -rate h between them.

    With it the decoder starts from the last value carried forward, which a state of few modes
    would have to learn to hold. Values are standardised, so what fades goes to the training mean.

    Args:
        n_variables: Their number.
        pace: Hours of a 48-hour window in one hour.
    """

    def __init__(self, n_variables: int, pace: float):
        super().__init__()
        self.log_rate = nn.Parameter(torch.full((n_variables,), math.log(FORGETTING * pace)))

    @property
    def rate(self) -> Float[Tensor, " variable"]:
        """Per hour."""
        return torch.exp(self.log_rate)

    def before(self, batch: IrregularBatch) -> Float[Tensor, "row variable"]:
        """The states just before the measurements of each row."""
        return batch.carried * torch.exp(-self.rate * batch.since_observed)

    def at(
        self,
        batch: IrregularBatch,
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query variable"]:
        """The states at asked times; `row` is the subject's last one at or before each."""
        last = last_measured(batch, row)
        seen = last >= 0
        since = query_time.unsqueeze(-1) - batch.time[last.clamp(min=0)]
        since = torch.where(seen, since, 0.0).to(batch.dtype)
        variable = torch.arange(batch.value.shape[1], device=last.device)
        value = torch.where(seen, batch.value[last.clamp(min=0), variable], 0.0)
        return value * torch.exp(-self.rate * since)


def last_measured(
    batch: IrregularBatch, row: Int64[Tensor, "*place"]
) -> Int64[Tensor, "*place variable"]:
    """Packed row at which each variable was last measured, at or before these rows; -1: never."""
    held = row.clamp(min=0)
    last = torch.where(batch.mask[held], held.unsqueeze(-1), batch.last_seen[held])
    return torch.where((row >= 0).unsqueeze(-1), last, -1)
