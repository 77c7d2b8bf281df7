"""Neural flow: the solution of a field is learned itself, so no solver is needed.

After Bilos et al. 2021 (arXiv:2110.13040). A flow must start where it is, F(0, z) = z, and go on
where it was, F(s + t, z) = F(s, F(t, z)). Both hold exactly here because the flow is that of a
stable linear system seen through an invertible network: F(t, z) = psi^-1(exp(Lambda t) psi(z)), psi
made of affine couplings. Its field is therefore known, rests at psi^-1(-Lambda^-1 B u) alone, and
treatments drive the linear coordinates.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.coupling import CouplingMap
from clinode.sequence.diagonal_flow import response, rotate, transition
from clinode.sequence.flow_system import FlowLatentSystem
from clinode.sequence.inputs import REFERENCE_WINDOW, Drive, hours_since, n_step_inputs, step_inputs
from clinode.sequence.latent_system import original_drive
from clinode.sequence.layers import gated_update, linear, matrix
from clinode.sequence.model import SequenceModel
from clinode.system import System

TIME_CONSTANTS = (0.0, 2.0)  # log10 of hours of a 48-hour window, over the modes
MAX_FREQUENCY = 0.5  # rad per such hour, at the start


class NeuralFlow(SequenceModel):
    """An exact nonlinear flow between rows, a GRU update at rows, a statistics tower.

    Args:
        latent: Complex modes of the linear system behind the network; the state is twice as wide.
        coupling: Width of the network's layers.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "neural-flow"

    def __init__(
        self,
        latent: int = 24,
        coupling: int = 32,
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
        modes = self.settings.latent
        states = 2 * modes
        pace = REFERENCE_WINDOW / self.schema.window
        self.log_decay = nn.Parameter(-torch.log(torch.logspace(*TIME_CONSTANTS, modes) / pace))
        frequency = torch.empty(modes).uniform_(0, MAX_FREQUENCY, generator=generator) * pace
        frequency[::2] = 0.0
        self.frequency = nn.Parameter(frequency)
        self.map = CouplingMap(states, self.settings.coupling, generator)
        self.drive = Drive(states, self.schema)
        n_inward = n_step_inputs(len(self.schema.variables), len(self.schema.inputs))
        self.inward = linear(n_inward, 3 * states, generator)
        self.recur = matrix(3 * states, states, generator)
        self.norm = nn.LayerNorm(states)
        return states, states

    @property
    def latent_system(self) -> System:
        """z' = Dpsi^-1(w) (Lambda w + B u) with w = psi(z), decoded in original units."""
        self._require_built()
        return FlowLatentSystem(
            torch.exp(self.log_decay),
            self.frequency,
            self.map,
            original_drive(self.drive.matrix, self.schema),
            self.memory.rate,
            self.decoder,
            low=self.latent_low,
            high=self.latent_high,
            schema=self.schema,
        )

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        gap, decay = hours_since(batch, query_time, row), torch.exp(self.log_decay)
        w = self.map(states[row.clamp(min=0)])
        w = rotate(*transition(decay, self.frequency, gap), w)
        if batch.treatments is not None:
            given = self.drive(batch.rates_after(row))
            w = w + rotate(*response(decay, self.frequency, gap), given)
        return torch.where((row >= 0).unsqueeze(-1), self.map.inverse(w), 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        inward = self.inward(step_inputs(batch, remembered))
        observed = batch.is_observed.unsqueeze(1)
        decay = torch.exp(self.log_decay)
        columns = (inward, observed, *transition(decay, self.frequency, batch.gap))
        parts = [part.split(batch.sizes) for part in columns]
        drives = None
        if batch.treatments is not None:
            rates = self.drive(batch.treatments.rates(batch.n_rows))
            doses = self.drive(batch.treatments.impulses(batch.n_rows))
            driven = rotate(*response(decay, self.frequency, batch.gap), rates) + doses
            drives = driven.split(batch.sizes)
        weight = self.recur.T
        # between updates the linear coordinates alone are kept: going to and fro would round
        w = self.map(inward.new_zeros(len(batch), weight.shape[0]))
        linear_states, flowed = [], []
        for step, n in enumerate(batch.sizes):
            x, o, cosine, sine = (part[step] for part in parts)
            w = rotate(cosine, sine, w[:n] if len(w) > n else w)
            if drives is not None:
                w = w + drives[step]
            z = self.map.inverse(w)
            flowed.append(z)
            updated = self.map(gated_update(x, z, weight, o.to(z.dtype)))
            w = torch.where(o, updated, w)
            linear_states.append(w)
        return self.map.inverse(torch.cat(linear_states)), torch.cat(flowed)
