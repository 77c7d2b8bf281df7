"""GRU-D: a gated recurrent unit whose inputs and state decay with the time since observation.

After Che et al. 2018, Scientific Reports 8:6085: a missing value decays from the last one towards
the training mean, the state decays by how long each variable has not been seen. Its decay depends
on all these clocks at once, so it is not the flow of a vector field.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from clinode.cohort import IrregularBatch
from clinode.errors import ArgumentError
from clinode.sequence.inputs import REFERENCE_WINDOW
from clinode.sequence.layers import linear, matrix
from clinode.sequence.memory import last_measured
from clinode.sequence.model import SequenceModel
from clinode.system import System


class GRUD(SequenceModel):
    """Gated recurrent unit with decay, beside a statistics tower.

    Treatments enter as the amounts given since the last row with an observation and as current
    rates.

    Args:
        hidden: Width of the state.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "gru-d"

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
        hidden, n_variables = self.settings.hidden, len(self.schema.variables)
        n_inputs = len(self.schema.inputs)
        self.fade = nn.Parameter(torch.full((n_variables,), 0.05))
        self.fade_offset = nn.Parameter(torch.zeros(n_variables))
        self.forget = linear(n_variables, hidden, generator, bias=0.0)
        self.inward = linear(2 * n_variables + 2 * n_inputs, 3 * hidden, generator)
        self.recur = matrix(3 * hidden, hidden, generator)
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def latent_system(self) -> System:
        """Refused: the decay of the state is not the flow of a vector field.

        Raises:
            ArgumentError: Always.
        """
        raise ArgumentError(
            "GRU-D has no latent system: its state decays by the time since each variable was "
            "observed, which is not the flow of a vector field",
            fix="use LinearLatentODE or ODERNN",
        )

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        last = last_measured(batch, row)
        since = query_time.unsqueeze(-1) - batch.time[last.clamp(min=0)]
        since = torch.where(last >= 0, since, batch.window).to(batch.dtype)
        faded = states[row.clamp(min=0)] * self._decay(since, batch.window)
        return torch.where((row >= 0).unsqueeze(-1), faded, 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _decay(self, since: Tensor, window: float) -> Tensor:
        scaled = torch.log1p(since.clamp(min=0) * (REFERENCE_WINDOW / window))
        return torch.exp(-functional.relu(self.forget(scaled)))

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        # a row without an observation keeps the state of the last one, not yet decayed
        pace = REFERENCE_WINDOW / batch.window
        since = batch.since_observed * pace
        kept = torch.exp(-functional.relu(self.fade * since + self.fade_offset))
        mask = batch.mask.to(batch.dtype)
        columns = [torch.where(batch.mask, batch.value, batch.carried * kept), mask]
        if batch.treatments is not None:
            columns += [batch.exposure, batch.treatments.rates(batch.n_rows)]
        inward = self.inward(torch.cat(columns, dim=1))
        decay = self._decay(batch.since_observed, batch.window)
        observed = batch.is_observed.unsqueeze(1).to(batch.dtype)
        hidden = self.settings.hidden
        parts = [part.split(batch.sizes) for part in (inward, decay, observed)]
        weight = self.recur.T
        state = inward.new_zeros(len(batch), hidden)
        states, before = [], []
        for step, n in enumerate(batch.sizes):
            x, d, o = (part[step] for part in parts)
            state = state[:n] if len(state) > n else state
            faded = state * d
            gates = faded @ weight[:, : 2 * hidden] + x[:, : 2 * hidden]
            update, reset = torch.sigmoid(gates).chunk(2, dim=1)
            proposal = torch.tanh((reset * faded) @ weight[:, 2 * hidden :] + x[:, 2 * hidden :])
            new = faded + update * (proposal - faded)
            state = state + o * (new - state)
            states.append(state)
            before.append(faded)
        return torch.cat(states), torch.cat(before)
