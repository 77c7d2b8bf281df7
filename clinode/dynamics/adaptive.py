"""Adaptive methods: each trajectory chooses its own steps.

"dopri5" for what is not stiff, "rosenbrock" for what is. The loop is in `clinode.dynamics.walk`,
one step in `runge_kutta` and `rosenbrock`.
"""

from dataclasses import replace

import torch
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import Signal, System, present

from .rosenbrock import rodas4, rodas4_curve
from .runge_kutta import dormand_prince, dormand_prince_curve
from .solvers import Limits, Problem, Solution, Status, select
from .walk import Method, Tolerance, Walk

ADAPTIVE = {
    "dopri5": Method(dormand_prince, dormand_prince_curve, order=5, n_evaluations=6),
    "rosenbrock": Method(rodas4, rodas4_curve, order=4, n_evaluations=7),
}


def solve_adaptive(
    system: System,
    problem: Problem,
    *,
    method: str = "dopri5",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    limits: Limits | None = None,
) -> Solution:
    """Solve with steps whose estimated error is at most atol + rtol |x|.

    Args:
        system: Whose field is solved, with its events.
        problem: What to solve.
        method: A key of `ADAPTIVE`.
        rtol: Relative tolerance of one step, in the root mean square over the states.
        atol: Absolute tolerance, in the states' units.
        limits: Steps and wall time.

    Raises:
        ArgumentError: Tolerances that are not positive.
    """
    if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
        raise ArgumentError(f"tolerances must be positive, got rtol {rtol} and atol {atol}")
    flat = flattened(system, problem)
    return walk(flat, problem, ADAPTIVE[method], _stops(flat), Tolerance(rtol, atol), limits)


def walk(
    flat: Problem,
    problem: Problem,
    method: Method,
    stops: Tensor,
    tolerance: Tolerance | None = None,
    limits: Limits | None = None,
) -> Solution:
    """Walk the rows of a flattened problem; again, where gradients are asked for.

    Args:
        flat: `problem`, with one batch axis.
        problem: Gives the batch axes of the solution.
        method: How to step.
        stops: (row, stop) or (stop,): where steps must end.
        tolerance: Of an adaptive method.
        limits: Steps and wall time.
    """
    tolerance, limits = tolerance or Tolerance(), limits or Limits()
    if flat.times.shape[-1] == 1:
        return _at_start(flat, problem)
    again = torch.is_grad_enabled() and wants_gradient(flat)
    with torch.no_grad():
        forward = Walk(flat, method, stops, tolerance, limits, keep_steps=again)
        solution = forward.run()
    if again:
        chosen = solution.status == Status.OK
        solution = _again(forward, solution, chosen, stops.expand(len(flat.x0), -1))
    return shaped(solution, problem.batch)


def flattened(system: System, problem: Problem) -> Problem:
    """The same problem with one batch axis, and the system as its field.

    Raises:
        ArgumentError: A batch axis on something else than constants, input, start and times.
    """
    batch = problem.batch
    if len(batch) > 1:
        everything = torch.ones(batch, dtype=torch.bool, device=problem.x0.device)
        flat = select(system, problem, everything)
    elif not batch:
        flat = Problem(system, problem.x0.unsqueeze(0), problem.times, problem.signal)
    else:
        flat = Problem(system, problem.x0, problem.times, problem.signal)
    first = torch.zeros(1, dtype=torch.int64, device=problem.x0.device)
    one = select(flat.system, flat, first) if len(flat.x0) > 1 else flat
    if _rate_shape(flat) != flat.x0.shape or _rate_shape(one) != one.x0.shape:
        raise ArgumentError(
            f"{type(system).__name__} has batch axes that are not those of its constants",
            fix="give every batched value as a constant, or simulate its members one by one",
        )
    return flat


def _rate_shape(flat: Problem) -> torch.Size:
    start = flat.times[..., 0].expand(len(flat.x0))
    with torch.no_grad():
        u = flat.signal(start).to(flat.x0.dtype)
        past = (present(flat.system, flat.x0),) if flat.system.delays else ()
        return flat.field(start, flat.x0, u, *past).shape


def wants_gradient(problem: Problem) -> bool:
    """Whether anything of a flattened problem carries gradients."""
    signal, system = problem.signal, problem.field
    tensors = [problem.x0, signal(problem.times[..., 0])]
    if isinstance(signal, Signal) and signal.impulses is not None:
        tensors += signal.impulses
    if isinstance(system, System):
        tensors += [*system.parameters(), *system.buffers()]
    return any(tensor.requires_grad for tensor in tensors)


def _stops(flat: Problem) -> Tensor:
    """Breakpoints inside each row's times, then its end; infinity behind it."""
    n = len(flat.x0)
    times = flat.times.expand(n, -1)
    breaks = flat.signal.breakpoints.to(times)
    breaks = breaks.expand(n, breaks.shape[-1])
    inside = (breaks > times[:, :1]) & (breaks < times[:, -1:])
    kept = torch.where(inside, breaks, torch.inf)
    return torch.cat([kept, times[:, -1:]], dim=-1).sort(dim=-1).values


def _again(forward: Walk, solution: Solution, chosen: Tensor, stops: Tensor) -> Solution:
    """The solution with the graph of the chosen rows, by the steps that they took."""
    if not chosen.any():
        return solution
    whole = forward.whole
    part = select(whole.system, whole, chosen)
    plan = forward.record.plan(chosen)
    second = Walk(part, forward.method, stops[chosen], forward.tolerance, Limits(), plan).run()
    states = solution.states.clone()
    states[chosen] = second.states
    events = solution.events
    if events is not None and second.events is not None:
        time, mine = events.time.clone(), chosen[events.trajectory]
        time[mine] = second.events.time
        events = replace(events, time=time)
    return replace(solution, states=states, events=events)


def _at_start(flat: Problem, problem: Problem) -> Solution:
    """With one output time there is nothing to solve."""
    n = len(flat.x0)
    none = torch.zeros(n, dtype=torch.int64, device=flat.x0.device)
    start = flat.times[..., 0].expand(n)
    walked = Walk(flat, ADAPTIVE["dopri5"], start.unsqueeze(-1), Tolerance(), Limits())
    events = walked.record.happenings() if walked.guards is not None else None
    states = flat.x0.unsqueeze(-2)
    return shaped(Solution(states, none, start, none, 0 * start, events), problem.batch)


def shaped(solution: Solution, batch: torch.Size) -> Solution:
    """With the batch axes of the problem instead of one."""

    def as_batch(tensor: Tensor) -> Tensor:
        return tensor.reshape((*batch, *tensor.shape[1:]))

    width = None if solution.width is None else as_batch(solution.width)
    return Solution(
        as_batch(solution.states),
        as_batch(solution.status),
        as_batch(solution.reached),
        as_batch(solution.n_evaluations),
        width,
        solution.events,
    )
