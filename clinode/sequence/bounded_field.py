"""A learned field that decays and is pushed: x' = -a x + W tanh(U x + b) + B u.

Decay plus a bounded term, so that an equilibrium exists under every constant treatment.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clinode.cohort import IrregularBatch, Preprocessor
from clinode.sequence.exponential_steps import ExponentialSteps, Solver, flow, steps_over
from clinode.sequence.inputs import REFERENCE_WINDOW, Drive, hours_since
from clinode.sequence.latent_system import (
    BoundedLatentSystem,
    original_drive,
    with_rows_of_zeros,
)
from clinode.sequence.layers import matrix

TIME_CONSTANTS = (0.8, 2.0)  # log10 of hours of a 48-hour window, at the start
FIRST_PUSH = 0.1  # size of the bounded term at the start, per such hour


class BoundedField(nn.Module):
    """The field and its flow over gaps.

    Args:
        n_states: Width of x.
        n_hidden: Width of the bounded term.
        schema: Of the training part: treatments and the length of its window.
        generator: Draws the weights.
    """

    def __init__(
        self, n_states: int, n_hidden: int, schema: Preprocessor, generator: torch.Generator
    ):
        super().__init__()
        self.pace = REFERENCE_WINDOW / schema.window
        spread = torch.logspace(*TIME_CONSTANTS, n_states) / self.pace
        self.log_decay = nn.Parameter(-torch.log(spread))
        self.bend = matrix(n_hidden, n_states, generator)  # U
        self.bend_offset = nn.Parameter(torch.zeros(n_hidden))
        push = matrix(n_states, n_hidden, generator).detach()
        self.push = nn.Parameter(push * (FIRST_PUSH * self.pace))  # W
        self.drive = Drive(n_states, schema)

    @property
    def steepness(self) -> Tensor:
        """A Lipschitz constant of the bounded term, per hour."""
        with torch.no_grad():
            return torch.linalg.matrix_norm(self.push, 2) * torch.linalg.matrix_norm(self.bend, 2)

    @property
    def solver(self) -> Solver:
        """How it is solved."""
        return Solver(torch.exp(self.log_decay), self.steepness, self.flow, self.drive)

    def steps(self, gap: Float[Tensor, " row"]) -> ExponentialSteps:
        """Steps over gaps in hours."""
        return steps_over(torch.exp(self.log_decay), gap, self.steepness)

    def flow(
        self,
        x: Float[Tensor, "row state"],
        steps: ExponentialSteps,
        drive: Float[Tensor, "row state"] | None,
    ) -> Float[Tensor, "row state"]:
        """The states after these steps, under constant treatments `drive` = B u."""
        return flow(self.slope(drive), x, steps)

    def slope(self, drive: Float[Tensor, "row state"] | None) -> Callable[[Tensor], Tensor]:
        """Everything of the field but the decay, under these treatments."""

        def bounded(at: Tensor) -> Tensor:
            push = torch.addmm(self.bend_offset, at, self.bend.T).tanh() @ self.push.T
            return push if drive is None else push + drive

        return bounded

    def drives(self, batch: IrregularBatch) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """B u of each row's gap, and the doses at the row, by step; None without treatments."""
        if batch.treatments is None:
            return None, None
        rates = self.drive(batch.treatments.rates(batch.n_rows))
        doses = self.drive(batch.treatments.impulses(batch.n_rows))
        return list(rates.split(batch.sizes)), list(doses.split(batch.sizes))

    def carry(
        self,
        batch: IrregularBatch,
        states: Float[Tensor, "row state"],
        query_time: Float[Tensor, "batch query"],
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query state"]:
        """States carried from these rows to asked times; 0 before the first row."""
        gap = hours_since(batch, query_time, row)
        carried = self.after(states[row.clamp(min=0)], gap, batch, row)
        return torch.where((row >= 0).unsqueeze(-1), carried, 0.0)

    def after(
        self,
        states: Float[Tensor, "batch query state"],
        gap: Float[Tensor, "batch query"],
        batch: IrregularBatch,
        row: Int64[Tensor, "batch query"],
    ) -> Float[Tensor, "batch query state"]:
        """States so many hours on, under the treatments that run after these rows."""
        drive = None
        if batch.treatments is not None:
            drive = self.drive(batch.rates_after(row)).flatten(0, 1)
        carried = self.flow(states.flatten(0, 1), self.steps(gap.flatten()), drive)
        return carried.unflatten(0, row.shape)

    def system(
        self,
        memory_rate: Float[Tensor, " variable"],
        decoder: nn.Linear,
        low: Float[Tensor, " state"],
        high: Float[Tensor, " state"],
        schema: Preprocessor,
    ) -> BoundedLatentSystem:
        """The field beside the memory's own decay, read out by the decoder."""
        n_memory = len(memory_rate)
        return BoundedLatentSystem(
            torch.cat([torch.exp(self.log_decay), memory_rate]),
            with_rows_of_zeros(self.push, n_memory),
            with_rows_of_zeros(self.bend.T, n_memory).T,
            self.bend_offset,
            with_rows_of_zeros(original_drive(self.drive.matrix, schema), n_memory),
            decoder.weight,
            decoder.bias,
            low=low,
            high=high,
            schema=schema,
        )
