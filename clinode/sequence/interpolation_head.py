"""The readout of an interpolation: a ridge on a variable's own neighbours, and what a network adds.

The state of a query is a smoother's: the family runs forwards up to the query and a second time,
with weights of its own, backwards from the prediction time down to it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import Interpolate, IrregularBatch, PackedRecords, Preprocessor
from clinode.errors import ArgumentError
from clinode.sequence.heads import known_share, known_targets
from clinode.sequence.inputs import REFERENCE_WINDOW
from clinode.sequence.layers import dropout, linear
from clinode.sequence.memory import last_measured
from clinode.sequence.readout import Encoding, Head, HeadSizes, Readout, in_batches
from clinode.sequence.summaries import StatisticsTower, summary_columns

FADING = (3.0, 12.0)  # hours of a 48-hour window: of a neighbour's weight with its distance
KERNELS = (1.0, 3.0, 10.0)  # hours of such a window: of means over both sides
N_COLUMNS = 2 * len(FADING) + len(KERNELS) + 4
PENALTY = 30.0  # queries
HALF_TRUSTED = 1000.0  # training queries of a variable to which a network adds half of what it says


class InterpolationHead(Head):
    """Mean and log variance of every variable at each query time, from both sides of it.

    Args:
        schema: Of the training part.
        task: What is asked.
        sizes: Of the towers.
        generator: Draws the weights.
    """

    weight: Tensor
    trust: Tensor

    def __init__(
        self, schema: Preprocessor, task: Interpolate, sizes: HeadSizes, generator: torch.Generator
    ):
        super().__init__()
        n_variables = len(schema.variables)
        self.n_variables, self.dropout = n_variables, sizes.dropout
        self.pace = REFERENCE_WINDOW / schema.window
        self.register_buffer("weight", torch.ones(n_variables))
        self.register_buffer("trust", torch.ones(n_variables))
        # one axis each, so that no optimiser takes the coefficients for a matrix and decays them
        self.coefficient = nn.Parameter(torch.zeros(n_variables * N_COLUMNS))
        self.doubt = nn.Parameter(torch.zeros(n_variables * len(KERNELS)))
        self.statistics = StatisticsTower(
            schema,
            members=sizes.statistics_members,
            hidden=sizes.statistics_hidden,
            code=sizes.statistics_hidden,
            dropout=sizes.statistics_dropout,
            static_code=sizes.static_code,
            generator=generator,
        )
        n_read = 2 * sizes.n_features + sizes.statistics_hidden
        self.hidden = linear(n_read, sizes.head_hidden, generator)
        self.out = linear(sizes.head_hidden, 2 * n_variables, generator, bias=0.0)
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def prepare(self, records: PackedRecords) -> None:
        """Fit the ridges on the training part, and count the queries of each variable.

        Variables are weighed by (mean count / count)^.5 in the loss.
        """
        counts = torch.zeros(self.n_variables, dtype=torch.float64)
        gram = torch.zeros(self.n_variables, N_COLUMNS, N_COLUMNS, dtype=torch.float64)
        moment = torch.zeros(self.n_variables, N_COLUMNS, dtype=torch.float64)
        for batch in in_batches(records, dtype=torch.float64):
            if batch.target is None or batch.target_mask is None:
                continue
            columns, _ = neighbours(batch, self.pace)
            for variable in range(self.n_variables):
                asked = batch.target_mask[:, :, variable]
                own = columns[:, :, variable][asked]
                gram[variable] += own.T @ own
                moment[variable] += own.T @ batch.target[:, :, variable][asked]
            counts += batch.target_mask.sum(dim=(0, 1))
        mean = counts[counts > 0].mean()
        self.weight.copy_(torch.where(counts > 0, torch.sqrt(mean / counts.clamp(min=1)), 0.0))
        self.trust.copy_(counts / (counts + HALF_TRUSTED))
        penalty = PENALTY * torch.eye(N_COLUMNS, dtype=torch.float64)
        penalty[-1, -1] = 1e-3  # the level itself is not drawn to 0, and still has a solution
        fitted = torch.linalg.solve(gram + penalty, moment.unsqueeze(2))
        with torch.no_grad():
            self.coefficient.copy_(fitted.flatten())

    def forward(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Readout:
        """Values at `batch.query_time`; those behind a subject's last query are meaningless."""
        if encoding.behind is None:
            raise ArgumentError("an interpolation needs a model that was built for it")
        columns, mass = neighbours(batch, self.pace)
        if unseen is not None:  # but the level stays
            hidden = unseen[:, None, :, None]
            columns = torch.cat([columns[..., :-1].masked_fill(hidden, 0.0), columns[..., -1:]], 3)
            mass = mass.masked_fill(hidden, 0.0)
        anchor = (columns * self.coefficient.view(self.n_variables, N_COLUMNS)).sum(dim=3)
        code, _ = self.statistics(batch, summary_columns(batch), generator, unseen)
        code = code.mean(dim=0).unsqueeze(1).expand(-1, anchor.shape[1], -1)
        read = torch.cat([encoding.at_query, encoding.behind.at_query, code], dim=2)
        hidden = functional.silu(self.hidden(dropout(read, self.dropout, generator)))
        correction, log_variance = self.out(hidden).chunk(2, dim=2)
        doubt = (torch.log1p(mass) * self.doubt.view(self.n_variables, -1)).sum(dim=3)
        return Readout(
            value=anchor + self.trust * correction,
            log_variance=(log_variance + doubt).clamp(-8, 8),
            next_observation=encoding.next_observation,
        )

    def counts(self, batch: IrregularBatch) -> Float[Tensor, " part"]:
        """Known targets."""
        return known_targets(batch)[1].sum().to(batch.dtype).unsqueeze(0)

    def loss(
        self,
        batch: IrregularBatch,
        readout: Readout,
        auxiliary_weight: float,
        counts: Float[Tensor, " part"],
    ) -> Float[Tensor, ""]:
        """Weighted squared error, plus .3 of the Gaussian likelihood with the error held fixed."""
        target, known = known_targets(batch)
        square = (target - readout.value) ** 2
        log_variance = torch.zeros_like(square)
        if readout.log_variance is not None:
            log_variance = readout.log_variance
        likelihood = 0.5 * (log_variance + square.detach() * torch.exp(-log_variance))
        squared = known_share(square * self.weight, known, counts[0])
        return squared + 0.3 * known_share(likelihood, known, counts[0])

    def prediction_loss(self, batch: IrregularBatch, readout: Readout) -> tuple[float, int]:
        """Squared error on the standardised scale."""
        target, known = known_targets(batch)
        losses = (readout.value.double() - target.double()).square()
        return float(losses[known].sum()), int(known.sum())


