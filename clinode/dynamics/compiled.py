"""Adaptive solutions of a batch as one compiled loop: for the same system solved many times.

The loop of `compiled_loop` is compiled once for a class of system, its number of states, dtype,
method and device, whatever the number of trajectories; the first call takes seconds, the first
gradient of a stiff solution a minute. Constants, weights, tolerances, start and input are
arguments. The steps are those of the eager solver, to rounding. Trajectories that are done are
dropped from the loop when half of them are.

What cannot be compiled raises `NotCompiled`; `clinode.dynamics.simulate` then says so in a
`CompileWarning` and takes the eager solver. Initial widths and step sizes are constants to a
gradient, as everywhere here.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import System

from .compiled_gradient import Backwards, segments
from .compiled_march import March, compiled_outputs, compiled_reverse
from .compiled_rows import flatten, layout_of, padded
from .compiled_stiff import WRITTEN_OUT
from .compiled_trace import NotCompiled
from .solvers import Limits, Problem, Solution


class CompileWarning(UserWarning):
    """A solution that was asked for compiled, and was found by the eager solver."""


def solve_compiled(
    system: System,
    problem: Problem,
    *,
    method: str = "dopri5",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    limits: Limits | None = None,
) -> Solution:
    """A batch of trajectories in one compiled loop.

    Args:
        system: The field of the problem.
        problem: What to solve; its input is constant or a `Signal` without impulses.
        method: A key of `METHODS`.
        rtol: Relative tolerance of a step, in the root mean square over a trajectory's states.
        atol: Absolute tolerance, in the states' units.
        limits: Steps and wall time.

    Raises:
        ArgumentError: Tolerances that are not positive.
        NotCompiled: The system, its input or this machine does not allow it.
    """
    if system.events or system.delays:
        raise NotCompiled("it has events or delays")
    flat = flatten(system, problem)
    layout = layout_of(flat, method)
    wants_gradient = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (flat.x0, *flat.inputs.values(), *flat.field.tensors)
    )
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise ArgumentError(f"tolerances must be positive, got rtol {rtol} and atol {atol}")
    if flat.times.shape[-1] == 1:
        raise NotCompiled("with one output time there is nothing to solve")
    if wants_gradient and method == "rosenbrock" and layout.n_states > WRITTEN_OUT:
        raise NotCompiled(
            f"gradients of its stiff solutions are compiled up to {WRITTEN_OUT} states only"
        )
    smallest = torch.finfo(flat.x0.dtype).tiny
    keep_steps = flat.times.shape[-1] > 2 or wants_gradient
    march = March(flat, layout, rtol, max(atol, smallest), limits or Limits(), keep_steps)
    states = _differentiable(march) if wants_gradient else march.run().states()
    return _in_shape(states, march, problem.batch)


def solve_compiled_or(
    eager: Callable[[Problem], Solution], system: System, problem: Problem, **options: Any
) -> tuple[Solution, str]:
    """`solve_compiled`, or the eager solver and a warning that says why; and which one it was.

    Args:
        eager: Solves the problem where it cannot be compiled.
        system: The field of the problem.
        problem: What to solve.
        options: Of `solve_compiled`.
    """
    try:
        return solve_compiled(system, problem, **options), "compiled"
    except NotCompiled as reason:
        words = f"{type(system).__name__} was solved by the eager loop: {reason}"
        if words not in _WARNED:
            _WARNED.add(words)
            warnings.warn(words, CompileWarning, stacklevel=3)
        return eager(problem), "eager"


_WARNED: set[str] = set()


def _in_shape(states: Tensor, march: March, batch: torch.Size) -> Solution:
    """Rows as the batch they came from."""
    final, n_rows, method = march.final, batch.numel(), march.layout.method
    evaluations = final["tries"] * method.n_evaluations + 2
    if march.layout.pieces and method.n_node > 1:  # slopes behind breakpoints
        evaluations -= (final["piece"] - march.first_piece) * (method.n_evaluations - 1)
    return Solution(
        states[:n_rows].reshape(*batch, *states.shape[1:]),
        final["status"][:n_rows].reshape(batch),
        final["t"][:n_rows].reshape(batch),
        evaluations[:n_rows].reshape(batch),
    )


def _differentiable(march: March) -> Tensor:
    """States at the output times, with the graph to start, input, constants and weights."""
    flat = march.flat
    inputs = [flat.inputs[name] for name in march.layout.lines()]
    tensors = [
        padded(tensor) if spec.shape[:1] == ("row",) else tensor
        for tensor, spec in zip(flat.field.tensors, flat.field.specs, strict=True)
    ]
    return _Steps.apply(march, flat.x0, *inputs, *tensors)


class _Steps(torch.autograd.Function):
    """A solution at its output times, as a function of start, input, constants and weights."""

    @staticmethod
    def forward(ctx: Any, march: March, *leaves: Tensor) -> Tensor:
        ctx.march = march.run()
        return march.states()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # as torch wants it written
        ctx: Any, on_states: Tensor
    ) -> tuple[Tensor | None, ...]:
        march: March = ctx.march
        needs = ctx.needs_input_grad[2:]
        n_inputs = len(march.layout.lines())
        wanted = Backwards(march.layout, tuple(needs[n_inputs:]), any(needs[:n_inputs]))
        start, found = pull_back(march, wanted, on_states)
        given = iter(found)
        inputs = [next(given) if wanted.inputs else None for _ in range(n_inputs)]
        return (None, start, *inputs, *(next(given) if want else None for want in wanted.wanted))


def pull_back(march: March, wanted: Backwards, on_states: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Cotangents of the start and of what is wanted, from those of the states."""
    loop, rowwise = compiled_reverse(march.flat, wanted), march.rowwise
    n_node, static = march.layout.method.n_node, march.static_of_all
    count, log = march.steps
    read_back = compiled_outputs(march.layout, back=True)
    on_known = read_back(march.flat.times, log.t, count, log.known, on_states.contiguous())[0]
    by_slot = (value.transpose(0, 1).contiguous() for value in (*log.known[:n_node], *on_known))
    logs = [log.t, *([] if log.piece is None else [log.piece]), *by_slot]
    pull = [torch.zeros_like(march.flat.x0) for _ in range(n_node)]
    pull[0] += torch.where(count.unsqueeze(-1) == 0, on_known[0, :, 0], 0.0)
    sums = [torch.zeros_like(static[name]) for name in wanted.sums()]
    for high, low in segments(count) if int(count.max()) else []:
        chosen = (count > low).nonzero().squeeze(-1)
        rows = chosen.repeat(2) if len(chosen) == 1 else chosen
        active = torch.arange(len(rows), device=rows.device) < len(chosen)
        numbers = (torch.tensor(value, device=rows.device) for value in (high, low))
        local = {
            name: value[rows] if name in rowwise else value
            for name, value in static.items()
            if name != "end"
        }
        pulls = (g[rows] for g in pull)
        out = loop(*numbers, count[rows], rows, active, *logs, *pulls, *local.values())
        for total, found in zip(pull, out[:n_node], strict=True):
            total[chosen] = found[: len(chosen)]
        for name, total, found in zip(wanted.sums(), sums, out[n_node:], strict=True):
            if name in rowwise:
                total[chosen] += found[: len(chosen)]
            else:
                total += found
    return pull[0], sums
