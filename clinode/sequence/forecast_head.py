"""The readout of a forecast: a ridge on each variable's past, and what a network adds to it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import Forecast, IrregularBatch, PackedRecords, Preprocessor
from clinode.sequence.anchor import N_SEEN, Anchor, carried_forward, hours_ahead
from clinode.sequence.diagonal_flow import rotate, transition
from clinode.sequence.heads import known_share, known_targets
from clinode.sequence.inputs import REFERENCE_WINDOW
from clinode.sequence.layers import dropout, linear, sum_by_subject
from clinode.sequence.readout import Encoding, Head, HeadSizes, Readout, in_batches
from clinode.sequence.summaries import StatisticsTower, summary_columns

DECODER_MODES = 24  # of a forecast, and as many complex constants
HALF_TRUSTED = 4000.0  # training queries of a variable to which a network adds half of what it says


class ForecastHead(Head):
    """Mean and log variance of every variable at each query time.

    The mean is a ridge on the variable's own past, plus what the network adds: a weighted
    combination of what was last and on average seen, and a correction carried by modes that decay
    and rotate. What it adds to a variable with n training queries counts n / (n + 4000): on rare
    variables a network is worse than the ridge by more than it is better on common ones.

    Args:
        schema: Of the training part.
        task: Its horizon sets the pace of the decoder's modes, whose time constants reach from 1/48
            to 2 spans of window and horizon.
        sizes: Of the towers.
        generator: Draws the weights.
    """

    weight: Tensor
    trust: Tensor

    def __init__(
        self,
        schema: Preprocessor,
        task: Forecast,
        sizes: HeadSizes,
        generator: torch.Generator,
    ):
        super().__init__()
        n_features = sizes.n_features
        n_variables, modes = len(schema.variables), DECODER_MODES
        self.dropout = sizes.dropout
        pace = REFERENCE_WINDOW / (schema.window + task.horizon)
        self.register_buffer("weight", torch.ones(n_variables))
        self.register_buffer("trust", torch.ones(n_variables))
        self.anchor = Anchor(n_variables, pace)
        self.statistics = StatisticsTower(
            schema,
            members=sizes.statistics_members,
            hidden=sizes.statistics_hidden,
            code=sizes.statistics_hidden,
            dropout=sizes.statistics_dropout,
            static_code=sizes.static_code,
            generator=generator,
        )
        self.start = linear(2 * n_features + sizes.statistics_hidden, 4 * modes, generator)
        spread = torch.logspace(0, 2, modes) / pace
        self.log_decay = nn.Parameter(-torch.log(spread))
        frequency = torch.empty(modes).uniform_(0, 0.5, generator=generator) * pace
        frequency[::2] = 0.0
        self.frequency = nn.Parameter(frequency)
        self.hidden = linear(4 * modes + n_features, sizes.head_hidden, generator)
        self.out = linear(sizes.head_hidden, 2 * n_variables, generator, bias=0.0)
        self.combine = linear(
            2 * n_features + sizes.statistics_hidden, N_SEEN * n_variables, generator, bias=0.0
        )
        with torch.no_grad():
            self.out.weight[:n_variables].mul_(0.1)
            self.combine.weight.mul_(0.1)

    def prepare(self, records: PackedRecords) -> None:
        """Weigh variables by (mean count / count)^.5 of the training part's targets."""
        counts = torch.zeros(len(self.weight), dtype=torch.float64)
        for batch in in_batches(records):
            if batch.target_mask is not None:
                counts += batch.target_mask.sum(dim=(0, 1))
        mean = counts[counts > 0].mean()
        self.weight.copy_(torch.where(counts > 0, torch.sqrt(mean / counts.clamp(min=1)), 0.0))
        self.trust.copy_(counts / (counts + HALF_TRUSTED))

    def forward(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        unseen: Bool[Tensor, "batch variable"] | None = None,
    ) -> Readout:
        """Forecasts at `batch.query_time`; those behind a subject's last query are meaningless."""
        observed = encoding.is_observed.to(batch.dtype).unsqueeze(1)
        subject, n = batch.row_subject, len(batch)
        mean = sum_by_subject(encoding.features * observed, subject, n)
        mean = mean / sum_by_subject(observed, subject, n).clamp(min=1)
        code, _ = self.statistics(batch, summary_columns(batch), generator, unseen)
        everything = torch.cat([encoding.at_prediction, mean, code.mean(dim=0)], dim=1)
        everything = dropout(everything, self.dropout, generator)
        start, constant = self.start(everything).chunk(2, dim=1)
        ahead = hours_ahead(batch)
        cosine, sine = transition(torch.exp(self.log_decay), self.frequency, ahead)
        moved = rotate(cosine, sine, start.unsqueeze(1).expand(-1, ahead.shape[1], -1))
        parts = [moved, constant.unsqueeze(1).expand_as(moved), encoding.at_query]
        hidden = functional.silu(self.hidden(torch.cat(parts, dim=2)))
        correction, log_variance = self.out(hidden).chunk(2, dim=2)
        seen = carried_forward(batch, self.anchor.pace)
        if unseen is not None:
            seen = seen.masked_fill(unseen.unsqueeze(1), 0.0)
        weights = self.combine(everything).view(n, N_SEEN, -1)
        own = (weights * seen).sum(dim=1).unsqueeze(1) + correction
        return Readout(
            value=self.anchor(batch, seen, unseen) + self.trust * own,
            log_variance=log_variance.clamp(-8, 8),
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
        squared = known_share(square * self.weight, known, counts[0])
        log_variance = torch.zeros_like(square)
        if readout.log_variance is not None:
            log_variance = readout.log_variance
        likelihood = 0.5 * (log_variance + square.detach() * torch.exp(-log_variance))
        return squared + 0.3 * known_share(likelihood, known, counts[0])

    def prediction_loss(self, batch: IrregularBatch, readout: Readout) -> tuple[float, int]:
        """Squared error on the standardised scale."""
        target, known = known_targets(batch)
        losses = (readout.value.double() - target.double()).square()
        return float(losses[known].sum()), int(known.sum())
