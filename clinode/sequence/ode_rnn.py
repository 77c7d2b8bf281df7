"""ODE-RNN: a learned field between rows, a gated recurrent unit at rows with observations.

After Rubanova et al. 2019 (arXiv:1907.03907), each subject on its own gaps. The field is decay
plus a bounded term, so an equilibrium exists under every constant treatment. A gap is one
exponential Runge-Kutta step of fourth order (Cox & Matthews 2002, J. Comput. Phys. 176:430-455),
exact for the decay, or several where the gap is long or the bounded term steep; their number
depends on the gap and on the weights, never on the batch.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch
from clinode.sequence.heads import REFERENCE_WINDOW
from clinode.sequence.latent_system import (
    BoundedLatentSystem,
    original_drive,
    with_rows_of_zeros,
)
from clinode.sequence.layers import linear, matrix
from clinode.sequence.linear_latent_ode import step_inputs
from clinode.sequence.model import SequenceModel
from clinode.system import System

STEP_SIZE = 0.35  # of one step, times the steepness of the bounded term: error below 1e-5
MAX_STEPS = 64  # of one gap


class ODERNN(SequenceModel):
    """A field that decays and is driven between rows, a GRU update at rows, a statistics tower.

    Args:
        hidden: Width of the state.
        field_hidden: Width of the field's bounded term.

    The other arguments are those of every family, see `SequenceModel`.
    """

    name = "ode-rnn"

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
        self.norm = nn.LayerNorm(hidden)
        return hidden, hidden

    @property
    def latent_system(self) -> System:
        """x' = -a x + W tanh(U x + b) + B u, y = the decoded variables in original units."""
        self._require_built()
        rate = self.memory.rate
        return BoundedLatentSystem(
            torch.cat([torch.exp(self.log_decay), rate]),
            with_rows_of_zeros(self.push, len(rate)),
            with_rows_of_zeros(self.bend.T, len(rate)).T,
            self.bend_offset,
            with_rows_of_zeros(original_drive(self.drive, self.schema), len(rate)),
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
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query latent"]:
        held, known = row.clamp(min=0), row >= 0
        gap = torch.where(known, query_time - batch.time[held], 0.0).to(batch.dtype).flatten()
        drive = None
        if batch.treatments is not None:
            drive = (batch.rates_after(row) @ self.drive.T).flatten(0, 1)
        steps = self._steps(gap)
        flowed = self._flow(states[held].flatten(0, 1), steps, drive)
        return torch.where(known.unsqueeze(-1), flowed.unflatten(0, row.shape), 0.0)

    def _features(
        self, states: Float[Tensor, "*place latent"], remembered: Float[Tensor, "*place variable"]
    ) -> Float[Tensor, "*place feature"]:
        return self.norm(states)

    def _steps(self, gap: Float[Tensor, " row"]) -> "ExponentialSteps":
        with torch.no_grad():
            steepness = torch.linalg.matrix_norm(self.push, 2)
            steepness = steepness * torch.linalg.matrix_norm(self.bend, 2)
            n_steps = torch.ceil(gap * steepness / STEP_SIZE).clamp(1, MAX_STEPS)
        return exponential_steps(torch.exp(self.log_decay), gap / n_steps, n_steps)

    def _bounded(self, x: Tensor, drive: Tensor | None) -> Tensor:
        """Everything of the field but the decay."""
        bounded = torch.addmm(self.bend_offset, x, self.bend.T).tanh() @ self.push.T
        return bounded if drive is None else bounded + drive

    def _flow(self, x: Tensor, steps: "ExponentialSteps", drive: Tensor | None) -> Tensor:
        for done in range(int(steps.n_steps.max())):
            n1 = self._bounded(x, drive)
            half = steps.half * x
            a = half + steps.to_half * n1
            n2 = self._bounded(a, drive)
            b = half + steps.to_half * n2
            n3 = self._bounded(b, drive)
            c = steps.half * a + steps.to_half * (2 * n3 - n1)
            n4 = self._bounded(c, drive)
            new = steps.whole * x + steps.first * n1 + steps.middle * (n2 + n3) + steps.last * n4
            x = new if done == 0 else torch.where((steps.n_steps > done).unsqueeze(1), new, x)
        return x

    def _run(
        self, batch: IrregularBatch, remembered: Float[Tensor, "row variable"]
    ) -> tuple[Float[Tensor, "row latent"], Float[Tensor, "row latent"]]:
        inward = self.inward(step_inputs(batch, remembered))
        observed = batch.is_observed.unsqueeze(1).to(batch.dtype)
        parts = [part.split(batch.sizes) for part in (inward, observed)]
        steps = [part.split(batch.sizes) for part in self._steps(batch.gap)]
        drives = doses = None
        if batch.treatments is not None:
            drives = (batch.treatments.rates(batch.n_rows) @ self.drive.T).split(batch.sizes)
            doses = (batch.treatments.impulses(batch.n_rows) @ self.drive.T).split(batch.sizes)
        hidden, weight = self.settings.hidden, self.recur.T
        state = inward.new_zeros(len(batch), hidden)
        states, flowed = [], []
        for step, n in enumerate(batch.sizes):
            x, o = (part[step] for part in parts)
            state = state[:n] if len(state) > n else state
            if step:
                own = ExponentialSteps(*(part[step] for part in steps))
                state = self._flow(state, own, drives[step] if drives else None)
            if doses:
                state = state + doses[step]
            flowed.append(state)
            gates = torch.addmm(x[:, : 2 * hidden], state, weight[:, : 2 * hidden])
            update, reset = torch.sigmoid(gates).chunk(2, dim=1)
            proposal = torch.addmm(x[:, 2 * hidden :], reset * state, weight[:, 2 * hidden :])
            state = state + o * update * (torch.tanh(proposal) - state)
            states.append(state)
        return torch.cat(states), torch.cat(flowed)


class ExponentialSteps(NamedTuple):
    """Coefficients of one step of each row: x' = -a x + N(x), exact in a.

    With z = -a h and phi_k(z) = (phi_{k-1}(z) - 1/(k-1)!) / z, phi_0 = exp.
    """

    n_steps: Float[Tensor, " row"]
    whole: Float[Tensor, "row state"]  # exp(z)
    half: Float[Tensor, "row state"]  # exp(z/2)
    to_half: Float[Tensor, "row state"]  # h/2 phi_1(z/2)
    first: Float[Tensor, "row state"]  # h (phi_1 - 3 phi_2 + 4 phi_3)
    middle: Float[Tensor, "row state"]  # h (2 phi_2 - 4 phi_3), for both inner stages
    last: Float[Tensor, "row state"]  # h (4 phi_3 - phi_2)


def exponential_steps(
    decay: Float[Tensor, " state"], size: Float[Tensor, " row"], n_steps: Float[Tensor, " row"]
) -> ExponentialSteps:
    """Coefficients for steps of these sizes; a size of 0 is the identity."""
    h = size.unsqueeze(1)
    z = -decay * h
    one, two, three = phi_functions(z)
    near, _, _ = phi_functions(z / 2)
    return ExponentialSteps(
        n_steps=n_steps,
        whole=torch.exp(z),
        half=torch.exp(z / 2),
        to_half=h / 2 * near,
        first=h * (one - 3 * two + 4 * three),
        middle=h * (2 * two - 4 * three),
        last=h * (4 * three - two),
    )


def phi_functions(z: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor, Tensor]:
    """phi_1, phi_2 and phi_3 of z <= 0.

    By recursion from phi_1 where z <= -1; nearer to 0 that would cancel, so there a Taylor series
    of phi_3 is taken and the recursion run backwards.
    """
    is_small = z > -1
    near, far = torch.where(is_small, z, 0.0), torch.where(is_small, -1.0, z)
    series = torch.full_like(z, 1 / math.factorial(17))
    for order in range(16, 2, -1):  # sum of z^k / (k + 3)!
        series = series * near + 1 / math.factorial(order)
    one = torch.expm1(far) / far
    two = (one - 1) / far
    three = torch.where(is_small, series, (two - 0.5) / far)
    two = torch.where(is_small, series * near + 0.5, two)
    one = torch.where(is_small, two * near + 1, one)
    return one, two, three
