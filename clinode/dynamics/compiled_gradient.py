"""Gradients through a compiled solution: the logged steps, backwards, in a second compiled loop.

Discretize, then optimize: what is differentiated is the computation that was done, with its step
sizes as constants. A step is computed again from its logged beginning and pulled back; cotangents
of constants and weights accumulate on the way. Trajectories with few steps enter late, so a batch
costs what its steps cost. The curve between two steps is differentiated by ordinary autograd.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .compiled_loop import Layout, Node, TracedField, group, local_input, rate_of
from .compiled_trace import Named, Spec, while_loop
from .runge_kutta import Rate


class Backwards(NamedTuple):
    """The arguments of the reverse loop.

    Attributes:
        layout: Of the forward loop.
        wanted: Of which tensors a gradient is wanted.
        inputs: Whether one of the input is.
    """

    layout: Layout
    wanted: tuple[bool, ...]
    inputs: bool

    def specs(self) -> dict[str, Spec]:
        """Every argument by name, in order."""
        layout, method = self.layout, self.layout.method
        device, whole = layout.device, torch.int64
        made = {name: Spec((), whole, device) for name in ("from", "until")}
        made |= {name: Spec(("row",), whole, device) for name in ("count", "rows")}
        made |= {"active": Spec(("row",), torch.bool, device)}
        made |= layout.log_specs()
        log = Spec(("slot", "all", layout.n_states), layout.dtype, device)
        made |= {f"on_node{i}": log for i in range(method.n_node)}
        made |= {f"on_curve{i}": log for i in range(method.n_curve)}
        row = Spec(("row", layout.n_states), layout.dtype, device)
        made |= {f"pull{i}": row for i in range(method.n_node)}
        made |= layout.input_specs()
        return made | {f"tensor{i}": one for i, one in enumerate(layout.tensors)}

    def sums(self) -> list[str]:
        """Arguments whose cotangents are summed, in order."""
        inputs = ["value", "slope"] if self.layout.pieces else ["u"]
        tensors = [f"tensor{i}" for i, want in enumerate(self.wanted) if want]
        return [*(inputs if self.inputs else []), *tensors]


def reverse_function(backwards: Backwards, field: TracedField) -> Callable[..., tuple[Tensor, ...]]:
    """The function to compile: from step `from` down to, and without, step `until`.

    It takes and gives the cotangent of the node that a step begins with, `pull`; after it come
    those of `backwards.sums()`.
    """
    names, n_node = list(backwards.specs()), backwards.layout.method.n_node

    def solve(*arguments: Tensor) -> tuple[Tensor, ...]:
        a = dict(zip(names, arguments, strict=True))
        carried = {"n": a["from"].clone()}
        carried |= {f"pull{i}": g.clone() for i, g in enumerate(group(a, "pull"))}
        carried |= {f"sum_{name}": torch.zeros_like(a[name]) for name in backwards.sums()}
        fixed = {name: value for name, value in a.items() if name not in carried}
        body = functools.partial(_step_back, backwards, field)
        out = while_loop(
            lambda state, a: state["n"] > a["until"],
            body,
            carried,
            fixed,
            (),
            backwards.layout.n_states,
        )
        pull, sums = group(out, "pull"), group(out, "sum_")
        is_start = (a["until"] == 0) & a["active"].unsqueeze(-1)
        first = (on[torch.zeros_like(a["rows"]), a["rows"]] for on in group(a, "on_node"))
        pull = tuple(torch.where(is_start, g + on, g) for g, on in zip(pull, first, strict=True))
        if n_node > 1:
            step = _logged_step(backwards.layout, a, torch.ones_like(a["from"]))

            def slope(node: Node, values: Node) -> Tensor:
                return _bound(backwards, field, a, step.piece, values)(step.t, node[0])

            back = torch.func.vjp(slope, step.node, _parts(backwards, a, step.piece))[1]
            on_node, found = back(torch.where(is_start, pull[1], 0.0))
            pull = (pull[0] + on_node[0], pull[1])
            sums = _added(backwards, sums, found, step.piece)
        return (*pull, *sums)

    return solve


def _step_back(backwards: Backwards, field: TracedField, state: Named, a: Named) -> Named:
    """The cotangents before step n from those after it."""
    layout, n = backwards.layout, state["n"]
    step = _logged_step(layout, a, n)
    after = (n.expand_as(a["rows"]), a["rows"])
    pull = tuple(
        torch.where(step.is_taken, g + on[after], 0.0)
        for g, on in zip(group(state, "pull"), group(a, "on_node"), strict=True)
    )
    on_curve = tuple(torch.where(step.is_taken, on[after], 0.0) for on in group(a, "on_curve"))

    def forward(node: Node, values: Node) -> tuple[Node, Node]:
        rate = _bound(backwards, field, a, step.piece, values)
        found, _, curve = layout.method.step(rate, step.t, step.h, node, layout.drifts)
        return found, curve

    back = torch.func.vjp(forward, step.node, _parts(backwards, a, step.piece))[1]
    on_node, found = back((pull, on_curve))
    sums = _added(backwards, group(state, "sum_"), found, step.piece)
    out = {"n": n - 1} | {f"pull{i}": g for i, g in enumerate(on_node)}
    return out | {f"sum_{name}": g for name, g in zip(backwards.sums(), sums, strict=True)}


def _parts(backwards: Backwards, a: Named, piece: Tensor) -> Node:
    """What cotangents are taken of, beside the node."""
    n_lines = 1 + backwards.layout.pieces
    lines = local_input(a, piece)[:n_lines] if backwards.inputs else ()
    pairs = zip(group(a, "tensor"), backwards.wanted, strict=True)
    return (*lines, *(tensor for tensor, want in pairs if want))


def _bound(backwards: Backwards, field: TracedField, a: Named, piece: Tensor, values: Node) -> Rate:
    """The field with `_parts` replaced by these values."""
    n_lines = 1 + backwards.layout.pieces if backwards.inputs else 0
    local = (*values[:n_lines], *local_input(a, piece)[n_lines:])
    left = iter(values[n_lines:])
    pairs = zip(group(a, "tensor"), backwards.wanted, strict=True)
    return rate_of(field, local, [next(left) if want else tensor for tensor, want in pairs])


def _added(backwards: Backwards, sums: Node, found: Node, piece: Tensor) -> Node:
    """Sums with what one step gave; of an input in pieces to the piece of each row."""
    n_lines = 2 if backwards.inputs and backwards.layout.pieces else 0
    at = piece.unsqueeze(-1).unsqueeze(-1)
    lines = tuple(
        total.scatter_add(1, at.expand(-1, 1, total.shape[-1]), new.unsqueeze(1))
        for total, new in zip(sums[:n_lines], found[:n_lines], strict=True)
    )
    rest = zip(sums[n_lines:], found[n_lines:], strict=True)
    return (*lines, *(total + new for total, new in rest))


class LoggedStep(NamedTuple):
    """Step n of every row; rows that took fewer repeat their last one, and are not taken."""

    is_taken: Tensor
    slot: Tensor
    t: Tensor
    h: Tensor
    piece: Tensor
    node: Node


def _logged_step(layout: Layout, a: Named, n: Tensor) -> LoggedStep:
    rows, count = a["rows"], a["count"]
    slot = torch.minimum(n - 1, count - 1)
    t = a["log_t"][rows, slot]
    h = a["log_t"][rows, slot + 1] - t
    piece = a["log_piece"][rows, slot] if layout.pieces else torch.zeros_like(rows)
    node = tuple(log[slot, rows] for log in group(a, "log_node"))
    is_taken = ((count >= n) & a["active"]).unsqueeze(-1)
    return LoggedStep(is_taken, slot, t, h, piece, node)


def segments(count: Tensor) -> list[tuple[int, int]]:
    """(from, until) from the last step to the first, so that few rows run idle.

    Example:
        >>> segments(torch.tensor([3, 9, 2, 40]))
        [(40, 3), (3, 0)]
        >>> segments(torch.tensor([3, 9, 2, 400, 5, 8, 8, 1200]))
        [(1200, 400), (400, 9), (9, 0)]
    """
    ordered = count.sort(descending=True).values.tolist()
    found, high, size = [], ordered[0], 1
    while size < len(ordered):
        low = ordered[size]
        if high - low >= SHORTEST:
            found.append((high, low))
            high = low
        size *= 2
    return [*found, (high, 0)]


SHORTEST = 32  # steps of a segment: entering the loop costs some, too
