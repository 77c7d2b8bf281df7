"""Twelve numbers a variable that sum up what was measured, and the tower that reads them.

Trees on such statistics are the baseline to beat on ICU records, so the models read them too,
beside the latent trajectory. Everything is a function of measured values only and differentiable
in them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import IrregularBatch, PackedRecords, Preprocessor
from clinode.cohort.batch import chosen
from clinode.sequence.layers import MemberLinear, dropout, sum_by_subject
from clinode.sequence.readout import Prepared, in_batches

N_SUMMARIES = 12
N_TREATMENT_SUMMARIES = 4
SPREAD_OFFSET = 0.05  # log(sd + 0.05): one observation has no spread
BIN_QUANTILES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of a column, between which bins lie
LEAST_WIDTH = 0.01  # standard deviations; bins of two or less are left out: slopes need a bound
STEEPNESS = 5.0  # of a logistic curve over a bin: from .08 to .92 between its ends
MOST_RECORDS = 20_000  # from which quantiles are taken
FAR = 1e30  # beyond every standardised value, and not infinite: it is multiplied by 0
SCALE_OFFSET = 0.1  # columns are divided by sd + 0.1: constant ones stay small


def summarize(batch: IrregularBatch) -> Float[Tensor, "batch variable summary"]:
    """First, last, mean, min, max, log sd, log count, presence; recent mean, log count, min, max.

    Of each variable up to the prediction time; recent is the second half of the training window
    before it, and its mean, min and max fall back on the last value. All zero but the log sd, which
    is log .05, where the variable was never measured.
    """
    mask, subject, n = batch.mask, batch.row_subject, len(batch)
    value = chosen(mask, batch.value)
    weight = mask.to(value.dtype)
    age = batch.prediction_time[subject] - batch.time
    recent = weight * (age < batch.window / 2).to(value.dtype).unsqueeze(1)
    count = sum_by_subject(weight, subject, n)
    recent_count = sum_by_subject(recent, subject, n)
    is_seen = count > 0
    mean = sum_by_subject(value, subject, n) / count.clamp(min=1)
    deviation = chosen(mask, value - mean[subject])
    variance = sum_by_subject(deviation**2, subject, n) / count.clamp(min=1)
    spread = torch.sqrt(variance + 1e-12)  # the offset keeps the slope at zero finite
    first, last = _first_and_last(batch)
    recent_mean = sum_by_subject(value * recent, subject, n) / recent_count.clamp(min=1)
    away, recent_away = (1 - weight) * FAR, (1 - recent) * FAR
    low = _extreme(value + away, subject, n, "amin")
    high = _extreme(value - away, subject, n, "amax")
    recent_low = _extreme(value + recent_away, subject, n, "amin")
    recent_high = _extreme(value - recent_away, subject, n, "amax")
    columns = [
        first,
        last,
        mean,
        torch.where(is_seen, low, 0.0),
        torch.where(is_seen, high, 0.0),
        torch.log(spread + SPREAD_OFFSET),
        torch.log1p(count),
        is_seen.to(value.dtype),
        torch.where(recent_count > 0, recent_mean, last),
        torch.log1p(recent_count),
        torch.where(recent_count > 0, recent_low, last),
        torch.where(recent_count > 0, recent_high, last),
    ]
    return torch.stack(columns, dim=2)


def summarize_treatments(batch: IrregularBatch) -> Float[Tensor, "batch input summary"]:
    """Mean rate over the window, rate at the prediction time, sum of doses, whether ever given."""
    treatments = batch.treatments
    if treatments is None:
        return batch.value.new_zeros(len(batch), 0, N_TREATMENT_SUMMARIES)
    subject, n = batch.row_subject, len(batch)
    rates, doses = treatments.rates(batch.n_rows), treatments.impulses(batch.n_rows)
    held = treatments.held_rates(n)
    rest = (batch.prediction_time - batch.time[batch.last_row]).clamp(min=0).to(rates.dtype)
    total = sum_by_subject(rates * batch.gap.unsqueeze(1), subject, n) + held * rest.unsqueeze(1)
    events = torch.zeros_like(held).index_put(
        (treatments.subject, treatments.input_index),
        torch.ones_like(treatments.value),
        accumulate=True,
    )
    given = sum_by_subject(doses, subject, n)
    columns = [total / batch.window, held, given, (events > 0).to(held.dtype)]
    return torch.stack(columns, dim=2)


class Bins(nn.Module):
    """Each column as how far it reaches through each of its bins, 0 far below and 1 far above.

    A linear layer behind it draws a curve through a column where it else draws a line, as trees do
    with steps (Gorishniy et al. 2022, NeurIPS 35, with straight pieces). The way through a bin is a
    logistic curve here: out of fold it predicts the same, and without kinks the integral that an
    attribution takes along it needs a fifth of the points.
    """

    low: Tensor
    width: Tensor

    def __init__(self, n_columns: int):
        super().__init__()
        self.per_column = len(BIN_QUANTILES) - 1
        self.register_buffer("low", torch.zeros(n_columns, self.per_column))
        self.register_buffer("width", torch.ones(n_columns, self.per_column))

    def prepare(self, columns: Float[Tensor, "record column"]) -> None:
        """Put the ends of the bins at quantiles of the training part's standardised columns.

        An end lies midway between two different values.
        """
        ordered = columns[:: 1 + len(columns) // MOST_RECORDS].T.sort(dim=1).values.contiguous()
        quantile = torch.tensor(BIN_QUANTILES[1:-1], dtype=torch.float64)
        below = ordered[:, torch.round(quantile * (ordered.shape[1] - 1)).long()].contiguous()
        following = torch.searchsorted(ordered, below, right=True)
        above = ordered.gather(1, following.clamp(max=ordered.shape[1] - 1))
        least, most = ordered[:, :1] - LEAST_WIDTH, ordered[:, -1:] + LEAST_WIDTH
        inner = torch.where(above > below, (below + above) / 2, most)
        ends = torch.cat([least, inner, most], dim=1)
        self.low.copy_(ends[:, :-1])
        self.width.copy_(ends.diff(dim=1))

    def forward(self, columns: Float[Tensor, "batch column"]) -> Float[Tensor, "batch bin"]:
        """The bins of a column stand side by side."""
        reach = (columns.unsqueeze(2) - self.low) / self.width.clamp(min=2 * LEAST_WIDTH)
        through = torch.sigmoid(STEEPNESS * (reach - 0.5))
        return (through * (self.width > 2.01 * LEAST_WIDTH)).flatten(1)


class StatisticsTower(Prepared):
    """Summaries and statics -> a code, by each member of a committee.

    Members differ in their weights and in what dropout hides from them. Their mean varies less with
    the seed than one of them does, and they cost little: a batch is summed up once for all.

    Args:
        schema: Gives the numbers of variables, inputs and statics.
        members: How many there are.
        hidden: Width of the layer behind the summaries.
        code: Width of what it hands on.
        dropout: Share of the standardised inputs set to zero in training.
        static_code: Width of the layer behind the statics.
        generator: Draws the weights.
        binned: Whether columns are read through bins.
    """

    mean: Tensor
    scale: Tensor
    bin_mean: Tensor
    bin_scale: Tensor

    def __init__(
        self,
        schema: Preprocessor,
        *,
        members: int,
        hidden: int,
        code: int,
        dropout: float,
        static_code: int,
        generator: torch.Generator,
        binned: bool = False,
    ):
        super().__init__()
        n_columns = N_SUMMARIES * len(schema.variables)
        n_columns += N_TREATMENT_SUMMARIES * len(schema.inputs)
        self.dropout, self.members, self.code = dropout, members, code
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("scale", torch.ones(n_columns))
        self.bins = Bins(n_columns) if binned else None
        if self.bins is not None:
            n_columns *= self.bins.per_column
            self.register_buffer("bin_mean", torch.zeros(n_columns))
            self.register_buffer("bin_scale", torch.ones(n_columns))
        self.n_statics = 2 * len(schema.statics)
        self.n_read = n_columns + self.n_statics
        self.inward = MemberLinear(members, n_columns, hidden, generator)
        self.static = MemberLinear(members, self.n_statics, static_code, generator)
        self.outward = MemberLinear(members, hidden + static_code, code, generator)

    def prepare(self, records: PackedRecords) -> None:
        """Take mean and spread of every column from the training part."""
        with torch.no_grad():
            batches = in_batches(records, dtype=torch.float64)
            columns = torch.cat([summary_columns(batch) for batch in batches])
            self.mean.copy_(columns.mean(dim=0))
            self.scale.copy_(columns.std(dim=0, correction=0) + SCALE_OFFSET)
            if self.bins is not None:
                standard = ((columns - self.mean) / self.scale).float()
                self.bins.prepare(standard)
                moments = torch.zeros(2, len(self.bin_mean), dtype=torch.float64)
                for part in standard.split(512):  # all records at once are six times the columns
                    reach = self.bins(part).double()
                    moments += torch.stack([reach.sum(dim=0), (reach**2).sum(dim=0)])
                mean, square = moments / len(standard)
                self.bin_mean.copy_(mean)
                self.bin_scale.copy_((square - mean**2).clamp(min=0).sqrt() + SCALE_OFFSET)

    def forward(
        self,
        batch: IrregularBatch,
        columns: Float[Tensor, "batch column"],
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> tuple[Float[Tensor, "member batch code"], Float[Tensor, "member batch read"]]:
        """The codes, and everything that was read (`n_read` columns), standardised.

        `columns` are the batch's `summary_columns`, which several towers may share.

        Columns of unseen variables are set to their mean: the tower shall do without them, and not
        take them for unmeasured, which is a finding of its own.
        """
        columns, per_variable = (columns - self.mean) / self.scale, N_SUMMARIES
        if self.bins is not None:
            columns = (self.bins(columns) - self.bin_mean) / self.bin_scale
            per_variable *= self.bins.per_column
        if unseen is not None:
            gone = unseen.repeat_interleave(per_variable, dim=1)
            given = columns.shape[1] - gone.shape[1]  # columns of treatments stand behind
            columns = columns.masked_fill(torch.cat([gone, gone.new_zeros(len(gone), given)], 1), 0)
        columns = columns.expand(self.members, -1, -1)
        statics = static_inputs(batch).expand(self.members, -1, -1)
        hidden = functional.silu(self.inward(dropout(columns, self.dropout, generator)))
        static = functional.silu(self.static(statics))
        code = functional.silu(self.outward(torch.cat([hidden, static], dim=2)))
        return code, torch.cat([columns, statics], dim=2)


def static_inputs(batch: IrregularBatch) -> Float[Tensor, "batch twice_static"]:
    """Statics, 0 where missing, and whether each is known."""
    known = batch.static_mask.to(batch.static.dtype)
    return torch.cat([batch.static * known, known], dim=1)


def summary_columns(batch: IrregularBatch) -> Float[Tensor, "batch column"]:
    """Summaries of every variable side by side, then those of the inputs."""
    parts = [summarize(batch).flatten(1), summarize_treatments(batch).flatten(1)]
    return torch.cat(parts, dim=1)


def _first_and_last(
    batch: IrregularBatch,
) -> tuple[Float[Tensor, "batch variable"], Float[Tensor, "batch variable"]]:
    # A row is the first of a variable where it was never seen before. The last one is what is
    # carried behind the last row of the subject.
    is_first = batch.mask & (batch.last_seen < 0)
    value = chosen(is_first, batch.value)
    first = sum_by_subject(value, batch.row_subject, len(batch))
    here = batch.mask[batch.last_row]
    row = torch.where(here, batch.last_row.unsqueeze(1), batch.last_seen[batch.last_row])
    last = torch.where(row >= 0, batch.value.gather(0, row.clamp(min=0)), 0.0)
    return first, last


def _extreme(rows: Tensor, subject: Tensor, n_subjects: int, which: str) -> Tensor:
    start = torch.inf if which == "amin" else -torch.inf
    index = subject.unsqueeze(1).expand_as(rows)
    return rows.new_full((n_subjects, rows.shape[1]), start).scatter_reduce(
        0, index, rows, which, include_self=True
    )
