"""A linear-Gaussian state-space model in continuous time, filtered exactly.

    dz = (A z + B u) dt + dW,    y = P z + R h + p + noise

with a full stable drift A, full process noise, a noise variance of each variable, and h the memory
of last values, which is known when y is measured: given the past everything is Gaussian, so the
filter and its likelihood are exact, and without R they are those of a Gaussian process. The map
P z + R h + p is the decoder that every family has.

The state is written in the coordinates in which its stationary covariance is the identity:

    A = K - K' - D^1/2 (U U' + eps) D^1/2 / 2,    E[dW dW'] = D^1/2 (U U' + eps) D^1/2 dt

with rates D on a log scale. It is stable for every K, U and D, and every stationary model can be
written so (`gaussian_filter`).
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.gaussian_filter import Filtered, driven_flows, flows, run_filter
from clinode.sequence.inputs import REFERENCE_WINDOW, Drive
from clinode.sequence.latent_system import (
    LinearLatentSystem,
    original_drive,
    with_rows_of_zeros,
)
from clinode.sequence.layers import linear
from clinode.sequence.model import SequenceModel
from clinode.sequence.readout import Encoding
from clinode.sequence.summaries import static_inputs
from clinode.system import System

TIME_CONSTANTS = (0.0, 2.0)  # log10 of hours of a 48-hour window, over the states at the start
MAX_FREQUENCY = 0.5  # rad per such hour, at the start
NOISE = 0.5  # standard deviation of a standardised measurement, at the start
LEAST_NOISE = 1e-3  # of it, whatever is learned
LEAST_SHARE = 1e-3  # eps: of the rate at which a state forgets, whatever is learned


class KalmanLatentODE(SequenceModel):
    """Linear-Gaussian state-space model with its exact likelihood, beside a statistics tower.

    At its first row a record starts from the stationary covariance and a mean that the statics
    tell.

    Args:
        latent: States.
        hidden: Features read from the state at each row.
        likelihood_weight: Of the exact log likelihood, a measured value, in the loss.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "kalman-latent-ode"

    def __init__(
        self,
        latent: int = 16,
        hidden: int = 48,
        likelihood_weight: float = 0.5,
        dropout: float | None = None,
        statistics_dropout: float | None = None,
        statistics_members: int | None = None,
        statistics_hidden: int | None = None,
        head_hidden: int | None = None,
        static_code: int = 16,
        auxiliary_weight: float = 0.4,
        next_observation_weight: float = 0.3,
        drop_variable: float = 0.1,
        drop_observation: float = 0.1,
    ):
        super().__init__(locals())

    def _construct(self, generator: torch.Generator) -> tuple[int, int]:
        n, n_variables = self.settings.latent, len(self.schema.variables)
        self.log_rate = nn.Parameter(-torch.logspace(*TIME_CONSTANTS, n).log())
        self.mix = nn.Parameter(torch.eye(n) * math.sqrt(2))  # U
        turn = torch.zeros(n, n)  # K, per hour of a 48-hour window: every other pair turns
        first = torch.arange(0, n - 1, 4)
        turn[first, first + 1] = torch.empty(len(first)).uniform_(
            0, MAX_FREQUENCY, generator=generator
        )
        turn += torch.empty(n, n).uniform_(-0.01, 0.01, generator=generator)
        self.turn = nn.Parameter(turn)
        self.drive = Drive(n, self.schema)
        self.start = nn.Parameter(torch.zeros(n, 2 * len(self.schema.statics)))
        excess = math.log(NOISE**2 - LEAST_NOISE**2)
        self.log_noise = nn.Parameter(torch.full((n_variables,), excess))
        self.read = linear(n + n_variables, self.settings.hidden, generator)
        self.norm = nn.LayerNorm(self.settings.hidden)
        return n, self.settings.hidden

    @property
    def drift(self) -> Float[Tensor, "state state"]:
        """A, per hour, float64."""
        turn, mix = self.turn.double(), self.mix.double()
        rate = torch.exp(self.log_rate.double() / 2)
        lost = mix @ mix.T + LEAST_SHARE * torch.eye(len(mix), dtype=mix.dtype, device=mix.device)
        pace = REFERENCE_WINDOW / self.schema.window
        return pace * (turn - turn.T - rate.unsqueeze(1) * lost * rate / 2)

    @property
    def noise(self) -> Float[Tensor, " variable"]:
        """Variance of each variable's measurement, standardised, float64."""
        return torch.exp(self.log_noise.double()) + LEAST_NOISE**2

    @property
    def latent_system(self) -> System:
        """x' = A x + B u beside the memory, with y = the decoded variables in original units."""
        self._require_built()
        rate = self.memory.rate.double()
        return LinearLatentSystem(
            torch.block_diag(self.drift, -rate.diag()),
            with_rows_of_zeros(original_drive(self.drive.matrix, self.schema), len(rate)),
            self.decoder.weight,
            self.decoder.bias,
            low=self.latent_low,
            high=self.latent_high,
            schema=self.schema,
        )

    def log_likelihood(self, batch: IrregularBatch) -> Float[Tensor, " batch"]:
        """Exact log density of each record's values, standardised; float64, differentiable."""
        self._require_built()
        rows = self._filter(batch, self.memory.before(batch)).log_likelihood
        return rows.new_zeros(len(batch)).index_add(0, batch.row_subject, rows)

    def moments(
        self, batch: IrregularBatch, query_time: Float[Tensor, "batch query"]
    ) -> tuple[Float[Tensor, "batch query variable"], Float[Tensor, "batch query variable"]]:
        """Mean and variance of a measurement at asked times, standardised, float64.

        Given what lies at or before each time. A memory is held as the record leaves it, so the
        variance is that of the state and of the measurement.
        """
        self._require_built()
        row = batch.row_before(query_time)
        kept, _ = self._run(batch, self.memory.before(batch))
        states = self._carry(batch, kept, query_time, row)
        remembered = self.memory.at(batch, query_time, row)
        mean = self.decoder(torch.cat([states, remembered], dim=2)).double()
        held, n = row.clamp(min=0), self.settings.latent
        covariance = kept[held, n:-1].double().unflatten(2, (n, n))
        C, _ = self._maps
        Phi = flows(self.drift, _hours_on(batch, query_time, row))
        eye = torch.eye(n, dtype=C.dtype, device=C.device)
        known = torch.where((row >= 0)[..., None, None], eye - covariance, 0.0)
        gained = C @ Phi @ known @ Phi.mT @ C.T  # what the record tells of P z
        variance = (C**2).sum(dim=1) - gained.diagonal(dim1=2, dim2=3) + self.noise
        return mean, variance

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row kept"], Float[Tensor, "row latent"]]:
        """Kept of a row are the mean, the covariance, and the log likelihood of its values."""
        found = self._filter(batch, remembered)
        parts = [found.after, found.covariance.flatten(1), found.log_likelihood.unsqueeze(1)]
        kept = torch.cat(parts, dim=1)
        return kept.to(batch.dtype), found.before.to(batch.dtype)

    def _filter(self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]) -> Filtered:
        C, recall = self._maps
        expected = remembered.double() @ recall.T + self.decoder.bias.double()
        gap = batch.gap.double()
        first = batch.sizes[0]
        gap = torch.cat([batch.time[:first].clamp(min=0), gap[first:]])
        A, moved = self.drift, None
        if batch.treatments is None:
            Phi = flows(A, gap)
        else:
            Phi, Gamma = driven_flows(A, gap)
            rates = self.drive(batch.treatments.rates(batch.n_rows)).double()
            doses = self.drive(batch.treatments.impulses(batch.n_rows)).double()
            moved = (Gamma @ rates.unsqueeze(2)).squeeze(2) + doses
        value = batch.value.double() - expected
        return run_filter(Phi, moved, self._started(batch), value, C, self.noise.log(), batch)

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row kept"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        known = (row >= 0).unsqueeze(-1)
        held = self._shown(states)[row.clamp(min=0)].double()
        state = torch.where(known, held, self._started(batch).unsqueeze(1)).unsqueeze(3)
        gap = _hours_on(batch, query_time, row)
        if batch.treatments is None:
            carried = flows(self.drift, gap) @ state
        else:
            Phi, Gamma = driven_flows(self.drift, gap)
            given = self.drive(batch.rates_after(row)).double().unsqueeze(3)
            carried = Phi @ state + Gamma @ given
        return carried.squeeze(3).to(batch.dtype)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(self.read(torch.cat([states, remembered], dim=-1)))

    def _shown(self, kept: Float[Tensor, "*place kept"]) -> Float[Tensor, "*place latent"]:
        return kept[..., : self.settings.latent]

    def _own_loss(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        n_measured: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """The negative log likelihood of the records, a measured value."""
        likelihood = encoding.after[:, -1].sum() / n_measured.clamp(min=1)
        return -self.settings.likelihood_weight * likelihood

    @property
    def _maps(self) -> tuple[Float[Tensor, "variable state"], Float[Tensor, "variable variable"]]:
        """P and R of the decoder, float64."""
        n_variables = len(self.schema.variables)
        sizes = [self.settings.latent, n_variables]
        observation, recall = self.decoder.weight.double().split(sizes, dim=1)
        return observation, recall

    def _started(self, batch: IrregularBatch) -> Float[Tensor, "batch state"]:
        """Mean at hour 0, or at the first row where that is earlier; float64."""
        return static_inputs(batch).double() @ self.start.double().T


def _hours_on(
    batch: IrregularBatch,
    query_time: Float[Tensor, "batch query"],
    row: Int64[Tensor, "batch query"],
) -> Float[Tensor, "batch query"]:
    """Hours from these rows, or from hour 0 where there is none, to asked times; float64."""
    since = query_time - torch.where(row >= 0, batch.time[row.clamp(min=0)], 0.0)
    return since.clamp(min=0)
