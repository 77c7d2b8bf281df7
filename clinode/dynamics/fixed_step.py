"""Fixed-step methods over a batch of trajectories, and maps.

Steps of a given largest width that end at output times and at breakpoints of the input. These
methods do not control their error: halve the step to see it, or choose an adaptive method. Stiff
systems need a step below their fastest time constant.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clinode.errors import ArgumentError
from clinode.system import FunctionSignal, Signal, System

from .adaptive import flattened, walk
from .impulses import jump
from .runge_kutta import Rate, Step, hermite_curve
from .solvers import Limits, Problem, Solution, Status
from .walk import Method

Advance = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (k, start, width, x) -> x at its end
Settle = Callable[[Tensor, Tensor, Tensor], Tensor]  # (t, x, who has just arrived) -> x
OneStep = Callable[[Callable[[float, Tensor], Tensor], Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Grid:
    """The steps of each trajectory; shared by all where the batch axes are empty.

    Attributes:
        nodes: (*batch, step + 1): where steps begin and end, in time units (of a map: its k). The
            last one is repeated for a trajectory that needs fewer steps than the longest.
        counts: (*batch, time): steps taken when an output time is reached.
    """

    nodes: Tensor
    counts: Tensor


def step_grid(
    times: Float[Tensor, "*times time"],
    breakpoints: Float[Tensor, "*breaks breakpoint"],
    step: float,
) -> Grid:
    """Steps of at most `step` that end at every output time and every breakpoint.

    Example:
        >>> step_grid(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.3]).double(), 0.5).nodes
        tensor([0.0000, 0.3000, 0.6500, 1.0000], dtype=torch.float64)
    """
    batch = torch.broadcast_shapes(times.shape[:-1], breakpoints.shape[:-1])
    times = times.expand(*batch, -1).contiguous()
    inside = breakpoints.expand(*batch, -1).clamp(times[..., :1], times[..., -1:])
    nodes = torch.cat([times, inside], dim=-1).sort(dim=-1).values.contiguous()
    lengths = nodes.diff(dim=-1)
    # A length of 0.3 / 0.1 steps is 3, not 4: forgive the rounding of decimal fractions.
    n_steps = (lengths / step - 1e-9).ceil().clamp(min=0).long()
    n_steps = torch.where(lengths > 0, n_steps.clamp(min=1), 0)
    until = torch.nn.functional.pad(n_steps.cumsum(dim=-1), (1, 0))
    longest = int(until[..., -1].max()) if nodes.shape[-1] > 1 else 0
    index = torch.arange(longest + 1, device=times.device).expand(*batch, -1).contiguous()
    index = index.minimum(until[..., -1:])
    segment = torch.searchsorted(until, index, right=True) - 1
    width = torch.nn.functional.pad(lengths / n_steps.clamp(min=1), (0, 1))
    offset = (index - until.gather(-1, segment)) * width.gather(-1, segment)
    counts = until.gather(-1, torch.searchsorted(nodes, times))
    return Grid(nodes.gather(-1, segment) + offset, counts)


def solve_fixed(
    system: System,
    problem: Problem,
    *,
    step: float,
    method: str = "rk4",
    limits: Limits | None = None,
) -> Solution:
    """Explicit Runge-Kutta with steps of at most `step`; differentiable.

    A system with events takes the loop of `clinode.dynamics.walk`, where an event cuts a step.

    Args:
        system: Whose field is solved, with its events.
        problem: What to solve.
        step: Largest step, in time units.
        method: A key of `FIXED_STEP`: "rk4" (order 4), "midpoint", "heun" (order 2) or "euler".
        limits: Wall time.
    """
    one_step, n_stages = FIXED_STEP[method]
    signal = problem.signal
    grid = step_grid(problem.times, signal.breakpoints.to(problem.times), step)
    if system.events:
        through = Method(_attempt(one_step), hermite_curve, order=0, n_evaluations=n_stages)
        return walk(flattened(system, problem), problem, through, _rows(grid.nodes), limits=limits)
    jumps = jump_steps(signal, grid)

    def advance(k: int, start: Tensor, width: Tensor, x: Tensor) -> Tensor:
        middle = start + width / 2
        held = signal(middle) if isinstance(signal, Signal) and signal.hold == "previous" else None

        def rate(fraction: float, x: Tensor) -> Tensor:
            t = start + fraction * width
            u = signal(t, within=middle) if held is None else held
            return problem.field(t, x, u.to(x.dtype))

        return one_step(rate, width.to(x.dtype).unsqueeze(-1), x)

    return march(advance, problem, grid, n_stages, limits or Limits(), jumps)


def iterate(problem: Problem, *, step: float, limits: Limits | None = None) -> Solution:
    """Iterates of a map: x at k + 1 is field(k, x, u(k step)), every `step` time units.

    Raises:
        ArgumentError: Output times that are not whole numbers of steps, or impulses.
    """
    if problem.signal.impulses is not None:
        raise ArgumentError("a map has no impulses: its input acts once a step")
    signal = problem.signal
    counts = (problem.times / step).round()
    if not torch.allclose(counts * step, problem.times, rtol=1e-9, atol=1e-9 * step):
        raise ArgumentError(f"output times of a map must be whole numbers of its step {step}")
    steps = (counts - counts[..., :1]).long()
    longest = int(steps.max())
    index = torch.arange(longest + 1, device=steps.device).minimum(steps[..., -1:])
    grid = Grid(counts[..., :1] + index, steps)

    def advance(k: int, start: Tensor, width: Tensor, x: Tensor) -> Tensor:
        return problem.field(start, x, signal(start * step).to(x.dtype))

    solution = march(advance, problem, grid, 1, limits or Limits(), frozenset())
    return Solution(
        solution.states, solution.status, solution.reached * step, solution.n_evaluations
    )


def _rows(nodes: Tensor) -> Tensor:
    """Batch axes as one; none where all trajectories share the steps."""
    return nodes.reshape(-1, nodes.shape[-1]) if nodes.ndim > 1 else nodes


def _attempt(one_step: OneStep) -> Callable[..., Step]:
    """A fixed step as the loop through events takes it: it knows the slope at the start."""

    def step(rate: Rate, t: Tensor, h: Tensor, x: Tensor, slope: Tensor) -> Step:
        def within(fraction: float, x: Tensor) -> Tensor:
            return rate(t + fraction * h, x) if fraction else slope

        width = h.to(x.dtype).unsqueeze(-1)
        return Step(one_step(within, width, x), None, None, (slope,))

    return step


def _euler_step(rate: Callable[[float, Tensor], Tensor], h: Tensor, x: Tensor) -> Tensor:
    return x + h * rate(0.0, x)


def _midpoint_step(rate: Callable[[float, Tensor], Tensor], h: Tensor, x: Tensor) -> Tensor:
    return x + h * rate(0.5, x + h / 2 * rate(0.0, x))


def _heun_step(rate: Callable[[float, Tensor], Tensor], h: Tensor, x: Tensor) -> Tensor:
    k1 = rate(0.0, x)
    return x + h / 2 * (k1 + rate(1.0, x + h * k1))


def _rk4_step(rate: Callable[[float, Tensor], Tensor], h: Tensor, x: Tensor) -> Tensor:
    k1 = rate(0.0, x)
    k2 = rate(0.5, x + h / 2 * k1)
    k3 = rate(0.5, x + h / 2 * k2)
    k4 = rate(1.0, x + h * k3)
    return x + h / 6 * (k1 + 2 * (k2 + k3) + k4)


FIXED_STEP: dict[str, tuple[OneStep, int]] = {  # and field calls a step
    "rk4": (_rk4_step, 4),
    "midpoint": (_midpoint_step, 2),
    "heun": (_heun_step, 2),
    "euler": (_euler_step, 1),
}


def march(
    advance: Advance,
    problem: Problem,
    grid: Grid,
    n_stages: int,
    limits: Limits,
    jumps: frozenset[int],
    settle: Settle | None = None,
) -> Solution:
    """Take the steps of a grid; a trajectory whose next state is not finite stays where it is.

    Args:
        advance: One step of all trajectories.
        problem: What to solve.
        grid: Its steps.
        n_stages: Evaluations of the field a step.
        limits: Wall time.
        jumps: Numbers of the steps that begin with an impulse.
        settle: What happens to states at the end of a step, after they were read.
    """
    batch, longest = problem.batch, grid.nodes.shape[-1] - 1
    deadline = time.monotonic() + limits.wall_time_seconds
    kept = grid.counts.unique()
    wanted = set(kept.tolist())
    x, saved = problem.x0, [problem.x0]
    status = torch.zeros(batch, dtype=torch.int64, device=x.device)
    stopped = torch.full(batch, longest, device=x.device)  # the step that could not be taken
    for k in range(longest):
        start, width = grid.nodes[..., k], grid.nodes[..., k + 1] - grid.nodes[..., k]
        moves = (status == Status.OK) & (width > 0)
        if time.monotonic() > deadline:
            stopped = torch.where(moves, k, stopped)
            status = torch.where(moves, Status.WALL_TIME.value, status)
            saved += [x] * (len(kept) - len(saved))
            break
        after = jump(problem.field, problem.signal, start, x, moves) if k in jumps else x
        candidate = advance(k, start, width, after)
        finite = candidate.isfinite().all(dim=-1)
        stopped = torch.where(moves & ~finite, k, stopped)
        status = torch.where(moves & ~finite, Status.NOT_FINITE.value, status)
        x = torch.where((moves & finite).unsqueeze(-1), candidate, x)
        if k + 1 in wanted:
            saved.append(x)
        if settle is not None:
            x = settle(grid.nodes[..., k + 1], x, moves & finite)
    counts = grid.counts.expand(*batch, -1)
    index = torch.searchsorted(kept, counts.contiguous()).unsqueeze(-1)
    states = torch.stack(saved, dim=-2).gather(-2, index.expand(*index.shape[:-1], x.shape[-1]))
    states = states.masked_fill((counts > stopped.unsqueeze(-1)).unsqueeze(-1), math.nan)
    nodes = grid.nodes.expand(*batch, -1)
    reached = nodes.gather(-1, stopped.unsqueeze(-1)).squeeze(-1)
    return Solution(states, status, reached, n_stages * counts[..., -1].minimum(stopped + 1))


def jump_steps(signal: Signal | FunctionSignal, grid: Grid) -> frozenset[int]:
    """Numbers of the steps that begin with an impulse of some trajectory."""
    if signal.impulses is None:
        return frozenset()
    hit = torch.isin(grid.nodes, signal.impulses[0].to(grid.nodes))
    return frozenset(hit.reshape(-1, hit.shape[-1]).any(dim=0).nonzero().flatten().tolist())
