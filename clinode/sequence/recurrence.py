"""A recurrence over packed records as one autograd function: state, flow, update, next state.

A visit is one place of one record in the order in which it is read; round k holds the k-th visit of
the records that are still read, so the visits of a round are the first of those of the round
before. In each round the states flow to their visits and are then updated there. What depends on
the visits alone is computed before, for all of them at once; the loop back carries only the
gradient of the state, and the gradients of the weights are taken after it, for all visits together.

A part (`FieldFlow`, `GatedUnit`) says one stretch of the way twice: in plain operations, and in
operations on buffers with the way back written out. `recur` takes the second where a gradient is
taken once and the first under `torch.func` transforms and for derivatives of derivatives.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.sequence.rounds import again, heads_of_rounds, on_buffers

PlainStep = Callable[[int, Tensor], Tensor]  # (round, states before) -> states after


class Part(ABC):
    """One stretch of a round: what it does to the states, and the way back.

    Buffers belong to one passage: `begin`, `forward` for each round in order; then
    `begin_backward`, `backward` for each round in reverse order, `gradients`. `rounds` holds the
    views of them that each round works on, and is emptied after each way.

    Args:
        leaves: The tensors it depends on, None where it has no such; weights, and rows of visits.
    """

    def __init__(self, leaves: Sequence[Tensor | None]):
        self.leaves = tuple(leaves)
        self.rounds: list[Any] = []

    @abstractmethod
    def on(self, leaves: Sequence[Any]) -> "Part":
        """The same part on other leaves, without buffers."""

    @abstractmethod
    def plain(self, sizes: list[int]) -> PlainStep:
        """The stretch in operations that autograd follows; also what the rest is tested against."""

    @abstractmethod
    def begin(self, sizes: list[int]) -> None:
        """Allocate what the way out leaves behind."""

    @abstractmethod
    def forward(self, step: int, before: Tensor, out: Tensor) -> None:
        """Write the states after the stretch."""

    @abstractmethod
    def begin_backward(self, before: Float[Tensor, "visit state"]) -> None:
        """Allocate what the way back needs, and compute what is known of all visits.

        Args:
            before: The states before the stretch.
        """

    @abstractmethod
    def backward(self, step: int, after: Tensor, into: Tensor) -> None:
        """Add to `into` the gradient at the states before, given that at the states after."""

    @abstractmethod
    def gradients(
        self, after: Float[Tensor, "visit state"], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """Of the leaves.

        Args:
            after: Gradients at the states after the stretch, of all visits.
            needs: Which are wanted.
        """


class Untouched(Part):
    """Of a recurrence that only flows: no update, in no round."""

    def __init__(self) -> None:
        super().__init__(())

    def on(self, leaves: Sequence[Any]) -> "Part":
        return self

    def plain(self, sizes: list[int]) -> PlainStep:
        return lambda step, state: state

    def begin(self, sizes: list[int]) -> None:
        return

    def forward(self, step: int, before: Tensor, out: Tensor) -> None:
        out.copy_(before)

    def begin_backward(self, before: Float[Tensor, "visit state"]) -> None:
        return

    def backward(self, step: int, after: Tensor, into: Tensor) -> None:
        into.add_(after)

    def gradients(
        self, after: Float[Tensor, "visit state"], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        return []


def recur(
    flow: Part, update: Part, sizes: list[int], is_updated: list[bool], n_states: int
) -> tuple[Float[Tensor, "visit state"], Float[Tensor, "visit state"]]:
    """The states after each visit, and those that flowed to it, from a state of zeros on.

    Args:
        flow: From the visit before to this one.
        update: At a visit.
        sizes: Visits of each round, none larger than the one before.
        is_updated: Rounds in which any record is updated; the other rounds only flow.
        n_states: Width of the state.
    """
    if torch._C._are_functorch_transforms_active():
        return recur_plainly(flow, update, sizes, is_updated, n_states)
    return _Recurrence.apply(
        flow, update, sizes, is_updated, n_states, *flow.leaves, *update.leaves
    )


def recur_plainly(
    flow: Part, update: Part, sizes: list[int], is_updated: list[bool], n_states: int
) -> tuple[Float[Tensor, "visit state"], Float[Tensor, "visit state"]]:
    """What `recur` computes, by autograd: slow, differentiable again and again."""
    some = next(leaf for leaf in flow.leaves if leaf is not None)
    flow_on, update_at = flow.plain(sizes), update.plain(sizes)
    state = some.new_zeros(sizes[0], n_states)
    states, flowed = [], []
    for step, n in enumerate(sizes):
        state = flow_on(step, state[:n] if len(state) > n else state)
        flowed.append(state)
        state = update_at(step, state) if is_updated[step] else state
        states.append(state)
    return torch.cat(states), torch.cat(flowed)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        flow: Part,
        update: Part,
        sizes: list[int],
        is_updated: list[bool],
        n_states: int,
        *leaves: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        flow, update = _on(flow, update, leaves)
        some = next(leaf for leaf in leaves if leaf is not None)
        states, flowed = (some.new_empty(sum(sizes), n_states) for _ in range(2))
        with on_buffers():
            flow.begin(sizes)
            update.begin(sizes)
            before = some.new_zeros(sizes[0], n_states)
            rounds = zip(
                heads_of_rounds(states, sizes),
                states.split(sizes),
                flowed.split(sizes),
                strict=True,
            )
            for step, (head, after, between) in enumerate(rounds):
                flow.forward(step, before, between)
                if is_updated[step]:
                    update.forward(step, between, after)
                else:
                    after.copy_(between)
                before = head
            flow.rounds, update.rounds = [], []
        ctx.parts, ctx.sizes, ctx.is_updated = (flow, update), sizes, is_updated
        ctx.save_for_backward(states, flowed, *leaves)
        return states, flowed

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # as torch wants it written
        ctx: Any, on_states: Tensor, on_flowed: Tensor
    ) -> tuple[Tensor | None, ...]:
        states, flowed, *leaves = ctx.saved_tensors
        (flow, update), sizes, is_updated = ctx.parts, ctx.sizes, ctx.is_updated
        needs = ctx.needs_input_grad[5:]
        if torch.is_grad_enabled():  # the gradient is to be differentiated once more

            def plainly(*leaves: Tensor | None) -> tuple[Tensor, Tensor]:
                parts = _on(flow, update, leaves)
                return recur_plainly(*parts, sizes, is_updated, states.shape[1])

            grads = again(plainly, leaves, needs, (on_states, on_flowed))
            return (*(None,) * 5, *grads)
        after, between = on_states.clone(), on_flowed.clone()
        # without their place in the graph: a part that kept it would hold what holds the part, and
        # the buffers of one step after the other would wait for the garbage collector
        states, flowed = states.detach(), flowed.detach()
        with on_buffers():
            flow.begin_backward(_before(states, sizes))
            update.begin_backward(flowed)
            # of the visit before: the states that flow on into this round
            heads = [torch.zeros_like(after[: sizes[0]]), *heads_of_rounds(after, sizes)[:-1]]
            rounds = list(zip(after.split(sizes), between.split(sizes), heads, strict=True))
            for step in range(len(sizes) - 1, -1, -1):
                on_after, on_between, into = rounds[step]
                if is_updated[step]:
                    update.backward(step, on_after, on_between)
                else:
                    on_between.add_(on_after)
                flow.backward(step, on_between, into)
            rounds.clear()
            flow.rounds, update.rounds = [], []
        n_flow = len(flow.leaves)
        return (
            *(None,) * 5,
            *flow.gradients(between, needs[:n_flow]),
            *update.gradients(after, needs[n_flow:]),
        )


def _on(flow: Part, update: Part, leaves: Sequence[Any]) -> tuple[Part, Part]:
    n_flow = len(flow.leaves)
    return flow.on(leaves[:n_flow]), update.on(leaves[n_flow:])


def _before(states: Tensor, sizes: list[int]) -> Tensor:
    """The states that each round starts from."""
    return torch.cat([torch.zeros_like(states[: sizes[0]]), *heads_of_rounds(states, sizes)[:-1]])
