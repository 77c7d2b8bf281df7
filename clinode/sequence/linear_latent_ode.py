"""The default model: a diagonal complex linear latent ODE, fused late with a statistics tower.

Between observations the state obeys z' = Lambda z + B u, stable and solved exactly over each
subject's own gaps. At a row with observations a gate in (0, 1) moves it towards what the
innovation and the observations say. Beside it stands a memory h of each variable's last value,
h' = -d h. The decoder y = P z + R h + p that forms the innovation is trained to expect the next
observation, and is the output map of the latent system, whose state is (z, h).
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.diagonal_flow import (
    FilterAlongFlow,
    filter_by_autograd,
    response,
    rotate,
    transition,
)
from clinode.sequence.inputs import REFERENCE_WINDOW, Drive, n_step_inputs, step_inputs
from clinode.sequence.latent_system import (
    LinearLatentSystem,
    modal_drift,
    original_drive,
    with_rows_of_zeros,
)
from clinode.sequence.layers import linear, matrix
from clinode.sequence.model import SequenceModel
from clinode.system import System

TIME_CONSTANTS = (1.0, 100.0)  # hours of a 48-hour window, log-spaced over the modes
MAX_FREQUENCY = 0.5  # rad per such hour, at the start


class LinearLatentODE(SequenceModel):
    """Diagonal complex linear latent ODE with a gated update, beside a statistics tower.

    Args:
        latent: Complex modes; the state has twice as many real coordinates.
        hidden: Features read from the state at each row.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "linear-latent-ode"

    def __init__(
        self,
        latent: int = 24,
        hidden: int = 48,
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
        modes, n_variables = self.settings.latent, len(self.schema.variables)
        n_inputs, hidden = len(self.schema.inputs), self.settings.hidden
        states = 2 * modes
        pace = REFERENCE_WINDOW / self.schema.window
        spread = torch.logspace(0, 2, modes) / pace
        self.log_decay = nn.Parameter(-torch.log(spread))
        frequency = torch.empty(modes).uniform_(0, MAX_FREQUENCY, generator=generator) * pace
        frequency[::2] = 0.0
        self.frequency = nn.Parameter(frequency)
        n_step = n_step_inputs(n_variables, n_inputs)
        self.gate = linear(n_step, states, generator, bias=-1.0)
        self.aim = linear(n_step, states, generator)
        self.gate_state = matrix(states, states, generator)
        self.correct = matrix(states, n_variables, generator)
        self.drive = Drive(states, self.schema)
        self.read = linear(states + n_variables, hidden, generator)
        self.norm = nn.LayerNorm(hidden)
        return states, hidden

    @property
    def latent_system(self) -> System:
        """x' = A x + B u in real coordinates, with y = the decoded variables in original units."""
        self._require_built()
        rate = self.memory.rate
        return LinearLatentSystem(
            torch.block_diag(modal_drift(torch.exp(self.log_decay), self.frequency), -rate.diag()),
            with_rows_of_zeros(original_drive(self.drive.matrix, self.schema), len(rate)),
            self.decoder.weight,
            self.decoder.bias,
            low=self.latent_low,
            high=self.latent_high,
            schema=self.schema,
        )

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        step = step_inputs(batch, remembered)
        decay = torch.exp(self.log_decay)
        cosine, sine = transition(decay, self.frequency, batch.gap)
        drive = None
        if batch.treatments is not None:
            rates = self.drive(batch.treatments.rates(batch.n_rows))
            real, imaginary = response(decay, self.frequency, batch.gap)
            doses = self.drive(batch.treatments.impulses(batch.n_rows))
            drive = rotate(real, imaginary, rates) + doses
        read_out, recall = self.decoder.weight.split([len(decay) * 2, batch.value.shape[1]], dim=1)
        gate = self.gate(step).masked_fill(~batch.is_observed.unsqueeze(1), -torch.inf)
        # writes into buffers become copies of all rows in an exported program
        is_exported = torch.compiler.is_exporting()
        along = filter_by_autograd if is_exported else FilterAlongFlow.apply
        return along(
            cosine,
            sine,
            drive,
            gate,
            torch.tanh(self.aim(step)),
            batch.value - remembered @ recall.T,
            batch.mask.to(batch.dtype),
            read_out,
            self.decoder.bias,
            self.gate_state,
            self.correct,
            batch.sizes,
        )

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        held, known = row.clamp(min=0), row >= 0
        gap = torch.where(known, query_time - batch.time[held], 0.0).to(batch.dtype)
        decay = torch.exp(self.log_decay)
        flowed = rotate(*transition(decay, self.frequency, gap), states[held])
        if batch.treatments is not None:
            given = self.drive(batch.rates_after(row))
            flowed = flowed + rotate(*response(decay, self.frequency, gap), given)
        return torch.where(known.unsqueeze(-1), flowed, 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(self.read(torch.cat([states, remembered], dim=-1)))
