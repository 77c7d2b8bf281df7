"""Fixed-step solutions of a batch as one compiled loop: for networks simulated many times.

The loop of a method and a class of system is compiled once, whatever the number of trajectories
and steps; the first call takes seconds. Constants that differ between trajectories have a row each,
those that all share are read once, so a shared matrix of weights costs one matrix product a step
for all trajectories. Steps are those of the eager loop, to rounding. All trajectories step at the
same times. One that is not finite any more is solved again by the eager loop, which says where.

With delays (`compiled_lags`) the method is Euler's and delays are whole steps, as simulators of
whole brains have them. What cannot be compiled raises `NotCompiled`; gradients are the eager
loop's.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clinode.system import Signal, System

from .adaptive import flattened, shaped, wants_gradient
from .compiled import CompileWarning
from .compiled_field import fingerprint, own_axes
from .compiled_lags import Lags, lags_of, move_on
from .compiled_steps import FRACTIONS, StepGraph, StepShape, step_graph
from .compiled_trace import Compiled, Named, NotCompiled, Spec, while_loop
from .delays import History, solve_delayed
from .fixed_step import FIXED_STEP, Grid, solve_fixed, step_grid
from .solvers import Limits, Problem, Solution, Status, select

ROWS = 256  # trajectories in one loop: their states stay in the cache
LAGGED_ROWS = 16  # with delays: their past stays there
STEPS = 1024  # between two looks at the clock, and of an input that changes
LAGGED_STEPS = 256


def solve_compiled_fixed(
    system: System,
    problem: Problem,
    *,
    step: float,
    method: str = "rk4",
    history: History | None = None,
    limits: Limits | None = None,
) -> Solution:
    """Explicit Runge-Kutta with steps of at most `step`, compiled.

    Args:
        system: The field of the problem, without events.
        problem: What to solve, all trajectories at the same output times.
        step: Largest step, in time units; with delays, of which they are whole multiples.
        method: A key of `FIXED_STEP`; "euler" with delays.
        history: Of a system with delays, its states before the start.
        limits: Wall time.

    Raises:
        NotCompiled: The system, its input or this machine does not allow it.
    """
    flat = flattened(system, problem)
    _check(flat, method)
    grid = step_grid(flat.times, flat.signal.breakpoints.to(flat.times), step)
    if grid.nodes.ndim > 1:
        raise NotCompiled("its trajectories have output times or breakpoints of their own")
    if len(grid.nodes) < 2:
        raise NotCompiled("with one output time there is nothing to solve")
    call = _Call(flat, method, grid, lags_of(flat, grid.nodes.diff(), history))
    solution = call.run(limits or Limits())
    failed = solution.status == Status.NOT_FINITE
    if failed.any():  # the eager loop says where
        part, options = select(flat.system, flat, failed), {"step": step, "method": method}
        if flat.system.delays:
            again = solve_delayed(part.system, part, history=history, **options)
        else:
            again = solve_fixed(part.system, part, **options)
        solution.states[failed], solution.reached[failed] = again.states, again.reached
        solution.status[failed] = again.status
        solution.n_evaluations[failed] = again.n_evaluations
    return shaped(solution, problem.batch)


def solve_compiled_fixed_or(
    eager: Callable[[Problem], Solution], system: System, problem: Problem, **options: Any
) -> tuple[Solution, str]:
    """`solve_compiled_fixed`, or the eager solver and a warning that says why; and which it was.

    Args:
        eager: Solves the problem where it cannot be compiled.
        system: The field of the problem.
        problem: What to solve.
        options: Of `solve_compiled_fixed`.
    """
    try:
        return solve_compiled_fixed(system, problem, **options), "compiled"
    except NotCompiled as reason:
        words = f"{type(system).__name__} was solved by the eager loop: {reason}"
        if words not in _WARNED:
            _WARNED.add(words)
            warnings.warn(words, CompileWarning, stacklevel=3)
        return eager(problem), "eager"


_WARNED: set[str] = set()
_GRAPHS: dict[Any, StepGraph] = {}
_LOOPS: dict[Any, Compiled] = {}


def _check(flat: Problem, method: str) -> None:
    system = flat.system
    if system.events:
        raise NotCompiled("it has events")
    if system.delays and method != "euler":
        raise NotCompiled("with delays only method 'euler' is compiled")
    if flat.signal.impulses is not None:
        raise NotCompiled("its input has impulses")
    if torch.is_grad_enabled() and wants_gradient(flat):
        raise NotCompiled("gradients are those of the eager loop")


@dataclass(frozen=True, eq=False)
class _Call:
    """What is solved, how, on which grid."""

    flat: Problem
    method: str
    grid: Grid
    lags: Lags | None

    def run(self, limits: Limits) -> Solution:
        """All trajectories, a few at a time."""
        flat, counts, nodes = self.flat, self.grid.counts, self.grid.nodes
        n_rows, device = len(flat.x0), flat.x0.device
        deadline = time.monotonic() + limits.wall_time_seconds
        at_once = ROWS if self.lags is None else LAGGED_ROWS
        kept = counts.unique()
        states = flat.x0.new_full((n_rows, len(kept), flat.x0.shape[-1]), torch.nan)
        stopped = torch.zeros(n_rows, dtype=torch.int64, device=device)
        for first in range(0, n_rows, at_once):
            rows = torch.arange(first, min(first + at_once, n_rows), device=device)
            padded = rows if len(rows) > 1 else rows.repeat(2)
            if self.lags is not None:
                padded = torch.arange(first, first + at_once, device=device).clamp(max=n_rows - 1)
            for place, done, x in self._walk(padded, kept.tolist(), deadline):
                states[rows, place] = x[: len(rows)]
                stopped[rows] = done
        finite = states[torch.arange(n_rows), torch.searchsorted(kept, stopped, right=True) - 1]
        status = torch.where(stopped < len(nodes) - 1, Status.WALL_TIME.value, Status.OK.value)
        status = torch.where(finite.isfinite().all(-1), status, Status.NOT_FINITE.value)
        evaluations = FIXED_STEP[self.method][1] * stopped
        states = states[:, torch.searchsorted(kept, counts)]
        return Solution(states, status, nodes[stopped], evaluations)

    def _walk(
        self, rows: Tensor, kept: list[int], deadline: float
    ) -> Iterator[tuple[int, int, Tensor]]:
        """States of these trajectories at the steps that are kept: (which, steps done, states)."""
        flat, lags = self.flat, self.lags
        shape, constants = self._shape(rows)
        loop, graph = _loop(flat.system, self.method, shape, lags)
        held = graph.before(*constants, *(() if shape.varies else self._constant_input(rows)))
        held = [self._turned(value) for value in held]
        blocks = [self._turned(block) for block in flat.system.split(flat.x0[rows]).values()]
        at_most = STEPS if lags is None else LAGGED_STEPS
        tables = {} if lags is None else {
            name: lags.table(flat, name, rows, at_most) for name in lags.sizes
        }  # fmt: skip
        places = [] if lags is None else list(lags.places.values())
        done = 0
        for place, until in enumerate(kept):
            while done < until:
                if time.monotonic() > deadline:
                    return
                n = min(until - done, at_most)
                nodes = self.grid.nodes[done : done + n + 1]
                nodes = torch.cat([nodes, nodes[-1:]])  # a step of no width follows the last
                number = torch.tensor(n, device=nodes.device)
                inputs = self._inputs(done, n, rows) if shape.varies else []
                blocks = loop(number, nodes, *blocks, *inputs, *tables.values(), *places, *held)
                for table in tables.values():
                    move_on(table, n, at_most)
                done += n
            whole = [block.T if lags is not None else block for block in blocks]
            yield place, done, torch.cat(whole, dim=-1)

    def _shape(self, rows: Tensor) -> tuple[StepShape, list[Tensor]]:
        """Shapes of what a step takes, and the constants of these trajectories."""
        flat, system = self.flat, self.flat.system
        of, where = flat.x0.dtype, flat.x0.device
        row: int | str = "row" if self.lags is None else LAGGED_ROWS
        blocks = tuple(Spec((row, quantity.size), of, where) for quantity in system.states)
        past = {}
        if self.lags is not None:
            for name, places in self.lags.places.items():
                past[name] = Spec((row, *reversed(places.shape)), of, where)
        axes, specs, constants = own_axes(system), {}, []
        for name, tensor in (*system.named_parameters(), *system.named_buffers()):
            n_own = axes.get(name, (tensor.ndim, False))[0]
            is_rowwise = tensor.ndim > n_own
            own = tensor.shape[tensor.ndim - n_own :]
            if is_rowwise:
                tensor = tensor.expand(len(flat.x0), *own)[rows]
            specs[name] = Spec((row, *own) if is_rowwise else tuple(own), tensor.dtype, where)
            constants.append(tensor.detach())
        signal = flat.signal
        varies = not (isinstance(signal, Signal) and signal.knots.shape[-1] == 1)
        n = (system.n_inputs,)
        spec = Spec((row, *n) if signal.batch_shape else n, of, where)
        inputs = (spec,) * (len(FRACTIONS[self.method]) if varies else 1)
        return StepShape(blocks, inputs, varies, past, specs), constants

    def _constant_input(self, rows: Tensor) -> list[Tensor]:
        u = self.flat.signal(self.flat.times[0]).to(self.flat.x0).detach()
        return [u.expand(len(self.flat.x0), -1)[rows] if u.ndim > 1 else u]

    def _inputs(self, done: int, n: int, rows: Tensor) -> list[Tensor]:
        """The input at each fraction of n steps, (step, input) or (step, row, input)."""
        signal, nodes = self.flat.signal, self.grid.nodes[done : done + n + 1]
        if signal.batch_shape:
            nodes = nodes.unsqueeze(-1)
        start, width = nodes[:-1], nodes.diff(dim=0)
        made = []
        for fraction in FRACTIONS[self.method]:
            u = signal(start + fraction * width, within=start + width / 2).to(self.flat.x0).detach()
            if u.ndim > 2:
                u = u.expand(n, len(self.flat.x0), u.shape[-1])[:, rows]
                u = u if self.lags is None else u.transpose(1, 2)
            made.append(u.contiguous())
        return made

    def _turned(self, value: Tensor) -> Tensor:
        """Contiguous; with delays, trajectories innermost."""
        return (value if self.lags is None else _round(value)).contiguous()


def _round(value: Tensor) -> Tensor:
    """Its axes turned round."""
    return value.permute(*reversed(range(value.ndim)))


def _loop(
    system: System, method: str, shape: StepShape, lags: Lags | None
) -> tuple[Compiled, StepGraph]:
    """The compiled loop of a system, found again where the same was compiled before."""
    key = (fingerprint(system), method, str(shape))
    if key not in _GRAPHS:
        _GRAPHS[key] = step_graph(system, method, shape)
    graph = _GRAPHS[key]
    known = (graph.text, str(shape), str(graph.held))
    if known not in _LOOPS:
        _LOOPS[known] = Compiled(*_loop_function(graph, shape, lags), checks_indices=False)
    return _LOOPS[known], graph


def _loop_function(
    graph: StepGraph, shape: StepShape, lags: Lags | None
) -> tuple[Callable[..., tuple[Tensor, ...]], list[Spec]]:
    """(steps, times, blocks, inputs, tables, places, held) -> blocks, and the shapes of all."""
    device = shape.blocks[0].device
    turn = _round if lags is not None else (lambda value: value)
    specs: dict[str, Spec] = {"n": Spec((), torch.int64, device)}
    specs["nodes"] = Spec(("slot",), torch.float64, device)
    specs |= {f"block{i}": _turned(one, lags) for i, one in enumerate(shape.blocks)}
    if shape.varies:
        for i, one in enumerate(shape.inputs):
            specs[f"input{i}"] = replace(one, shape=("time", *_turned(one, lags).shape))
    for name, one in shape.past.items():
        specs[f"table:{name}"] = replace(one, shape=("all", one.shape[-1], one.shape[0]))
    for name in shape.past:
        places = () if lags is None else tuple(lags.places[name].shape)
        specs[f"place:{name}"] = Spec(places, torch.int64, device)
    specs |= {f"held{i}": _turned(one, lags) for i, one in enumerate(graph.held)}
    blocks = [name for name in specs if name.startswith("block")]
    names = list(specs)

    def ends(nodes: Tensor, k: Tensor) -> Named:
        start = nodes.index_select(0, k).squeeze(0)
        end = nodes.index_select(0, k + 1).squeeze(0)
        return {"start": start, "width": end - start}

    def body(state: Named, a: Named) -> Named:
        k = state["k"]
        at = k.reshape(1)
        inputs = [
            turn(value.index_select(0, at).squeeze(0))
            for name, value in a.items()
            if name.startswith("input")
        ]
        past = [
            turn(a[f"table:{name}"].flatten(0, 1)[a[f"place:{name}"] + k * int(one.shape[-1])])
            for name, one in shape.past.items()
        ]
        held = [turn(value) for name, value in a.items() if name.startswith("held")]
        seen = [turn(state[name]) for name in blocks]
        after = graph.step(*seen, state["start"], state["width"], *inputs, *past, *held)
        after = [turn(b).clone(memory_format=torch.contiguous_format) for b in after]
        new = {"k": k + 1, **ends(a["nodes"], at + 1)} | dict(zip(blocks, after, strict=True))
        for name in shape.past:
            assert lags is not None
            block = new[blocks[lags.numbers[name]]].unsqueeze(0)
            a[f"table:{name}"].index_put_((at + lags.slots,), block)
        return new

    def solve(*arguments: Tensor) -> tuple[Tensor, ...]:
        a = dict(zip(names, arguments, strict=True))
        k = torch.zeros_like(a["n"])
        state = {"k": k, **ends(a["nodes"], k.reshape(1))}  # read anew, not looked up in each loop
        state |= {name: a[name].clone() for name in blocks}
        fixed = {name: value for name, value in a.items() if name not in state}
        written = [name for name in names if name.startswith("table")]
        out = while_loop(lambda s, a: s["k"] < a["n"], body, state, fixed, written)
        return tuple(out[name] for name in blocks)

    return solve, list(specs.values())


def _turned(spec: Spec, lags: Lags | None) -> Spec:
    return spec if lags is None else replace(spec, shape=tuple(reversed(spec.shape)))
