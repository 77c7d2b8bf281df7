"""The update of `union_grid.GatedMoments` as a part of clinode's recurrence, for equal sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from union_grid import GatedMoments

from clinode.sequence.recurrence import Part, PlainStep


class MomentsUnit(Part):
    """Updates state and spread; the spread, which does not flow, is kept within.

    The first layers of both gates are one, and their last ones, each reading its own half, are one
    product with a block matrix. What values and mask add to the first layers is given for all
    visits at once.

    Args:
        told: (visit, three first layers) what values and mask add, offsets included.
        gates: Weight of state and spread in the first layers of update and reset gate.
        out: Block weight of both gates' last layers, the update gate's sign turned.
        out_offset: Its offset.
        propose: Weight of state and spread in the first layer of the proposal.
        moments, moments_offset: Last layer of the proposal.
    """

    def __init__(self, *leaves: Any):
        super().__init__(leaves)
        self.told, self.gates, self.out, self.out_offset = leaves[:4]
        self.propose, self.moments, self.moments_offset = leaves[4:]
        self.n = self.moments.shape[0] // 2

    @classmethod
    def of(cls, unit: GatedMoments, x: Tensor) -> "MomentsUnit":
        """The part that does at visits with values and mask `x` what `unit` does."""
        (u1, _, u2), (r1, _, r2), (p1, _, p2) = unit.update, unit.reset, unit.propose
        n = u2.out_features
        first = torch.cat([u1.weight, r1.weight, p1.weight])
        told = torch.addmm(torch.cat([u1.bias, r1.bias, p1.bias]), x, first[:, 2 * n :].T)
        return cls(
            told,
            torch.cat([u1.weight, r1.weight])[:, : 2 * n],
            torch.block_diag(-u2.weight, r2.weight),
            torch.cat([-u2.bias, r2.bias]),
            p1.weight[:, : 2 * n],
            p2.weight,
            p2.bias,
        )

    def on(self, leaves: Sequence[Any]) -> "MomentsUnit":
        return MomentsUnit(*leaves)

    def plain(self, sizes: list[int]) -> PlainStep:
        told = self.told.split(sizes)
        spread = self.told.new_zeros(sizes[0], self.n)

        def update(step: int, y: Tensor) -> Tensor:
            nonlocal spread
            wide, s = self.gates.shape[0], spread[: len(y)]
            both = torch.cat([y, s], dim=1)
            inner = torch.tanh(told[step][:, :wide] + both @ self.gates.T)
            take, reset = torch.sigmoid(inner @ self.out.T + self.out_offset).chunk(2, dim=1)
            held = torch.cat([y * reset, s * reset], dim=1)
            inner = torch.tanh(told[step][:, wide:] + held @ self.propose.T)
            mean, deviation = (inner @ self.moments.T + self.moments_offset).chunk(2, dim=1)
            spread = s + take * (deviation.abs() - s)
            return y + take * (mean - y)

        return update

    def begin(self, sizes: list[int]) -> None:
        n, wide, n_rows = self.n, self.gates.shape[0], sum(sizes)
        self.sizes = sizes
        new = self.told.new_empty
        self.inner = self.told[:, :wide].clone()
        self.gate = self.out_offset.expand(n_rows, 2 * n).clone()
        self.held = new(n_rows, 2 * n)
        self.thought = self.told[:, wide:].clone()
        self.proposed = self.moments_offset.expand(n_rows, 2 * n).clone()
        self.deviation = new(n_rows, n)
        self.spread = new(n_rows, n)
        self.weights = [
            part.T.contiguous()
            for part in (
                self.gates[:, :n],
                self.gates[:, n:],
                self.out,
                self.propose[:, :n],
                self.propose[:, n:],
                self.moments,
            )
        ]
        heads = _heads(self.spread, sizes)
        self.before = [self.spread.new_zeros(sizes[0], n), *heads[:-1]]
        parts = (
            self.inner,
            self.gate,
            self.gate[:, :n],
            self.gate[:, n:],
            self.held[:, :n],
            self.held[:, n:],
            self.thought,
            self.proposed,
            self.proposed[:, :n],
            self.proposed[:, n:],
            self.deviation,
            self.spread,
        )
        self.rounds = list(zip(*(part.split(sizes) for part in parts), strict=True))

    def forward(self, step: int, before: Tensor, out: Tensor) -> None:
        (
            inner,
            gate,
            take,
            reset,
            held,
            held_spread,
            thought,
            proposed,
            mean,
            signed,
            deviation,
            new,
        ) = self.rounds[step]
        gates, gates_spread, last, propose, propose_spread, moments = self.weights
        spread = self.before[step]
        inner.addmm_(before, gates).addmm_(spread, gates_spread).tanh_()
        gate.addmm_(inner, last).sigmoid_()
        torch.mul(before, reset, out=held)
        torch.mul(spread, reset, out=held_spread)
        thought.addmm_(held, propose).addmm_(held_spread, propose_spread).tanh_()
        proposed.addmm_(thought, moments)
        torch.abs(signed, out=deviation)
        torch.lerp(before, mean, take, out=out)
        torch.lerp(spread, deviation, take, out=new)

    def begin_backward(self, before: Tensor) -> None:
        n, new = self.n, torch.empty_like
        take, reset = self.gate.chunk(2, dim=1)
        spread = torch.cat(self.before)
        mean, signed = self.proposed.chunk(2, dim=1)
        slope = take * (1 - take)
        bend = reset * (1 - reset)
        self.both = torch.cat([before, spread], dim=1)
        self.on_gate, self.on_proposed = new(self.gate), new(self.proposed)
        one = before.new_ones(())
        self.on_inner = torch.addcmul(one, self.inner, self.inner, value=-1)
        self.on_thought = torch.addcmul(one, self.thought, self.thought, value=-1)
        self.on_spread = torch.zeros_like(self.spread)
        widths = (n, n, self.inner.shape[1], self.thought.shape[1])
        scratch = [before.new_empty(self.sizes[0], width) for width in widths]
        parts = (
            self.on_gate,
            self.on_gate[:, :n],
            self.on_gate[:, n:],
            self.on_proposed,
            self.on_proposed[:, :n],
            self.on_proposed[:, n:],
            self.on_inner,
            self.on_thought,
            take,
            1 - take,
            reset,
            take * signed.sign(),
            (mean - before) * slope,
            (self.deviation - spread) * slope,
            before * bend,
            spread * bend,
            self.on_spread,
        )
        self.rounds = list(zip(*(part.split(self.sizes) for part in parts), strict=True))
        heads = _heads(self.on_spread, self.sizes)
        self.back_heads = [torch.zeros_like(self.before[0]), *heads[:-1]]
        self.scratch = [[part[:size] for part in scratch] for size in self.sizes]
        self.directs = [
            part.contiguous()
            for part in (
                self.gates[:, :n],
                self.gates[:, n:],
                self.propose[:, :n],
                self.propose[:, n:],
            )
        ]

    def backward(self, step: int, after: Tensor, into: Tensor) -> None:
        (
            on_gate,
            on_take,
            on_reset,
            on_proposed,
            on_mean,
            on_signed,
            on_inner,
            on_thought,
            take,
            kept,
            reset,
            signed,
            by_mean,
            by_deviation,
            bend,
            bend_spread,
            after_spread,
        ) = self.rounds[step]
        gates, gates_spread, propose, propose_spread = self.directs
        on_held, on_held_spread, wide, narrow = self.scratch[step]
        into_spread = self.back_heads[step]
        torch.mul(after, take, out=on_mean)
        torch.mul(after_spread, signed, out=on_signed)
        torch.mul(after, by_mean, out=on_take).addcmul_(after_spread, by_deviation)
        on_thought.mul_(torch.mm(on_proposed, self.moments, out=narrow))
        torch.mm(on_thought, propose, out=on_held)
        torch.mm(on_thought, propose_spread, out=on_held_spread)
        torch.mul(on_held, bend, out=on_reset).addcmul_(on_held_spread, bend_spread)
        on_inner.mul_(torch.mm(on_gate, self.out, out=wide))
        into.addcmul_(after, kept).addcmul_(on_held, reset).addmm_(on_inner, gates)
        into_spread.addcmul_(after_spread, kept).addcmul_(on_held_spread, reset)
        into_spread.addmm_(on_inner, gates_spread)

    def gradients(self, after: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
        return [
            torch.cat([self.on_inner, self.on_thought], dim=1),
            self.on_inner.T @ self.both,
            self.on_gate.T @ self.inner,
            self.on_gate.sum(dim=0),
            self.on_thought.T @ self.held,
            self.on_proposed.T @ self.thought,
            self.on_proposed.sum(dim=0),
        ]


def _heads(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    ends = [*sizes[1:], 0]
    pieces = [n for size, end in zip(sizes, ends, strict=True) for n in (end, size - end)]
    return list(rows.split(pieces)[::2])
