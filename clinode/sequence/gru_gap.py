"""A gated recurrent unit that is told the time gaps, the baseline of irregular records.

Its state stands still between observations; how long ago the last one was is an input of the
update, and bends what is read of the state (by nothing at a gap of zero). That is a function of the
elapsed time that starts anew at every observation, not the flow of a vector field.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.errors import ArgumentError
from clinode.sequence.inputs import (
    REFERENCE_WINDOW,
    gap_inputs,
    hours_since,
    n_step_inputs,
    observed_row,
)
from clinode.sequence.layers import gated_update, linear, matrix
from clinode.sequence.model import SequenceModel
from clinode.system import System


class GRUGap(SequenceModel):
    """Gated recurrent unit with the gaps as inputs, beside a statistics tower.

    Treatments enter as the amounts given since the last row with an observation and as current
    rates.

    Args:
        hidden: Width of the state.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "gru-gap"
    flow_error = None

    def __init__(
        self,
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
        hidden = self.settings.hidden
        n_inward = n_step_inputs(len(self.schema.variables), len(self.schema.inputs))
        self.inward = linear(n_inward, 3 * hidden, generator)
        self.recur = matrix(3 * hidden, hidden, generator)
        self.bend = linear(hidden, hidden, generator)
        self.pace = nn.Parameter(torch.empty(hidden).uniform_(0, 0.5, generator=generator))
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def latent_system(self) -> System:
        """Refused: between observations the state stands still.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(
            "a gated recurrent unit with gaps has no latent system: its state stands still between "
            "observations, and what is read of it depends on the time since the last one",
            fix="use LinearLatentODE or ODERNN",
        )

    def _read(
        self, state: Float[Tensor, "*place latent"], gap: Float[Tensor, "*place"]
    ) -> Float[Tensor, "*place latent"]:
        elapsed = torch.log1p(gap.clamp(min=0) * (REFERENCE_WINDOW / self.schema.window))
        return state + torch.tanh(elapsed.unsqueeze(-1) * self.pace) * torch.tanh(self.bend(state))

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        last = observed_row(batch, row)
        read = self._read(states[last.clamp(min=0)], hours_since(batch, query_time, last))
        return torch.where((last >= 0).unsqueeze(-1), read, 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        inward = self.inward(gap_inputs(batch, remembered))
        observed = batch.is_observed.unsqueeze(1).to(batch.dtype)
        weight = self.recur.T
        state = inward.new_zeros(len(batch), self.settings.hidden)
        states, held = [], []
        for x, o in zip(inward.split(batch.sizes), observed.split(batch.sizes), strict=True):
            state = state[: len(x)] if len(state) > len(x) else state
            held.append(state)
            state = gated_update(x, state, weight, o)
            states.append(state)
        never = (batch.last_observed < 0).unsqueeze(1)
        before = self._read(torch.cat(held), batch.time_delta)
        return torch.cat(states), torch.where(never, 0.0, before)
