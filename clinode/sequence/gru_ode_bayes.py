"""GRU-ODE-Bayes: a gated field between rows, a Bayesian-like update by the variables measured.

After De Brouwer et al. 2019 (arXiv:1905.12374). Between rows the gated recurrent unit is read as a
field, x' = a (1 - r(x)) (g(x) - x) + B u, with rates a of its own for each coordinate. The gate r
stays below .9, so that a pull is left at any state and an equilibrium exists under every constant
treatment. At a row each measured variable tells its value, what was expected of it and
how surely, through weights of its own; variables that were not measured tell nothing. The loss
takes the likelihood of what is measured before the update and the distance, after it, from what
Bayes' rule with the measurement noise would make of the expectation.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import IrregularBatch
from clinode.sequence.exponential_steps import ExponentialSteps, Solver, flow, steps_over
from clinode.sequence.gated_system import MOST_HELD, GatedLatentSystem
from clinode.sequence.inputs import REFERENCE_WINDOW, Drive, hours_since
from clinode.sequence.latent_system import original_drive
from clinode.sequence.layers import gated_update, linear, matrix
from clinode.sequence.model import SequenceModel
from clinode.sequence.readout import Encoding
from clinode.system import System

TIME_CONSTANTS = (0.8, 2.0)  # log10 of hours of a 48-hour window, at the start
NOISE = 0.3  # of a measurement, standardised: what Bayes' rule is given
TOLD = 4  # numbers a measured variable tells, and as many it is turned into
MOST_SPREAD = 4.0  # of a log standard deviation, either way


class GRUODEBayes(SequenceModel):
    """A gated field, an update by each measured variable, a likelihood, a statistics tower.

    Args:
        hidden: Width of the state.
        likelihood_weight: Of the family's own loss.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "gru-ode-bayes"
    flow_error = 1e-5

    def __init__(
        self,
        hidden: int = 48,
        likelihood_weight: float = 0.1,
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
        hidden, n_variables = self.settings.hidden, len(self.schema.variables)
        pace = REFERENCE_WINDOW / self.schema.window
        spread = torch.logspace(*TIME_CONSTANTS, hidden) / pace
        self.log_rate = nn.Parameter(-torch.log(spread))
        self.hold = linear(hidden, hidden, generator)  # r
        self.aim = linear(hidden, hidden, generator)  # g
        self.drive = Drive(hidden, self.schema)
        bound = 1 / math.sqrt(TOLD)
        told = torch.empty(n_variables, TOLD, TOLD).uniform_(-bound, bound, generator=generator)
        self.tell = nn.Parameter(told)
        self.tell_offset = nn.Parameter(torch.zeros(n_variables * TOLD))
        self.inward = linear(n_variables * TOLD, 3 * hidden, generator)
        self.recur = matrix(3 * hidden, hidden, generator)
        self.spread = linear(hidden, n_variables, generator, bias=0.0)  # log standard deviation
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def latent_system(self) -> System:
        """x' = a (1 - r(x)) (g(x) - x) + B u beside the memory, decoded in original units."""
        self._require_built()
        return GatedLatentSystem(
            torch.exp(self.log_rate),
            self.hold,
            self.aim,
            original_drive(self.drive.matrix, self.schema),
            self.memory.rate,
            self.decoder,
            low=self.latent_low,
            high=self.latent_high,
            schema=self.schema,
        )

    @property
    def solver(self) -> Solver:
        """That of the field between rows."""
        rate = torch.exp(self.log_rate)
        with torch.no_grad():
            # N(x) = a ((1 - r) (g - x) + x), where |x| <= 1: its slope is at most that of g, plus a
            # half of that of r (|g - x| <= 2, slope of the gate <= 1/4), plus 1
            steep = torch.linalg.matrix_norm(self.aim.weight, 2) + 1
            steep = steep + torch.linalg.matrix_norm(self.hold.weight, 2) / 2
            steepness = steep * rate.max()
        return Solver(rate, steepness, self._flow, self.drive)

    def _steps(self, gap: Float[Tensor, " row"]) -> ExponentialSteps:
        decay, steepness, _, _ = self.solver
        return steps_over(decay, gap, steepness)

    def _flow(self, x: Tensor, steps: ExponentialSteps, drive: Tensor | None) -> Tensor:
        rate = torch.exp(self.log_rate)

        def bounded(at: Tensor) -> Tensor:
            pull = (1 - MOST_HELD * torch.sigmoid(self.hold(at))) * (torch.tanh(self.aim(at)) - at)
            moved = rate * (pull + at)
            return moved if drive is None else moved + drive

        return flow(bounded, x, steps)

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        gap = hours_since(batch, query_time, row).flatten()
        drive = None
        if batch.treatments is not None:
            drive = self.drive(batch.rates_after(row)).flatten(0, 1)
        carried = self._flow(states[row.clamp(min=0)].flatten(0, 1), self._steps(gap), drive)
        return torch.where((row >= 0).unsqueeze(-1), carried.unflatten(0, row.shape), 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _expected(
        self, states: Float[Tensor, "row latent"], remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row variable"], Float[Tensor, "row variable"]]:
        """Mean and log standard deviation of each variable, standardised."""
        mean = self.decoder(torch.cat([states, remembered], dim=1))
        return mean, self.spread(states).clamp(-MOST_SPREAD, MOST_SPREAD)

    def _told(
        self,
        value: Float[Tensor, "row variable"],
        mask: Float[Tensor, "row variable"],
        mean: Float[Tensor, "row variable"],
        log_spread: Float[Tensor, "row variable"],
    ) -> Float[Tensor, "row told"]:
        """What each measured variable tells the update; zeros of those that were not measured."""
        surprise = (value - mean) * torch.exp(-log_spread)
        parts = torch.stack([value, mean, log_spread, surprise], dim=2)
        offset = self.tell_offset.view(-1, TOLD)
        told = functional.relu(torch.einsum("rvk,vlk->rvl", parts, self.tell) + offset)
        return (told * mask.unsqueeze(2)).flatten(1)

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        mask = batch.mask.to(batch.dtype)
        observed = batch.is_observed.unsqueeze(1).to(batch.dtype)
        columns = (batch.value, mask, remembered, observed)
        parts = [part.split(batch.sizes) for part in columns]
        steps = [part.split(batch.sizes) for part in self._steps(batch.gap)]
        drives = doses = None
        if batch.treatments is not None:
            drives = self.drive(batch.treatments.rates(batch.n_rows)).split(batch.sizes)
            doses = self.drive(batch.treatments.impulses(batch.n_rows)).split(batch.sizes)
        weight = self.recur.T
        state = mask.new_zeros(len(batch), self.settings.hidden)
        states, flowed = [], []
        for step, n in enumerate(batch.sizes):
            x, m, held, o = (part[step] for part in parts)
            state = state[:n] if len(state) > n else state
            if step:
                own = ExponentialSteps(*(part[step] for part in steps))
                state = self._flow(state, own, drives[step] if drives else None)
            if doses:
                state = state + doses[step]
            flowed.append(state)
            told = self._told(x, m, *self._expected(state, held))
            state = gated_update(self.inward(told), state, weight, o)
            states.append(state)
        return torch.cat(states), torch.cat(flowed)

    def _own_loss(
        self,
        batch: IrregularBatch,
        encoding: Encoding,
        generator: torch.Generator | None,
        n_measured: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """Likelihood before each update, and the divergence from Bayes' rule after it."""
        mask = batch.mask.to(batch.dtype)
        remembered = self.memory.before(batch)
        mean, log_spread = self._expected(encoding.before, remembered)
        surprise = (batch.value - mean) * torch.exp(-log_spread)
        likelihood = 0.5 * surprise**2 + log_spread
        # what Bayes' rule makes of the expectation, given a measurement with noise
        variance = torch.exp(2 * log_spread)
        gain = variance / (variance + NOISE**2)
        wanted = mean + gain * (batch.value - mean)
        wanted_log = 0.5 * torch.log((1 - gain) * variance)
        now, now_log = self._expected(
            encoding.after, torch.where(batch.mask, batch.value, remembered)
        )
        ratio = torch.exp(2 * (wanted_log - now_log))
        apart = ((wanted - now) * torch.exp(-now_log)) ** 2
        divergence = 0.5 * (ratio + apart - 1) + now_log - wanted_log
        total = (mask * (likelihood + divergence)).sum() / n_measured.clamp(min=1)
        return self.settings.likelihood_weight * total
