"""What a forecast starts from: a ridge a variable, on what of it was last and on average seen.

How far the last value reaches depends on how far ahead is asked, so each coefficient is a constant
and two exponentials of the time ahead. The ridge is fitted on the training part before the first
step, and trained on with everything else.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, PackedRecords
from clinode.errors import ArgumentError
from clinode.sequence.layers import sum_by_subject
from clinode.sequence.memory import last_measured
from clinode.sequence.readout import Prepared, in_batches

N_SEEN = 4  # numbers that sum up a variable
FORGETTING = (3.0, 10.0)  # hours of a 48-hour span: of the means that forget
FADING = (3.0, 10.0)  # hours of such a span: of what a coefficient loses with the time ahead
PENALTY = 30.0  # queries


class Anchor(Prepared):
    """Ridges of every variable's later values on its own past, by time ahead.

    Args:
        n_variables: Of the schema.
        pace: Hours of a 48-hour span in one hour.
    """

    def __init__(self, n_variables: int, pace: float):
        super().__init__()
        self.pace = pace
        self.shape = (n_variables, N_SEEN + 2, 1 + len(FADING))
        # one axis, so that no optimiser takes the coefficients for a matrix and decays them
        self.coefficient = nn.Parameter(torch.zeros(n_variables * self.shape[1] * self.shape[2]))

    def prepare(self, records: PackedRecords) -> None:
        """Fit the ridges on the training part; a variable never asked for answers 0, its mean."""
        n_variables, n_columns = self.shape[0], self.shape[1] * self.shape[2]
        gram = torch.zeros(n_variables, n_columns, n_columns, dtype=torch.float64)
        moment = torch.zeros(n_variables, n_columns, dtype=torch.float64)
        for batch in in_batches(records, dtype=torch.float64):
            if batch.target is None or batch.target_mask is None:
                continue
            seen, ahead = self._design(carried_forward(batch, self.pace), batch), hours_ahead(batch)
            subject, query, asked = batch.target_mask.nonzero(as_tuple=True)
            faded = self._faded(ahead[subject, query])
            columns = (seen[subject, asked].unsqueeze(2) * faded.unsqueeze(1)).flatten(1)
            target = batch.target[subject, query, asked]
            for variable in asked.unique():
                own = columns[asked == variable]
                gram[variable] += own.T @ own
                moment[variable] += own.T @ target[asked == variable]
        penalty = torch.full((self.shape[1], self.shape[2]), PENALTY, dtype=torch.float64)
        penalty[-1, 0] = 1e-3  # the level itself is not drawn to 0, and still has a solution
        fitted = torch.linalg.solve(gram + torch.diag(penalty.flatten()), moment.unsqueeze(2))
        with torch.no_grad():
            self.coefficient.copy_(fitted.flatten())

    def forward(
        self,
        batch: IrregularBatch,
        seen: Float[Tensor, "batch anchor variable"],
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Float[Tensor, "batch query variable"]:
        """The ridges' forecasts at the queries.

        Args:
            batch: With query times.
            seen: Its `carried_forward`, zero where unseen.
            unseen: Variables to be taken as never measured.
        """
        design = self._design(seen, batch, unseen)
        by_lead = torch.einsum("bva,val->bvl", design, self.coefficient.view(self.shape))
        return self._faded(hours_ahead(batch)) @ by_lead.mT

    def _design(
        self,
        seen: Float[Tensor, "batch anchor variable"],
        batch: IrregularBatch,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Float[Tensor, "batch variable column"]:
        """The anchors, whether there are any, and 1."""
        known = last_measured(batch, batch.last_row) >= 0
        if unseen is not None:
            known = known & ~unseen
        known = known.to(seen.dtype).unsqueeze(1)
        return torch.cat([seen, known, torch.ones_like(known)], dim=1).mT

    def _faded(self, ahead: Float[Tensor, "*query"]) -> Float[Tensor, "*query fading"]:
        """1, and what is left of 1 after the time ahead, at each pace of fading."""
        left = [torch.exp(-ahead * self.pace / time_constant) for time_constant in FADING]
        return torch.stack([torch.ones_like(ahead), *left], dim=-1)


def hours_ahead(batch: IrregularBatch) -> Float[Tensor, "batch query"]:
    """Hours from the prediction time to each query; 0 for those before it or behind the last.

    Raises:
        ArgumentError: The batch asks for nothing.
    """
    if batch.query_time is None:
        raise ArgumentError("a forecast needs query times", fix="batch(..., query_after=[...])")
    ahead = batch.query_time - batch.prediction_time.unsqueeze(1)
    return torch.nan_to_num(ahead).clamp(min=0).to(batch.dtype)


def carried_forward(batch: IrregularBatch, pace: float) -> Float[Tensor, "batch anchor variable"]:
    """Last value, mean, and two means that forget (3 and 10 hours of a 48-hour span)."""
    mask = batch.mask.to(batch.dtype)
    subject, n = batch.row_subject, len(batch)
    row = last_measured(batch, batch.last_row)
    last = torch.where(row >= 0, batch.value.gather(0, row.clamp(min=0)), 0.0)
    age = (batch.prediction_time[subject] - batch.time) * pace
    age_of_last = torch.where(row >= 0, age[row.clamp(min=0)], 0.0)
    anchors = [last]
    for time_constant in (torch.inf, *FORGETTING):
        # measured from the variable's own last observation, so that old records keep weights of 1
        recent = age.unsqueeze(1) - age_of_last[subject]
        weight = mask * torch.exp(-recent / time_constant).to(batch.dtype)
        total = sum_by_subject(weight, subject, n)
        held = sum_by_subject(weight * batch.value, subject, n)
        anchors.append(held / torch.where(total > 0, total, 1.0))
    return torch.stack(anchors, dim=1)
