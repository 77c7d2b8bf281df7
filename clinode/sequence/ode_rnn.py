"""ODE-RNN: a learned field between rows, a gated recurrent unit at rows with observations.

After Rubanova et al. 2019 (arXiv:1907.03907), each subject on its own gaps. The field is decay
plus a bounded term, so an equilibrium exists under every constant treatment. A gap is one
exponential Runge-Kutta step, exact for the decay, or several where the gap is long or the bounded
term steep; their number depends on the gap and on the weights, never on the batch.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.bounded_field import BoundedField
from clinode.sequence.exponential_steps import Solver
from clinode.sequence.gated_course import run_through
from clinode.sequence.inputs import n_step_inputs, step_inputs
from clinode.sequence.layers import linear, matrix
from clinode.sequence.model import SequenceModel
from clinode.system import System


class ODERNN(SequenceModel):
    """A field that decays and is driven between rows, a GRU update at rows, a statistics tower.

    Args:
        hidden: Width of the state.
        field_hidden: Width of the field's bounded term.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "ode-rnn"
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
        hidden = self.settings.hidden
        self.field = BoundedField(hidden, self.settings.field_hidden, self.schema, generator)
        n_inward = n_step_inputs(len(self.schema.variables), len(self.schema.inputs))
        self.inward = linear(n_inward, 3 * hidden, generator)
        self.recur = matrix(3 * hidden, hidden, generator)
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def solver(self) -> Solver:
        """That of the field between rows."""
        return self.field.solver

    @property
    def latent_system(self) -> System:
        """x' = -a x + W tanh(U x + b) + B u, y = the decoded variables in original units."""
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
        inward = self.inward(step_inputs(batch, remembered))
        return run_through(self.field, inward, self.recur, batch)
