"""Stacked diagonal complex linear flows whose gates do not read the state: a parallel scan.

Between rows every layer obeys z' = Lambda z + B u, stable and solved exactly, and no layer acts on
another, so the flow of the whole state is that of `LinearLatentODE`. At a row with observations a
gate g in (0, 1) of each mode, which reads observation, mask, clocks and gap alone, moves z towards
an aim: z_k = (1 - g_k) (e^(Lambda t_k) z_(k-1) + drive) + g_k a_k, which is associative. The aim of
a layer also reads the state of the layer below after the row and what the layers below had not
expected, so that a stack can do what one gate that reads its own state does.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.diagonal_flow import response, rotate, transition
from clinode.sequence.inputs import (
    REFERENCE_WINDOW,
    Drive,
    hours_since,
    n_step_inputs,
    step_inputs,
)
from clinode.sequence.latent_system import (
    LinearLatentSystem,
    modal_drift,
    original_drive,
    with_rows_of_zeros,
)
from clinode.sequence.layers import linear
from clinode.sequence.linear_scan import previous, scan
from clinode.sequence.model import SequenceModel
from clinode.system import System

TIME_CONSTANTS = (0.0, 2.0)  # log10 of hours of a 48-hour window, over the modes at the start
MAX_FREQUENCY = 0.5  # rad per such hour, at the start


class ScanLatentODE(SequenceModel):
    """Stacked diagonal complex linear flows with gates of the observations alone.

    Args:
        latent: Complex modes of each layer; each has two real coordinates.
        layers: Of the stack.
        hidden: Features read from the state at each row.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "scan-latent-ode"

    def __init__(
        self,
        latent: int = 24,
        layers: int = 2,
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
        modes, n_layers = self.settings.latent, self.settings.layers
        n_variables, n_inputs = len(self.schema.variables), len(self.schema.inputs)
        pace = REFERENCE_WINDOW / self.schema.window
        spread = torch.logspace(*TIME_CONSTANTS, modes).repeat(n_layers) / pace
        self.log_decay = nn.Parameter(-torch.log(spread))
        frequency = torch.empty(n_layers, modes).uniform_(0, MAX_FREQUENCY, generator=generator)
        frequency[:, ::2] = 0.0
        self.frequency = nn.Parameter(frequency.flatten() * pace)
        n_step = n_step_inputs(n_variables, n_inputs)
        self.gates = linear(n_step, n_layers * modes, generator, bias=-1.0)
        n_told = [
            n_step if layer == 0 else n_step + 2 * modes + n_variables for layer in range(n_layers)
        ]
        self.aims = nn.ModuleList(linear(n, 2 * modes, generator) for n in n_told)
        n_states = 2 * modes * n_layers
        self.drive = Drive(n_states, self.schema)
        self.read = linear(n_states + n_variables, self.settings.hidden, generator)
        self.norm = nn.LayerNorm(self.settings.hidden)
        return n_states, self.settings.hidden

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
        decay, n_layers = torch.exp(self.log_decay), self.settings.layers
        turn = torch.complex(*transition(decay, self.frequency, batch.gap)).chunk(n_layers, dim=1)
        observed = batch.is_observed.unsqueeze(1).to(batch.dtype)
        gates = (torch.sigmoid(self.gates(step)) * observed).chunk(n_layers, dim=1)
        pushes = self._pushes(batch, decay)
        maps, recall = self._maps
        expected = remembered @ recall.T + self.decoder.bias
        mask = batch.mask.to(batch.dtype)
        told, states, flowed = step, [], []
        for layer, aim in enumerate(self.aims):
            aimed = _as_complex(torch.tanh(aim(told)))
            stays = 1 - gates[layer]
            added = gates[layer] * aimed
            if pushes is not None:
                added = added + stays * pushes[layer]
            state = scan(stays * turn[layer], added, batch.sizes)
            before = turn[layer] * previous(state, batch.sizes)
            if pushes is not None:
                before = before + pushes[layer]
            states.append(state)
            flowed.append(before)
            expected = expected + _as_real(before) @ maps[layer].T
            told = torch.cat([step, _as_real(state), mask * (batch.value - expected)], dim=1)
        return _as_real(torch.cat(states, dim=1)), _as_real(torch.cat(flowed, dim=1))

    def _pushes(self, batch: IrregularBatch, decay: Tensor) -> tuple[Tensor, ...] | None:
        """What treatments add to the modes of each layer by the time of a row."""
        if batch.treatments is None:
            return None
        rates = self.drive(batch.treatments.rates(batch.n_rows))
        doses = self.drive(batch.treatments.impulses(batch.n_rows))
        pushed = rotate(*response(decay, self.frequency, batch.gap), rates) + doses
        return _as_complex(pushed).chunk(self.settings.layers, dim=1)

    def _carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row latent"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        given = self.drive(batch.rates_after(row)) if batch.treatments is not None else None
        decay = torch.exp(self.log_decay)
        gap = hours_since(batch, query_time, row)
        flowed = rotate(*transition(decay, self.frequency, gap), states[row.clamp(min=0)])
        if given is not None:
            flowed = flowed + rotate(*response(decay, self.frequency, gap), given)
        return torch.where((row >= 0).unsqueeze(-1), flowed, 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(self.read(torch.cat([states, remembered], dim=-1)))

    @property
    def _maps(
        self,
    ) -> tuple[list[Float[Tensor, "variable state"]], Float[Tensor, "variable variable"]]:
        """Columns of the decoder of each layer, and of the memory."""
        n_states = self.decoder.weight.shape[1] - len(self.schema.variables)
        P, recall = self.decoder.weight[:, :n_states], self.decoder.weight[:, n_states:]
        parts = P.unflatten(1, (2, self.settings.layers, self.settings.latent))
        return [part.flatten(1) for part in parts.unbind(2)], recall


def _as_complex(states: Float[Tensor, "row state"]) -> Tensor:
    """Real parts first -> modes."""
    return torch.complex(*states.chunk(2, dim=1))


def _as_real(modes: Tensor) -> Float[Tensor, "row state"]:
    """Modes -> real parts first."""
    return torch.cat([modes.real, modes.imag], dim=1)
