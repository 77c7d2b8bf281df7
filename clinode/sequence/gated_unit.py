"""The gated update of a recurrence, with its way back written out."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.sequence.layers import gated_update
from clinode.sequence.recurrence import Part, PlainStep


class GatedUnit(Part):
    """A gated recurrent unit at each visit (Cho et al. 2014), see `gated_update`.

    Args:
        inward: What a visit adds to update gate, reset gate and proposal; an update gate of -inf
            leaves the state as it was.
        recur: What the state adds to them.
    """

    def __init__(
        self,
        inward: Float[Tensor, "visit three_states"],
        recur: Float[Tensor, "three_states state"],
    ):
        super().__init__((inward, recur))
        self.inward, self.recur = inward, recur

    def on(self, leaves: Sequence[Any]) -> "Part":
        return GatedUnit(*leaves)

    def plain(self, sizes: list[int]) -> PlainStep:
        inward, weight = self.inward.split(sizes), self.recur.T
        every = self.inward.new_ones(len(self.inward), 1).split(sizes)
        return lambda step, state: gated_update(inward[step], state, weight, every[step])

    def begin(self, sizes: list[int]) -> None:
        n = self.recur.shape[1]
        both = 2 * n
        self.sizes = sizes
        self.weight_gates = self.recur[:both].T.contiguous()
        self.weight_proposal = self.recur[both:].T.contiguous()
        self.gates = self.inward[:, :both].clone()
        self.proposal = self.inward[:, both:].clone()
        self.held = torch.zeros_like(self.proposal)  # what the reset gate leaves of the state
        self.rounds = list(
            zip(
                self.gates.split(sizes),
                self.gates[:, :n].split(sizes),
                self.gates[:, n:].split(sizes),
                self.proposal.split(sizes),
                self.held.split(sizes),
                strict=True,
            )
        )

    def forward(self, step: int, before: Tensor, out: Tensor) -> None:
        gates, update, reset, proposal, held = self.rounds[step]
        gates.addmm_(before, self.weight_gates).sigmoid_()
        torch.mul(reset, before, out=held)
        proposal.addmm_(held, self.weight_proposal).tanh_()
        torch.lerp(before, proposal, update, out=out)

    def begin_backward(self, before: Float[Tensor, "visit state"]) -> None:
        update, reset = self.gates.chunk(2, dim=1)
        n = update.shape[1]
        # factors that turn the gradient at the state after into those before gates and proposal
        to_update = (self.proposal - before).mul_(update).mul_(1 - update)
        to_reset = (1 - reset).mul_(reset).mul_(before)
        to_proposal = torch.addcmul(update.new_ones(()), self.proposal, self.proposal, value=-1)
        to_proposal.mul_(update)
        self.before = before
        self.on_gates = torch.zeros_like(self.gates)  # of rounds without an update
        self.on_proposal = torch.zeros_like(self.proposal)
        self.on_held = torch.empty_like(before)
        self.back_gates = self.recur[: 2 * n].contiguous()
        self.back_proposal = self.recur[2 * n :].contiguous()
        parts = (
            self.on_gates,
            self.on_gates[:, :n],
            self.on_gates[:, n:],
            self.on_proposal,
            self.on_held,
            1 - update,
            reset,
            to_update,
            to_reset,
            to_proposal,
        )
        self.rounds = list(zip(*(part.split(self.sizes) for part in parts), strict=True))

    def backward(self, step: int, after: Tensor, into: Tensor) -> None:
        (
            on_gates,
            on_update,
            on_reset,
            on_proposal,
            on_held,
            kept,
            reset,
            to_update,
            to_reset,
            to_proposal,
        ) = self.rounds[step]
        torch.mul(after, to_proposal, out=on_proposal)
        torch.mm(on_proposal, self.back_proposal, out=on_held)
        torch.mul(after, to_update, out=on_update)
        torch.mul(on_held, to_reset, out=on_reset)
        into.addcmul_(after, kept).addcmul_(on_held, reset).addmm_(on_gates, self.back_gates)

    def gradients(
        self, after: Float[Tensor, "visit state"], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        on_recur = None
        if needs[1]:
            on_recur = torch.cat([self.on_gates.T @ self.before, self.on_proposal.T @ self.held])
        on_inward = torch.cat([self.on_gates, self.on_proposal], dim=1) if needs[0] else None
        return [on_inward, on_recur]
