"""The loop of an adaptive solution as one pure function of tensors, for the compiler.

Every row is a trajectory with its own time, width, state and status, which an attempt changes in
place. It then writes them on a tape at the attempt's own place, whether the step was good or not:
all rows side by side, so that one pass over them does everything. The loop ends when no row runs,
when so few rows run that the caller should drop the others, or after a number of attempts, so that
the caller can look at the clock and give it another tape.

An input that changes over time is a line on each of its pieces, and no step leaves its piece. A
method that carries the slope of its last step on to the next (FSAL) takes it anew at the beginning
of a piece, by an attempt of width zero.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .adaptive import ADAPTIVE
from .compiled_columns import MOST
from .compiled_stiff import jacobian_rows, small_inverse
from .compiled_trace import Named, Spec, while_loop
from .rosenbrock import rodas4, rodas4_curve
from .runge_kutta import (
    BULGE,
    Rate,
    combination,
    dormand_prince,
    error_ratio,
    hermite_curve,
    initial_step,
    step_factor,
)
from .solvers import Status
from .walk import SHRINKS

RUNNING = -1

Node = tuple[Tensor, ...]
TracedField = Callable[..., Tensor]  # (t, x, u, *tensors) -> dx/dt


class Method(NamedTuple):
    """An adaptive one-step method, as the compiled loop needs it.

    Attributes:
        n_node: Tensors (row, state) that are known at a time: the state, and with FSAL its slope.
        n_curve: Tensors (row, state) that a step leaves for the curve between both its ends.
        n_evaluations: Of the field, per attempt.
        order: Of the error estimate, plus one.
        step: (rate, t, h, node, does rate depend on t) -> (node at t + h, error, what the curve
            needs).
        curve: (h, node, node at t + h, what the step left) -> what `interpolate` needs.
    """

    n_node: int
    n_curve: int
    n_evaluations: int
    order: int
    step: Callable[[Rate, Tensor, Tensor, Node, bool], tuple[Node, Tensor, Node]]
    curve: Callable[[Tensor, Node, Node, Node], Node]


def _dopri5(
    rate: Rate, t: Tensor, h: Tensor, node: Node, drifts: bool
) -> tuple[Node, Tensor, Node]:
    step = dormand_prince(rate, t, h, *node)
    assert step.slope is not None
    assert step.error is not None
    bulge = h.to(node[0].dtype).unsqueeze(-1) * combination(BULGE, step.stages)
    return (step.x, step.slope), step.error, (bulge,)


def _dopri5_curve(h: Tensor, before: Node, after: Node, left: Node) -> Node:
    return (*hermite_curve(h, before[0], after[0], (before[1], after[1])), *left)


def _rodas4(
    rate: Rate, t: Tensor, h: Tensor, node: Node, drifts: bool
) -> tuple[Node, Tensor, Node]:
    """Where h = 0, which W does not allow, nothing moves."""
    (x,), moves = node, (h > 0).unsqueeze(-1)
    width = torch.where(h > 0, h, IDLE_WIDTH)
    differentiate = functools.partial(jacobian_rows, drifts=drifts)
    step = rodas4(rate, t, width, x, rate(t, x), differentiate, small_inverse)
    assert step.error is not None
    curve = rodas4_curve(width, x, step.x, step.stages)
    still = torch.zeros_like(x)
    return (
        (torch.where(moves, step.x, x),),
        torch.where(moves, step.error, still),
        tuple(torch.where(moves, part, still) for part in curve),
    )


def _as_it_is(h: Tensor, before: Node, after: Node, left: Node) -> Node:
    return left


IDLE_WIDTH = 1e-6
_EXPLICIT, _STIFF = ADAPTIVE["dopri5"], ADAPTIVE["rosenbrock"]
METHODS = {
    "dopri5": Method(2, 1, _EXPLICIT.n_evaluations, _EXPLICIT.order, _dopri5, _dopri5_curve),
    "rosenbrock": Method(1, 2, _STIFF.n_evaluations, _STIFF.order, _rodas4, _as_it_is),
}


class Layout(NamedTuple):
    """The arguments of the loop for one method and one field.

    Attributes:
        method: The method.
        n_states: Length of a state.
        n_inputs: Length of an input.
        pieces: Whether the input changes over time.
        drifts: Whether the field does, by itself or through its input.
        dtype: Of states, inputs and slopes.
        device: Of everything.
        tensors: Constants and weights; an axis "row" where each row has its own.
    """

    method: Method
    n_states: int
    n_inputs: int
    pieces: bool
    drifts: bool
    dtype: torch.dtype
    device: torch.device
    tensors: tuple[Spec, ...]

    def specs(self) -> dict[str, Spec]:
        """Every argument by name, in order."""
        whole = torch.int64
        made = {"counts": self._spec(len(COUNTS), dtype=whole), "tolerances": self._spec(2)}
        made |= self.state_specs()
        made |= self.tape_specs()
        made |= {"end": self._spec("row")}
        made |= self.input_specs()
        made |= {f"tensor{i}": one for i, one in enumerate(self.tensors)}
        return made

    def state_specs(self) -> dict[str, Spec]:
        """What the loop changes, in place."""
        whole = {"dtype": torch.int64}
        made = {name: self._spec("row") for name in ("t", "h", "ratio", "wall")}
        made |= {name: self._spec("row", **whole) for name in ("tries", "status", "shrinks")}
        if self.pieces:
            made |= {
                "piece": self._spec("row", **whole),
                "stale": self._spec("row", dtype=torch.bool),
            }
        for i in range(self.method.n_node):
            made |= self._several(f"node{i}_", *self.node_parts())
        return made

    def node_parts(self) -> tuple[int, str, int]:
        """Of the state (row, state) in the loop: number of its parts, and their shape.

        Few columns are a tensor each, which are read and written without stepping over the others.
        """
        few = self.n_states <= MOST
        return (self.n_states, "row", 1) if few else (1, "row", self.n_states)

    def tape_specs(self) -> dict[str, Spec]:
        """What is kept of every attempt: time, piece, the node after it, what its curve needs."""
        made = {"tape_t": self._spec("slot", "row")}
        if self.pieces:
            made |= {"tape_piece": self._spec("slot", "row", dtype=torch.int64)}
        n_parts, *shape = self.node_parts()
        n_kept = n_parts * (self.method.n_node + self.method.n_curve)
        return made | self._several("tape", n_kept, "slot", *shape)

    def log_specs(self) -> dict[str, Spec]:
        """The steps of a solution, without rejected ones, for its gradient."""
        made = {"log_t": self._spec("all", "slot")}
        if self.pieces:
            made |= {"log_piece": self._spec("all", "slot", dtype=torch.int64)}
        made |= self._several("log_node", self.method.n_node, "slot", "all", self.n_states)
        return made

    def input_specs(self) -> dict[str, Spec]:
        """A constant; or pieces from `begin` to `stop`, lines value + slope (t - begin)."""
        of, N = self.dtype, self.n_inputs
        if not self.pieces:
            return {"u": self._spec("row", N, dtype=of)}
        return {
            "begin": self._spec("row", "piece"),
            "stop": self._spec("row", "piece"),
            "value": self._spec("row", "piece", N, dtype=of),
            "slope": self._spec("row", "piece", N, dtype=of),
        }

    def lines(self) -> tuple[str, ...]:
        """What of the input carries gradients."""
        return ("value", "slope") if self.pieces else ("u",)

    def _spec(self, *shape: int | str, dtype: torch.dtype = torch.float64) -> Spec:
        return Spec(shape, dtype, self.device)

    def _several(self, name: str, count: int, *shape: int | str) -> dict[str, Spec]:
        return {f"{name}{i}": self._spec(*shape, dtype=self.dtype) for i in range(count)}


def group(named: Named, prefix: str) -> Node:
    """The arguments `prefix`0, `prefix`1, ... in order."""
    return tuple(value for name, value in named.items() if name.startswith(prefix))


def local_input(named: Named, piece: Tensor) -> tuple[Tensor, ...]:
    """The input of each row on its piece: (u,), or (value, slope, begin)."""
    if "u" in named:
        return (named["u"],)
    at = piece.unsqueeze(-1)
    begin = named["begin"].gather(1, at).squeeze(-1)
    n_inputs = named["value"].shape[-1]
    rows = at.unsqueeze(-1).expand(-1, 1, n_inputs)
    value, slope = (named[name].gather(1, rows).squeeze(1) for name in ("value", "slope"))
    return value, slope, begin


def rate_of(field: TracedField, local: Sequence[Tensor], tensors: Sequence[Tensor]) -> Rate:
    """The field of (t, x) with input and constants bound."""

    def rate(t: Tensor, x: Tensor) -> Tensor:
        u = local[0]
        if len(local) > 1:
            u = u + local[1] * (t - local[2]).to(u.dtype).unsqueeze(-1)
        return field(t, x, u, *tensors).to(x.dtype).expand_as(x)

    return rate


COUNTS = ("keep", "patience", "limit", "logs", "fresh")
LOGS, FRESH = 3, 4


def loop_function(layout: Layout, field: TracedField) -> Callable[..., tuple[Tensor, ...]]:
    """The function to compile: arguments as `layout.specs()`.

    The loop changes the state in place: what is handed on from one attempt to the next would be
    allocated in each. Only what is known before it, the first width and slope, are tensors of the
    function (the compiler would write them back to an argument before the loop, not after), and
    come behind the number of attempts.
    """
    names = list(layout.specs())

    def solve(*arguments: Tensor) -> tuple[Tensor, ...]:
        a = dict(zip(names, arguments, strict=True))
        begun = _start(layout, a, field)
        a |= begun
        _write(layout, a, torch.zeros_like(a["counts"][0]), nodes(layout, a))
        carried = {"attempt": torch.zeros_like(a["counts"][0])}
        body = functools.partial(_attempt, layout, field)
        written = [*layout.state_specs(), *layout.tape_specs()]
        out = while_loop(_goes_on, body, carried, a, written, layout.n_states)
        return (out["attempt"], *begun.values())

    return solve


def _goes_on(carried: Named, a: Named) -> Tensor:
    keep, patience, limit, _, _ = a["counts"].unbind()
    running = (a["status"] == RUNNING).sum()
    many = (running > keep) | (carried["attempt"] < patience)
    return (running > 0) & many & (carried["attempt"] < limit)


def _start(layout: Layout, a: Named, field: TracedField) -> Named:
    """First width and slope of a fresh solution; what came in, of one that goes on."""
    method, fresh, (rtol, atol) = layout.method, a["counts"][FRESH] > 0, a["tolerances"].unbind()
    rate = rate_of(field, local_input(a, _piece(a)), group(a, "tensor"))
    node, span = nodes(layout, a), a["end"] - a["t"]
    slope = rate(a["t"], node[0])
    width = initial_step(rate, a["t"], node[0], slope, span, rtol, atol, method.order)
    after = {"h": torch.where(fresh, width, a["h"])}
    if method.n_node > 1:
        after |= parts(layout, 1, torch.where(fresh, slope, node[1]))
    return after


def nodes(layout: Layout, a: Named) -> Node:
    """The node of every row, from its parts."""
    return tuple(torch.cat(group(a, f"node{i}_"), dim=-1) for i in range(layout.method.n_node))


def parts(layout: Layout, i: int, value: Tensor) -> Named:
    """The parts of the i-th tensor of a node, by name."""
    n_parts = layout.node_parts()[0]
    return {
        f"node{i}_{j}": part.clone(memory_format=torch.contiguous_format)
        for j, part in enumerate(value.chunk(n_parts, dim=-1))
    }


def _set(a: Named, after: Named) -> None:
    for name, value in after.items():
        a[name].copy_(value)


def _piece(a: Named) -> Tensor:
    return a["piece"] if "piece" in a else torch.zeros_like(a["tries"])


def _attempt(layout: Layout, field: TracedField, carried: Named, a: Named) -> Named:
    """One attempted step of every row that runs; decisions as in `clinode.dynamics.walk`."""
    method, node, (rtol, atol) = layout.method, nodes(layout, a), a["tolerances"].unbind()
    t, h, stop = a["t"], a["h"], a["end"]
    runs = a["status"] == RUNNING
    steps = runs
    if layout.pieces:
        steps = runs & ~a["stale"]
        stop = torch.minimum(stop, a["stop"].gather(1, a["piece"].unsqueeze(-1)).squeeze(-1))
    last = h >= (stop - t) * (1 - 1e-10)
    width = torch.where(steps, torch.where(last, stop - t, h), 0.0)
    until = torch.where(last, stop, t + width)
    if layout.pieces:
        until = torch.where(a["stale"], t, until)
    rate = rate_of(field, local_input(a, _piece(a)), group(a, "tensor"))
    found, error, curve = method.step(rate, t, width, node, layout.drifts)
    ratio = error_ratio(error, node[0], found[0], rtol, atol)
    finite = ratio.isfinite()
    for value in found:
        finite = finite & value.isfinite().all(dim=-1)
    ratio = torch.where(finite, ratio, torch.inf)
    good = runs & (ratio <= 1)
    grown = width * step_factor(ratio, a["ratio"], method.order)
    # A step cut short by a stop says little about the next one.
    grown = torch.where(good & last, torch.maximum(grown, h), grown)
    after = {
        "t": torch.where(good, until, t),
        "h": torch.where(steps, grown, h),
        "ratio": torch.where(good & steps, ratio, a["ratio"]),
        "tries": a["tries"] + runs,
    }
    after |= _judged(a, after, until, runs, good, finite)
    if layout.pieces:
        passes = good & steps & last & (stop < a["end"])
        after["piece"] = a["piece"] + passes
        after["stale"] = passes if method.n_node > 1 else passes & False
    node = tuple(
        torch.where(good.unsqueeze(-1), new, old) for new, old in zip(found, node, strict=True)
    )
    for i, value in enumerate(node):
        after |= parts(layout, i, value)
    attempt = carried["attempt"] + 1
    _write(layout, a | after, attempt * a["counts"][LOGS], (*node, *curve))
    _set(a, after)
    return {"attempt": attempt}


def _judged(
    a: Named, after: Named, until: Tensor, runs: Tensor, good: Tensor, finite: Tensor
) -> Named:
    """The status of every row, and what tells a wall from a step that was too wide."""
    failed = runs & ~finite
    shrinks = a["shrinks"] + failed
    wall = torch.where(failed, torch.minimum(a["wall"], until), a["wall"])
    beyond = after["t"] >= wall
    shrinks, wall = torch.where(beyond, 0, shrinks), torch.where(beyond, torch.inf, wall)
    status = torch.where(good & (after["t"] >= a["end"]), Status.OK.value, a["status"])
    stuck = runs & ~good & ~(after["t"] + after["h"] > after["t"])
    status = torch.where(stuck, Status.STEP_UNDERFLOW.value, status)
    hopeless = (shrinks > SHRINKS) | ~after["h"].isfinite()
    if "stale" in a:
        hopeless = hopeless | a["stale"]
    status = torch.where(failed & hopeless, Status.NOT_FINITE.value, status)
    return {"status": status, "shrinks": shrinks, "wall": wall}


def _write(layout: Layout, a: Named, place: Tensor, values: Node) -> None:
    """The rows as they are, on the tape."""
    place, n_parts = place.unsqueeze(0), layout.node_parts()[0]
    a["tape_t"].index_put_((place,), a["t"].unsqueeze(0))
    if layout.pieces:
        a["tape_piece"].index_put_((place,), a["piece"].unsqueeze(0))
    kept = (part for value in values for part in value.chunk(n_parts, dim=-1))
    for i, part in enumerate(kept):
        a[f"tape{i}"].index_put_((place,), part.unsqueeze(0))