def neighbours(
    batch: IrregularBatch, pace: float
) -> tuple[
    Float[Tensor, "batch query variable column"], Float[Tensor, "batch query variable kernel"]
]:
    """What a variable's own observations on both sides say of each query, and how many are near.

    The value before and the one after, each faded by its distance; the line between the two, or the
    one there is; means over both sides with weights exp(-distance / kernel), drawn to 0 by one
    observation's weight; the mean of the record; whether there is anything; 1.

    Args:
        batch: With query times.
        pace: Hours of a 48-hour window in one hour.

    Returns:
        Columns, and the sum of the weights under each kernel.

    Raises:
        ArgumentError: The batch has no query times.
    """
    if batch.query_time is None:
        raise ArgumentError(
            "an interpolation needs query times", fix="batch(..., query_after=[...])"
        )
    asked = torch.where(
        batch.query_time.isnan(), batch.prediction_time.unsqueeze(1), batch.query_time
    )
    ahead = batch.replace(query_time=asked)
    before, since = _nearest(ahead, pace)
    after, until = _nearest(ahead.reversed(), pace)
    has_before, has_after = since.isfinite(), until.isfinite()
    share = torch.where(since + until > 0, since / (since + until), 0.5)
    between = before + torch.nan_to_num(share) * (after - before)
    line = torch.where(has_before & has_after, between, torch.where(has_before, before, after))
    columns = [line]
    for hours in FADING:
        columns += [before * torch.exp(-since / hours), after * torch.exp(-until / hours)]
    padded = batch.padded()
    seen = padded.mask.to(batch.dtype)
    distance = ((asked.unsqueeze(2) - padded.time.unsqueeze(1)).abs() * pace).to(batch.dtype)
    masses = []
    for hours in KERNELS:
        near = torch.exp(-distance / hours)
        masses.append(near @ seen)
        columns.append((near @ padded.value) / (masses[-1] + 1))
    count = seen.sum(dim=1)
    mean = (padded.value * seen).sum(dim=1) / count.clamp(min=1)
    columns.append(mean.unsqueeze(1).expand_as(line))
    columns.append((has_before | has_after).to(batch.dtype))
    columns.append(torch.ones_like(line))
    return torch.stack(columns, dim=3), torch.stack(masses, dim=3)


def _nearest(
    batch: IrregularBatch, pace: float
) -> tuple[Float[Tensor, "batch query variable"], Float[Tensor, "batch query variable"]]:
    """Value of each variable last measured at or before each query, and hours since (48-hour pace).

    0 and infinity where there is none.
    """
    query = batch.query_time
    if query is None:
        raise ArgumentError("there are no query times")
    last = last_measured(batch, batch.row_before(query))
    there, held = last >= 0, last.clamp(min=0)
    variable = torch.arange(batch.value.shape[1], device=last.device)
    since = ((query.unsqueeze(2) - batch.time[held]) * pace).to(batch.dtype)
    value = torch.where(there, batch.value[held, variable], 0.0)
    return value, torch.where(there, since, torch.inf)
