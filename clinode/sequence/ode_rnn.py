"""ODE-RNN: a learned field between rows, a gated recurrent unit at rows with observations.

After Rubanova et al. 2019 (arXiv:1907.03907), each subject on its own gaps. The field is decay
plus a bounded term, so an equilibrium exists under every constant treatment. A gap is one
Runge-Kutta step of fourth order, or several where it is long or the field steep; their number
depends on the gap and on the weights, never on the batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.heads import REFERENCE_WINDOW
from clinode.sequence.latent_system import BoundedLatentSystem, original_drive
from clinode.sequence.layers import linear, matrix
from clinode.sequence.linear_latent_ode import step_inputs
from clinode.sequence.model import SequenceModel
from clinode.system import System

STEP_SIZE = 0.35  # of one Runge-Kutta step, times the steepness of the field
MAX_STEPS = 64  # of one gap
"""Error of a step below 1e-5 of the movement; a gap that asks for more than 64 has long decayed."""


class ODERNN(SequenceModel):
    """A field that decays and is driven between rows, a GRU update at rows, a statistics tower.

    Args:
        hidden: Width of the state.
        field_hidden: Width of the field's bounded term.
        dropout: Of the sequence tower's readout.
        statistics_dropout: Of the statistics tower's inputs.
        statistics_hidden: Width of the statistics tower.
        head_hidden: Width of the last hidden layer of each tower. Like the three before, None takes
            what is recommended for the task.
        static_code: Width of the layer behind the statics.
        auxiliary_weight: Weight of the loss of each auxiliary outcome.
        next_observation_weight: Weight of the decoder's loss.
        drop_variable: Share of a record's variables hidden from both towers in training.
        drop_observation: Share of single observations hidden from the sequence in training.
    """

    name = "ode-rnn"

    def __init__(
        self,
        hidden: int = 48,
        field_hidden: int = 32,
        dropout: float | None = None,
        statistics_dropout: float | None = None,
        statistics_hidden: int | None = None,
        head_hidden: int | None = None,
        static_code: int = 16,
        auxiliary_weight: float = 0.4,
        next_observation_weight: float = 0.3,
        drop_variable: float = 0.1,
        drop_observation: float = 0.1,
    ):
        super().__init__(locals())

    def _construct(self, generator: torch.Generator) -> int:
        hidden, inner = self.settings.hidden, self.settings.field_hidden
        n_variables, n_inputs = len(self.schema.variables), len(self.schema.inputs)
        pace = REFERENCE_WINDOW / self.schema.window
        self.log_decay = nn.Parameter(-torch.log(torch.logspace(0.8, 2, hidden) / pace))
        self.bend = matrix(inner, hidden, generator)  # U
        self.bend_offset = nn.Parameter(torch.zeros(inner))
        self.push = nn.Parameter(matrix(hidden, inner, generator).detach() * (0.1 * pace))  # W
        self.drive = nn.Parameter(torch.zeros(hidden, n_inputs))
        n_step = 3 * n_variables + 2 + 2 * n_inputs
        self.inward = linear(n_step, 3 * hidden, generator)
        self.recur = matrix(3 * hidden, hidden, generator)
        self.decoder = linear(hidden, n_variables, generator, bias=0.0)
        self.fade = nn.Parameter(torch.full((n_variables,), 0.05))
        self.fade_offset = nn.Parameter(torch.zeros(n_variables))
        self.norm = nn.LayerNorm(hidden)
        self.register_buffer("latent_low", -torch.ones(hidden))
        self.register_buffer("latent_high", torch.ones(hidden))
        return hidden

    @property
    def latent_system(self) -> System:
        """x' = -a x + W tanh(U x + b) + B u, y = the decoded variables in original units."""
        self._require_built()
        return BoundedLatentSystem(
            torch.exp(self.log_decay),
            self.push,
            self.bend,
            self.bend_offset,
            original_drive(self.drive, self.schema),
            self.decoder.weight,
            self.decoder.bias,
            low=self.latent_low,
            high=self.latent_high,
            schema=self.schema,
        )

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        row = batch.row_before(query_time)
        held, known = row.clamp(min=0), row >= 0
        gap = torch.where(known, query_time - batch.time[held], 0.0).to(batch.dtype).flatten()
        drive = None
        if batch.treatments is not None:
            drive = (batch.rates_after(row) @ self.drive.T).flatten(0, 1)
        flowed = self._flow(states[held].flatten(0, 1), gap, drive, self._n_steps(gap))
        return torch.where(known.unsqueeze(-1), flowed.unflatten(0, row.shape), 0.0)

    def _features(self, states: Float[Tensor, "*place latent"]) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _n_steps(self, gap: Float[Tensor, " row"]) -> Tensor:
        """Runge-Kutta steps of each gap: steepness of the field times the gap, in STEP_SIZEs."""
        with torch.no_grad():
            size = torch.linalg.matrix_norm(self.push, 2) * torch.linalg.matrix_norm(self.bend, 2)
            steepness = torch.exp(self.log_decay).max() + size
            return torch.ceil(gap * steepness / STEP_SIZE).clamp(1, MAX_STEPS)

    def _field(self, x: Tensor, decay: Tensor, drive: Tensor | None) -> Tensor:
        bounded = torch.addmm(self.bend_offset, x, self.bend.T).tanh() @ self.push.T
        field = torch.addcmul(bounded, decay, x, value=-1)
        return field if drive is None else field + drive

    def _flow(self, x: Tensor, gap: Tensor, drive: Tensor | None, n_steps: Tensor) -> Tensor:
        decay = torch.exp(self.log_decay)
        size = (gap / n_steps).unsqueeze(1)
        for done in range(int(n_steps.max())):
            h = torch.where((n_steps > done).unsqueeze(1), size, 0.0) if done else size
            k1 = self._field(x, decay, drive)
            k2 = self._field(x + h / 2 * k1, decay, drive)
            k3 = self._field(x + h / 2 * k2, decay, drive)
            k4 = self._field(x + h * k3, decay, drive)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    def _run(
        self, batch: IrregularBatch
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        inward = self.inward(step_inputs(batch, self.fade, self.fade_offset))
        observed = batch.is_observed.unsqueeze(1).to(batch.dtype)
        parts = [
            part.split(batch.sizes)
            for part in (inward, observed, batch.gap, self._n_steps(batch.gap))
        ]
        drives = doses = None
        if batch.treatments is not None:
            drives = (batch.treatments.rates(batch.n_rows) @ self.drive.T).split(batch.sizes)
            doses = (batch.treatments.impulses(batch.n_rows) @ self.drive.T).split(batch.sizes)
        hidden, weight = self.settings.hidden, self.recur.T
        state = inward.new_zeros(len(batch), hidden)
        states, flowed = [], []
        for step, n in enumerate(batch.sizes):
            x, o, gap, n_steps = (part[step] for part in parts)
            state = state[:n] if len(state) > n else state
            if step:
                state = self._flow(state, gap, drives[step] if drives else None, n_steps)
            if doses:
                state = state + doses[step]
            flowed.append(state)
            gates = torch.addmm(x[:, : 2 * hidden], state, weight[:, : 2 * hidden])
            update, reset = torch.sigmoid(gates).chunk(2, dim=1)
            proposal = torch.addmm(x[:, 2 * hidden :], reset * state, weight[:, 2 * hidden :])
            state = state + o * update * (torch.tanh(proposal) - state)
            states.append(state)
        return torch.cat(states), torch.cat(flowed)
