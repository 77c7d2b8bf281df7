"""Neural controlled differential equation along a causal path of what was observed.

After Kidger et al. 2020 (arXiv:2005.08926): z' = f(z) X', where the control path X holds time,
the value last seen of each variable, and how often each was measured. The path is rectilinear
(Morrill et al. 2021, arXiv:2106.11028): between rows time alone moves, at a row the values jump
while time stands still, so that nothing is read before it was measured. Between rows this leaves an
ordinary field, decay plus a bounded term.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.exponential_steps import ExponentialSteps, Solver
from clinode.sequence.layers import matrix
from clinode.sequence.model import SequenceModel
from clinode.system import System

JUMP_SIZE = 1.0  # of one step along the values, times the steepness of the field there
MOST_JUMPS = 16  # of one row


class NeuralCDE(SequenceModel):
    """A state moved by time between rows and by what was measured at them, a statistics tower.

    Args:
        hidden: Width of the state.
        field_hidden: Width of the bounded term of the field along time, and of that along values.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "neural-cde"
    flow_error = 1e-5

    def __init__(
        self,
        hidden: int = 48,
        field_hidden: int = 32,
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
        hidden, inner = self.settings.hidden, self.settings.field_hidden
        self.field = BoundedField(hidden, inner, self.schema, generator)
        channels = 2 * len(self.schema.variables)
        # along the path: dz = f(z) dX with f(z) = sum over units of tanh(U z + b) times a matrix
        self.along = matrix(hidden * inner, channels, generator)
        self.straight = matrix(hidden, channels, generator)  # f's part that does not depend on z
        self.jump_bend = matrix(inner, hidden, generator)
        self.jump_offset = nn.Parameter(torch.empty(inner).uniform_(-1, 1, generator=generator))
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def solver(self) -> Solver:
        """That of the field between rows."""
        return self.field.solver

    @property
    def latent_system(self) -> System:
        """The field along time: x' = -a x + W tanh(U x + b) + B u, decoded in original units."""
        self._require_built()
        rate, decoder = self.memory.rate, self.decoder
        return self.field.system(rate, decoder, self.latent_low, self.latent_high, self.schema)

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        return self.field.carry(batch, states, query_time, row)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        hidden, inner = self.settings.hidden, self.settings.field_hidden
        mask = batch.mask.to(batch.dtype)
        # counts enter by their roots, so that a variable measured every minute does not swamp them
        moved = torch.cat([(batch.value - batch.carried) * mask, mask * _root_step(batch)], dim=1)
        along = (moved @ self.along.T).view(-1, hidden, inner)
        straight = moved @ self.straight.T
        n_jumps = self._n_jumps(along)
        along, straight = along / n_jumps.view(-1, 1, 1), straight / n_jumps.unsqueeze(1)
        parts = [part.split(batch.sizes) for part in (along, straight, n_jumps)]
        steps = [part.split(batch.sizes) for part in self.field.steps(batch.gap)]
        drives, doses = self.field.drives(batch)
        state = moved.new_zeros(len(batch), hidden)
        states, flowed = [], []
        for step, n in enumerate(batch.sizes):
            state = state[:n] if len(state) > n else state
            if step:
                own = ExponentialSteps(*(part[step] for part in steps))
                state = self.field.flow(state, own, drives[step] if drives else None)
            if doses:
                state = state + doses[step]
            flowed.append(state)
            state = self._along(state, *(part[step] for part in parts))
            states.append(state)
        return torch.cat(states), torch.cat(flowed)

    def _n_jumps(self, along: Tensor) -> Float[Tensor, " row"]:
        """Steps along each row's segment: more where much was measured and the field is steep."""
        with torch.no_grad():
            steepness = torch.linalg.vector_norm(along, dim=(1, 2))
            steepness = steepness * torch.linalg.matrix_norm(self.jump_bend, 2)
            return torch.ceil(steepness / JUMP_SIZE).clamp(1, MOST_JUMPS)

    def _along(self, z: Tensor, along: Tensor, straight: Tensor, n_jumps: Tensor) -> Tensor:
        for done in range(int(n_jumps.max())):
            moved = self._jump(z, along, straight)
            z = moved if done == 0 else torch.where((n_jumps > done).unsqueeze(1), moved, z)
        return z

    def _jump(self, z: Tensor, along: Tensor, straight: Tensor) -> Tensor:
        """One Runge-Kutta step of fourth order along the segment on which the values move."""

        def slope(at: Tensor) -> Tensor:
            bend = torch.addmm(self.jump_offset, at, self.jump_bend.T).tanh()
            return torch.baddbmm(straight.unsqueeze(2), along, bend.unsqueeze(2)).squeeze(2)

        k1 = slope(z)
        k2 = slope(z + k1 / 2)
        k3 = slope(z + k2 / 2)
        k4 = slope(z + k3)
        return z + (k1 + 2 * (k2 + k3) + k4) / 6


def _root_step(batch: IrregularBatch) -> Float[Tensor, "row variable"]:
    """By how much the root of each variable's count grows at a row where it is measured."""
    count = torch.zeros_like(batch.value)
    rows = count.split(batch.sizes)
    seen = batch.mask.to(batch.dtype).split(batch.sizes)
    for step in range(1, len(rows)):
        n = len(rows[step])
        torch.add(rows[step - 1][:n], seen[step - 1][:n], out=rows[step])
    return torch.sqrt(count + 1) - torch.sqrt(count)
