"""Closed-form continuous-time recurrent network.

After Hasani et al. 2022 (Nature Machine Intelligence 4:992-1003): after an observation the state is
a known function of the time since it, x(t) = s(-f t) g + (1 - s(-f t)) h, where rate f and the two
ends g, h come from the state before and what was observed, and s is the logistic function. No
solver is needed. The function starts anew at each observation, so it is not the flow of a vector
field: from g and h alone nobody can tell how far the way between them has been gone.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import IrregularBatch
from clinode.errors import ArgumentError
from clinode.sequence.inputs import (
    REFERENCE_WINDOW,
    gap_inputs,
    hours_since,
    n_step_inputs,
    observed_row,
)
from clinode.sequence.layers import linear, matrix
from clinode.sequence.model import SequenceModel
from clinode.system import System


class CfC(SequenceModel):
    """Closed-form continuous-time cell, beside a statistics tower.

    Treatments enter as the amounts given since the last row with an observation and as current
    rates.

    Args:
        hidden: Width of the state.
        backbone: Width of the layer that rate and ends are computed from.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "cfc"
    flow_error = None

    def __init__(
        self,
        hidden: int = 48,
        backbone: int = 64,
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
        hidden, backbone = self.settings.hidden, self.settings.backbone
        n_inward = n_step_inputs(len(self.schema.variables), len(self.schema.inputs))
        self.inward = linear(n_inward, backbone, generator)
        self.recur = matrix(backbone, hidden, generator)
        self.ends = linear(backbone, 3 * hidden, generator)
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def latent_system(self) -> System:
        """Refused: the state is a function of the time since the last observation.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(
            "a closed-form continuous-time cell has no latent system: its state is a function of "
            "the time since the last observation, which is not the flow of a vector field",
            fix="use LinearLatentODE, NeuralFlow or ODERNN",
        )

    def _at(
        self, kept: Float[Tensor, "*place kept"], gap: Float[Tensor, "*place"]
    ) -> Float[Tensor, "*place latent"]:
        rate, start, end = kept.chunk(3, dim=-1)
        elapsed = gap.clamp(min=0) * (REFERENCE_WINDOW / self.schema.window)
        share = torch.sigmoid(-rate * elapsed.unsqueeze(-1))
        return share * start + (1 - share) * end

    def _shown(self, kept: Float[Tensor, "*place kept"]) -> Float[Tensor, "*place latent"]:
        _, start, end = kept.chunk(3, dim=-1)
        return (start + end) / 2

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row kept"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        last = observed_row(batch, row)
        carried = self._at(states[last.clamp(min=0)], hours_since(batch, query_time, last))
        return torch.where((last >= 0).unsqueeze(-1), carried, 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row kept"], Float[Tensor, "row latent"]]:
        inward = self.inward(gap_inputs(batch, remembered))
        parts = (inward, batch.is_observed.unsqueeze(1), batch.time_delta)
        hidden, weight = self.settings.hidden, self.recur.T
        kept = inward.new_zeros(len(batch), 3 * hidden)
        after, before = [], []
        for x, o, gap in zip(*(part.split(batch.sizes) for part in parts), strict=True):
            kept = kept[: len(x)] if len(kept) > len(x) else kept
            state = self._at(kept, gap)
            made = self.ends(functional.silu(torch.addmm(x, state, weight)))
            rate, bounded = made.split([hidden, 2 * hidden], dim=1)
            kept = torch.where(o, torch.cat([rate, torch.tanh(bounded)], dim=1), kept)
            before.append(state)
            after.append(kept)
        return torch.cat(after), torch.cat(before)
