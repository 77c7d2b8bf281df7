"""The loop of an adaptive solution as one pure function of tensors, for the compiler.

Every row is a trajectory with its own time, width, state and status. An attempt writes its result
into the log at the row's next slot, in place; a rejected attempt is overwritten by the next. The
loop ends when no row runs, when the log is full, when so few rows run that the caller should drop
the others, or after a number of attempts, so that the caller can look at the clock. What it returns
is what it needs to go on.

An input that changes over time is a line on each of its pieces, and no step leaves its piece. A
method that carries the slope of its last step on to the next (FSAL) takes it anew at the beginning
of a piece, by an attempt of width zero, which has a slot of its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .adaptive import ADAPTIVE
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
        whole, D = torch.int64, self.n_states
        made = {name: self._spec(dtype=whole) for name in ("keep", "patience", "limit")}
        made |= {"logs": self._spec(dtype=whole), "fresh": self._spec(dtype=torch.bool)}
        made |= {"rtol": self._spec(), "atol": self._spec()}
        made |= {name: self._spec("row") for name in ("t", "h", "ratio")}
        made |= {
            name: self._spec("row", dtype=whole) for name in ("slot", "tries", "status", "piece")
        }
        made |= {"stale": self._spec("row", dtype=torch.bool)}
        made |= {"shrinks": self._spec("row", dtype=whole), "wall": self._spec("row")}
        made |= self._several("node", self.method.n_node, "row", D)
        made |= {"end": self._spec("row"), "rows": self._spec("row", dtype=whole)}
        made |= self.log_specs()
        made |= self.input_specs()
        made |= {f"tensor{i}": one for i, one in enumerate(self.tensors)}
        return made

    def log_specs(self) -> dict[str, Spec]:
        """What is kept of every step."""
        made = {"log_t": self._spec("all", "slot")}
        if self.pieces:
            made |= {"log_piece": self._spec("all", "slot", dtype=torch.int64)}
        made |= self._several("log_node", self.method.n_node, "slot", "all", self.n_states)
        made |= self._several("log_curve", self.method.n_curve, "slot", "all", self.n_states)
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


def loop_function(layout: Layout, field: TracedField) -> Callable[..., tuple[Tensor, ...]]:
    """The function to compile: arguments as `layout.specs()`, result as `CARRIED` and the node."""
    names, method = list(layout.specs()), layout.method

    def solve(*arguments: Tensor) -> tuple[Tensor, ...]:
        a = dict(zip(names, arguments, strict=True))
        node, h = _start(method, a, field)
        state = {name: a[name].clone() for name in CARRIED[1:]} | {"h": h}
        state = {"attempt": torch.zeros_like(a["limit"])} | state
        _log(layout, a, state, node)
        state |= {f"node{i}": value.clone() for i, value in enumerate(node)}
        fixed = {name: value for name, value in a.items() if name not in state}
        body = functools.partial(_attempt, layout, field)
        written, n_states = list(layout.log_specs()), layout.n_states
        return tuple(while_loop(_goes_on, body, state, fixed, written, n_states).values())

    return solve


def _goes_on(state: Named, a: Named) -> Tensor:
    running = (state["status"] == RUNNING).sum()
    many = (running > a["keep"]) | (state["attempt"] < a["patience"])
    room = (state["slot"] * a["logs"]).max() < a["log_t"].shape[1] - 1
    return (running > 0) & many & room & (state["attempt"] < a["limit"])


CARRIED = (
    *("attempt", "t", "h", "ratio", "slot", "tries", "status", "piece", "stale"),
    *("shrinks", "wall"),
)


def _start(method: Method, a: Named, field: TracedField) -> tuple[Node, Tensor]:
    """Slope and first width of a fresh solution; what came in, of one that goes on."""
    rate = rate_of(field, local_input(a, a["piece"]), group(a, "tensor"))
    x, span = a["node0"], a["end"] - a["t"]
    slope = rate(a["t"], x)
    width = initial_step(rate, a["t"], x, slope, span, a["rtol"], a["atol"], method.order)
    node = (x,) if method.n_node == 1 else (x, torch.where(a["fresh"], slope, a["node1"]))
    return node, torch.where(a["fresh"], width, a["h"])


def _attempt(layout: Layout, field: TracedField, state: Named, a: Named) -> Named:
    """One attempted step of every row that runs; decisions as in `clinode.dynamics.walk`."""
    method, node = layout.method, group(state, "node")
    t, h, piece, stale = state["t"], state["h"], state["piece"], state["stale"]
    runs = state["status"] == RUNNING
    steps = runs & ~stale
    stop = a["end"]
    if layout.pieces:
        stop = torch.minimum(stop, a["stop"].gather(1, piece.unsqueeze(-1)).squeeze(-1))
    last = h >= (stop - t) * (1 - 1e-10)
    width = torch.where(steps, torch.where(last, stop - t, h), 0.0)
    until = torch.where(stale, t, torch.where(last, stop, t + width))
    rate = rate_of(field, local_input(a, piece), group(a, "tensor"))
    found, error, curve = method.step(rate, t, width, node, layout.drifts)
    ratio = error_ratio(error, node[0], found[0], a["rtol"], a["atol"])
    finite = ratio.isfinite()
    for value in found:
        finite = finite & value.isfinite().all(dim=-1)
    ratio = torch.where(finite, ratio, torch.inf)
    good = runs & (ratio <= 1)
    grown = width * step_factor(ratio, state["ratio"], method.order)
    # A step cut short by a stop says little about the next one.
    grown = torch.where(good & last, torch.maximum(grown, h), grown)
    passes = good & steps & last & (stop < a["end"])
    after = {
        "attempt": state["attempt"] + 1,
        "t": torch.where(good, until, t),
        "h": torch.where(steps, grown, h),
        "ratio": torch.where(good & steps, ratio, state["ratio"]),
        "slot": state["slot"] + good,
        "tries": state["tries"] + runs,
        "piece": piece + passes,
        "stale": passes if method.n_node > 1 else passes & False,
    }
    after |= _judged(state, after, a["end"], until, runs, good, finite)
    new_node = tuple(
        torch.where(good.unsqueeze(-1), new, old) for new, old in zip(found, node, strict=True)
    )
    for log, value in zip(group(a, "log_curve"), curve, strict=True):
        log.index_put_((state["slot"] * a["logs"], a["rows"]), value)
    _log(layout, a, after, new_node)
    return after | {f"node{i}": value for i, value in enumerate(new_node)}


def _judged(
    state: Named, after: Named, end: Tensor, until: Tensor, runs: Tensor, good: Tensor,
    finite: Tensor,
) -> Named:  # fmt: skip
    """The status of every row, and what tells a wall from a step that was too wide."""
    failed = runs & ~finite
    shrinks = state["shrinks"] + failed
    wall = torch.where(failed, torch.minimum(state["wall"], until), state["wall"])
    beyond = after["t"] >= wall
    shrinks, wall = torch.where(beyond, 0, shrinks), torch.where(beyond, torch.inf, wall)
    status = torch.where(good & (after["t"] >= end), Status.OK.value, state["status"])
    stuck = runs & ~good & ~(after["t"] + after["h"] > after["t"])
    status = torch.where(stuck, Status.STEP_UNDERFLOW.value, status)
    hopeless = failed & ((shrinks > SHRINKS) | state["stale"] | ~after["h"].isfinite())
    status = torch.where(hopeless, Status.NOT_FINITE.value, status)
    return {"status": status, "shrinks": shrinks, "wall": wall}


def _log(layout: Layout, a: Named, state: Named, node: Node) -> None:
    here, rows = state["slot"] * a["logs"], a["rows"]
    a["log_t"].index_put_((rows, here), state["t"])
    if layout.pieces:
        a["log_piece"].index_put_((rows, here), state["piece"])
    for log, value in zip(group(a, "log_node"), node, strict=True):
        log.index_put_((here, rows), value)
